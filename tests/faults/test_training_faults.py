"""Training that is killed, and training that goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

sys.path.insert(0, str(Path(__file__).parent))
from hearing import all_ears

from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import LedgerError, StoreError
from spoco_zoo.locking import LOCK, RunLock
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.run import train

DRIVER = """
import signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
# Whatever the tests were started by.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[5] == "nohup" else signal.SIG_DFL)
from spoco_zoo.config import TrainConfig
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.run import train
from spoco_zoo.errors import Interrupted
data, out, settings, resume = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"
try:
    train(data / "images", data / "labels", out, TrainConfig.model_validate_json(settings),
          clusterer=cluster, device="cpu", resume=resume,
          listen=lambda p: print(p.step, flush=True), say=lambda text: print(0, text, flush=True))
except Interrupted as error:
    print(error, file=sys.stderr)
    sys.exit(130)
"""

SETTINGS = TrainConfig(
    iterations=40,
    validate_every=5,
    batch_size=2,
    crop=(32, 32),
    features=(4, 8),
    embedding_dim=4,
    instance_ratio=0.5,
    warmup=5,
    precision="float32",
    clustering="consistency",
)


@pytest.fixture(scope="module")
def data(
    draw_pairs: Callable[[Path, int, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return draw_pairs(tmp_path_factory.mktemp("pairs"), 4, 48)


def launch(data: Path, out: Path, *, resume: bool, by: str = "") -> subprocess.Popen[str]:
    """The driver, which prints a line for each step."""
    arguments = [str(data), str(out), SETTINGS.model_dump_json(), "1" if resume else "0", by]
    command = [sys.executable, "-c", DRIVER, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def start(
    data: Path,
    out: Path,
    *,
    resume: bool,
    kill_after: int | None = None,
    number: int = signal.SIGKILL,
) -> int:
    """Run the driver to its end, or send it a signal once it has told of a step; its exit code."""
    with launch(data, out, resume=resume) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if kill_after is not None and int(line.split()[0]) >= kill_after:
                time.sleep(0.05)
                process.send_signal(number)
                kill_after = None
    return process.returncode


def test_two_processes_went_on_with_one_training_and_mixed_their_files(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with launch(data, out, resume=False) as first:
        assert first.stdout is not None
        while not (out / "last.pt").exists():
            assert first.stdout.readline()
        with pytest.raises(LedgerError, match=rf"process {first.pid} on \S+ at work in"):
            train(
                data / "images",
                data / "labels",
                out,
                SETTINGS,
                clusterer=cluster,
                device="cpu",
                resume=True,
            )
        first.communicate()
    assert first.returncode == 0
    assert (out / "model.json").exists()
    assert not (out / LOCK).exists()


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert start(data, folder, resume=False) == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_run_resumes_to_the_weights_of_an_undisturbed_one(
    data: Path, whole: Path, tmp_path: Path, number: int
) -> None:
    """Bit for bit on CPU: crops, views and anchors depend on the seed and the step alone."""
    broken = tmp_path / "broken"
    code = -number if number == signal.SIGKILL else 130
    assert start(data, broken, resume=False, kill_after=15, number=number) == code
    assert not (broken / "model.pt").exists()
    assert start(data, broken, resume=True) == 0
    one, two = (torch.load(run / "last.pt", weights_only=True) for run in (whole, broken))
    assert one["step"] == two["step"] == 40
    for part in ("network", "momentum"):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), name
    logs = [RunFolder(run).read_log() for run in (whole, broken)]
    seconds = [[row.pop("seconds") for row in rows] for rows in logs]
    assert logs[0] == logs[1]  # the running means of the loss as well
    assert all(times == sorted(times) for times in seconds)
    for name in ("model.json", "metrics.json"):
        assert (whole / name).read_text() == (broken / name).read_text()


def test_a_training_under_nohup_outlives_its_terminal(data: Path, tmp_path: Path) -> None:
    with launch(data, tmp_path / "run", resume=False, by="nohup") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 0
    assert RunFolder(tmp_path / "run").finished


def run(data: Path, out: Path, **changes: object) -> None:
    settings = SETTINGS.model_copy(update={"iterations": 5, **changes})
    train(data / "images", data / "labels", out, settings, clusterer=cluster)


def test_a_refused_run_left_its_settings_in_the_one_that_began_with_it(tmp_path: Path) -> None:
    out, mine, other = tmp_path / "run", SETTINGS, SETTINGS.model_copy(update={"seed": 7})
    first, second = (
        RunFolder.open(out, mine, resume=False),
        RunFolder.open(out, other, resume=False),
    )
    with RunLock(out):
        first.begin(mine)
        with pytest.raises(LedgerError, match="at work"), RunLock(out):
            pass
    with RunLock(out), pytest.raises(StoreError, match="--resume to go on with that run"):
        second.begin(other)
    assert TrainConfig.build(out / "config.yaml") == mine


def test_an_existing_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(StoreError, match="new or empty folder"):
        run(data, out)
    assert [p.name for p in out.iterdir()] == ["precious"]


def test_a_run_is_resumed_with_its_own_settings_only(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(data, out)
    changed = SETTINGS.model_copy(update={"iterations": 5, "learning_rate": 0.5})
    with pytest.raises(LedgerError, match="learning_rate"):
        train(data / "images", data / "labels", out, changed, clusterer=cluster, resume=True)


def test_images_learned_from_became_validation_images_of_a_resumed_run(
    data: Path, tmp_path: Path
) -> None:
    """One more file, and the same seed draws another split."""
    for kind in ("images", "labels"):
        shutil.copytree(data / kind, tmp_path / kind)
    out, settings = tmp_path / "run", SETTINGS.model_copy(update={"iterations": 5})
    run(tmp_path, out)
    before = (out / "split.json").read_text()
    for kind in ("images", "labels"):
        shutil.copy(data / kind / "0.tif", tmp_path / kind / "4.tif")
    places = {"images": tmp_path / "images", "labels": tmp_path / "labels", "out": out}
    with pytest.raises(LedgerError, match=r"other images for train(, val)? than in"):
        train(**places, config=settings, clusterer=cluster, resume=True)
    assert (out / "split.json").read_text() == before
    (out / "split.json").unlink()
    with pytest.raises(LedgerError, match="no readable"):
        train(**places, config=settings, clusterer=cluster, resume=True)


@pytest.mark.parametrize(
    ("kind", "changed"), [("images", "intensities"), ("labels", "labels"), (None, None)]
)
def test_a_resumed_run_took_other_content_under_the_same_names(
    data: Path, tmp_path: Path, kind: str | None, changed: str | None
) -> None:
    for folder in ("images", "labels"):
        shutil.copytree(data / folder, tmp_path / folder)
        for path in (tmp_path / folder).iterdir():
            values = tifffile.imread(path)
            if kind is None:  # the same values in another kind of file
                tifffile.imwrite(path, values.astype(np.uint32 if folder == "labels" else ">u2"))
            elif folder == kind:
                tifffile.imwrite(path, np.roll(values, 3, 1))
    out, settings = tmp_path / "run", SETTINGS.model_copy(update={"iterations": 5})
    run(data, out)
    places = {"images": tmp_path / "images", "labels": tmp_path / "labels", "out": out}
    options = {"config": settings, "clusterer": cluster, "resume": True}
    if kind is not None:
        with pytest.raises(LedgerError, match=rf"other {changed} in train/\d, .* and 1 more than"):
            train(**places, **options)
        (out / "digests.json").unlink()  # as in a run of before
    assert train(**places, **options) is not None


def test_resuming_needs_a_checkpoint(data: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="needs a run with a checkpoint"):
        train(
            data / "images",
            data / "labels",
            tmp_path / "no",
            SETTINGS,
            clusterer=cluster,
            resume=True,
        )


def test_a_run_stopped_before_its_first_checkpoint_could_be_neither_resumed_nor_begun_again(
    data: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(data, whole)
    broken.mkdir()
    for name in ("config.yaml", "split.json"):
        shutil.copy(whole / name, broken)
    settings = SETTINGS.model_copy(update={"iterations": 5})
    places = data / "images", data / "labels", broken
    told: list[str] = []
    train(*places, settings, clusterer=cluster, resume=True, say=told.append)
    assert any("begins at its first step" in text for text in told)
    one, two = (torch.load(folder / "last.pt", weights_only=True) for folder in (whole, broken))
    assert all(torch.equal(t, two["network"][name]) for name, t in one["network"].items())
    (broken / "last.pt").unlink()
    with pytest.raises(StoreError, match="needs a run with a checkpoint"):  # it is finished
        train(*places, settings, clusterer=cluster, resume=True)


def test_a_full_disk_ended_training_in_a_traceback_and_half_a_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    """The largest size of a file stands for what is free."""
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (6000, r.RLIM_INFINITY))"
    settings = tmp_path / "settings.yaml"
    settings.write_text(SETTINGS.to_yaml())
    flags = ["--labels", str(data / "labels"), "--config", str(settings), "--out", "run"]
    command = [sys.executable, "-c", f"{limit}; from spoco_zoo.cli import app; app()"]
    done = subprocess.run(
        [*command, "train", "--images", str(data / "images"), *flags],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "for want of room: [Errno 27] File too large" in done.stderr
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "config.yaml",
        "digests.json",
        "split.json",
    ]


LOADER = """
import time
import torch
from spoco_zoo.stopping import catch_interrupt, ignore_signals, shielded_children

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        time.sleep(0.2)
        return index

loader = torch.utils.data.DataLoader(Slow(), num_workers=2, worker_init_fn=ignore_signals)
with catch_interrupt(lambda: None) as stop:
    with shielded_children():
        batches = iter(loader)
    for index in batches:
        print(int(index), flush=True)
    print(stop.asked, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_ended_the_loaders_of_a_training(number: int) -> None:
    command = [sys.executable, "-c", LOADER]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options |= {"start_new_session": True, "preexec_fn": all_ears}
    with subprocess.Popen(command, **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        os.killpg(process.pid, number)
        # Not `communicate`, which does not know what the line above has read ahead.
        rest, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, errors
    assert rest.split() == [*"1234567", "True"]


def test_a_batch_beyond_the_memory_ended_in_a_traceback(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    labels = np.zeros((512, 512), np.uint16)
    labels[50:90, 50:90], labels[300:400, 300:400], labels[460:500, 460:500] = 1, 2, 3
    for n in range(2):
        tifffile.imwrite(tmp_path / "images" / f"{n}.tif", (labels * 60).astype(np.uint8))
        tifffile.imwrite(tmp_path / "labels" / f"{n}.tif", labels)
    command = f"""
        ulimit -v 6000000
        exec {sys.executable} -m spoco_zoo train --images {tmp_path}/images \\
            --labels {tmp_path}/labels --out {tmp_path}/run --iterations 1 --device cpu \\
            --batch-size 64 --crop 512,512
    """
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "a batch must fit the memory of cpu; found" in done.stderr
    assert "--batch-size 64 --crop 512,512" in done.stderr
    assert "Traceback" not in done.stderr
