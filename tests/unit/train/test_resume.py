"""Going on with a run: finished, stopped late, or damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from spoco_zoo.cli import app

SETTINGS = """
iterations: 4
validate_every: 2
batch_size: 2
crop: [16, 16]
features: [4, 8]
embedding_dim: 4
warmup: 2
precision: float32
"""


@pytest.fixture(scope="module")
def finished(
    draw_pairs: Callable[[Path, int, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of images and labels, and a finished run on them, with a page."""
    folder = draw_pairs(tmp_path_factory.mktemp("finished"), 3, 32)
    (folder / "c.yaml").write_text(SETTINGS)
    done = train(folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def data(finished: Path, tmp_path: Path) -> Path:
    """A copy of its own for each test."""
    return shutil.copytree(finished, tmp_path / "data")


def train(data: Path, *options: str) -> Any:
    places = [*pairs(data), "--out", str(data / "run"), "--config", str(data / "c.yaml")]
    return CliRunner().invoke(app, ["train", *places, *options])


def pairs(data: Path) -> list[str]:
    return ["--images", str(data / "images"), "--labels", str(data / "labels")]


def content(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_what_tune_stored_was_lost_when_a_finished_run_was_resumed(data: Path) -> None:
    tuned = ["tune", str(data / "run"), *pairs(data), "--methods", "meanshift"]
    assert CliRunner().invoke(app, tuned).exit_code == 0
    before = content(data / "run")
    assert b"meanshift" in before["model.json"]
    done = train(data, "--resume")
    assert done.exit_code == 0, done.output
    assert "The run is finished" in done.stderr
    assert content(data / "run") == before
    scores = json.loads(done.stdout)["validation"]
    assert scores == json.loads(before["metrics.json"])["validation"]


@pytest.mark.parametrize("lost", ["model.json", "model.pt", "metrics.json", "report.html"])
def test_a_run_that_was_stopped_at_its_very_end_is_finished(data: Path, lost: str) -> None:
    before = content(data / "run")
    (data / "run" / lost).unlink()
    done = train(data, "--resume")
    assert done.exit_code == 0, done.output
    assert ("The run is finished" in done.stderr) is (lost == "report.html")
    after = content(data / "run")
    assert set(after) == set(before)
    assert all(after[name] == before[name] for name in ("model.json", "metrics.json", "last.pt"))


def test_a_checkpoint_of_before_is_gone_on_with(data: Path) -> None:
    """It has no running means, no seconds and no clustering."""
    run = data / "run"
    (run / "model.json").unlink()
    saved = torch.load(run / "last.pt", weights_only=True)
    for name in ("running", "seconds", "clustering"):
        assert saved.pop(name)
    torch.save(saved, run / "last.pt")
    assert train(data, "--resume").exit_code == 0
    assert (run / "model.json").is_file()


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "model.pt"])
def test_bytes_that_were_overwritten_changed_a_weight_without_a_word(data: Path, name: str) -> None:
    """Torch writes checksums and does not read them."""
    run = data / "run"
    weights = torch.load(run / name, weights_only=True)["network"]
    flat = next(t for t in weights.values() if t.ndim == 1 and len(t) > 4)
    damaged = bytearray((run / name).read_bytes())
    damaged[damaged.index(flat.numpy().tobytes())] ^= 255
    (run / name).write_bytes(damaged)
    torch.load(run / name, weights_only=True)
    if name != "model.pt":
        (run / "model.json").unlink()
    done = train(data, "--resume")
    # Without the best network there is still the last one.
    assert done.exit_code == (0 if name == "best.pt" else 2), done.output
    assert f"BadZipFile in {run / name}" in done.stderr


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_lost_best_network_ended_a_run_at_its_very_end(data: Path, harm: str) -> None:
    run = data / "run"
    (run / "model.json").unlink()
    best = run / "best.pt"
    best.write_bytes(best.read_bytes()[:1000]) if harm == "cut" else best.unlink()
    done = train(data, "--resume")
    assert done.exit_code == 0, done.output
    assert "the best network so far is lost" in done.stderr
    assert (run / "model.json").is_file()


@pytest.mark.parametrize(
    ("name", "part", "lost", "said"),
    [
        ("last.pt", "network", "head.weight", "head.weight"),
        ("last.pt", "optimizer", "state", "'state'"),
        ("best.pt", "momentum", "head.weight", "head.weight"),
    ],
)
def test_a_checkpoint_that_lacks_something_ended_in_a_traceback(
    data: Path, name: str, part: str, lost: str, said: str
) -> None:
    run = data / "run"
    (run / "model.json").unlink()
    saved = torch.load(run / name, weights_only=True)
    del saved[part][lost]
    if name == "best.pt":
        saved["step"] -= 1  # that of the last step would not be judged again
    torch.save(saved, run / name)
    done = train(data, "--resume")
    assert done.exit_code == 2, done.output
    assert "must hold all that the run needs to go on" in done.stderr
    assert said in done.stderr
    assert str(run / name) in done.stderr


def test_files_of_a_later_version_were_called_damaged(data: Path) -> None:
    """`--resume` advised to throw the training away; a run as model did not name its file."""
    run = data / "run"
    recipe = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**recipe, "later": 1}))
    done = CliRunner().invoke(app, ["segment", str(data / "images" / "0.tif"), "--model", str(run)])
    assert done.exit_code == 2, done.output
    assert f"found 1 in {run / 'model.json'}. Install the spoco-zoo" in done.stderr
    (run / "model.json").unlink()
    saved = torch.load(run / "last.pt", weights_only=True)
    torch.save({**saved, "later": 1}, run / "last.pt")
    done = train(data, "--resume")
    assert done.exit_code == 2, done.output
    assert f"found later in {run / 'last.pt'}. Install the version" in done.stderr


def test_a_log_that_is_no_text_ended_in_a_traceback(data: Path) -> None:
    run = data / "run"
    (run / "model.json").unlink()
    (run / "log.jsonl").write_bytes(b"\xff\xfe" + (run / "log.jsonl").read_bytes())
    done = train(data, "--resume")
    assert done.exit_code == 2, done.output
    assert "the log of a run must be text; found" in done.stderr
    (run / "log.jsonl").unlink()
    assert train(data, "--resume").exit_code == 0
