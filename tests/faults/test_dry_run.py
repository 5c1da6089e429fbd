"""A dry run says what the run would do with what is there: go on, refuse, replace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import tifffile
from click.testing import Result
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from bundle_runs import disks, make_run
from planted import after

from spoco_zoo.cli import app
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import Interrupted
from spoco_zoo.folder_rows import Overwriting
from spoco_zoo.segment import segment

BLOCK = (32, 32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry-run")
    make_run(folder / "run", 2)
    (folder / "images").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(folder / "images" / f"{name}.tif", disks(2, 0)[0][0])
    return folder


def asked(place: Path, out: Path, *more: str) -> Result:
    """The command on a folder if `out` is one, else on its first image."""
    source = place / "images" if out.is_dir() else place / "images" / "a.tif"
    block = ["--block", ",".join(map(str, BLOCK)), "--precision", "float32", "--no-report"]
    command = ["segment", str(source), "--model", str(place / "run"), *block]
    return CliRunner().invoke(app, [*command, "--output", str(out), *more])


def told(place: Path, out: Path, *more: str) -> str:
    before = {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")}
    done = asked(place, out, "--dry-run", *more)
    assert done.exit_code == 0, done.output
    assert before == {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")}
    return str(json.loads(done.stdout)["run"])


def stop(place: Path, out: Path, *, overwrite: bool = False) -> None:
    config = SegmentConfig(block=BLOCK, precision="float32")
    interrupt = after("blocks", lambda: signal.raise_signal(signal.SIGINT), done=2)
    with pytest.raises(Interrupted):
        segment(
            place / "images" / "a.tif",
            place / "run",
            config,
            output=out,
            overwrite=overwrite,
            on_event=interrupt,
        )


def test_a_dry_run_of_what_was_begun_said_nothing_of_it(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.tif"
    assert told(place, out) == "begins"
    stop(place, out)
    assert told(place, out) == "goes on: 2 of 12 blocks are done"
    assert told(place, out, "--overwrite") == "begins"
    ledger = tmp_path / "labels.tif.spoco-run" / "progress.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-3])  # as after a kill while it was written
    assert told(place, out) == "goes on: 1 of 12 blocks are done"
    ledger.write_bytes(whole)
    other = ("--overlap", "8,8")
    lines = [asked(place, out, *other, *dry).stderr for dry in ((), ("--dry-run",))]
    assert "only go on as it began" in lines[1]
    assert lines[1] in lines[0]
    assert asked(place, out).exit_code == 0


def test_a_run_did_not_go_on_by_another_name_of_its_image(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.tif"
    stop(place, out)
    (tmp_path / "images").symlink_to(place / "images")
    (tmp_path / "run").symlink_to(place / "run")
    assert told(tmp_path, out) == "goes on: 2 of 12 blocks are done"
    assert asked(tmp_path, out).exit_code == 0


def test_a_dry_run_where_nothing_can_be_written_said_that_the_run_begins(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "locked").mkdir(mode=0o500)
    places = [tmp_path / "file" / "labels.tif"]
    if not os.access(tmp_path / "locked", os.W_OK):  # who may do everything is not kept out
        places += [tmp_path / "locked" / "labels.tif", tmp_path / "locked" / "new" / "labels.tif"]
    for out in places:
        for dry in ((), ("--dry-run",)):
            refused = asked(place, out, *dry)
            assert refused.exit_code == 2
            assert "the output folder must be writable" in refused.stderr
            assert "--output" in refused.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "locked"]


def test_a_dry_run_says_what_becomes_of_labels_that_are_there(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.tif"
    assert asked(place, out).exit_code == 0
    refused = asked(place, out, "--dry-run")
    assert refused.exit_code == 2
    assert "existing file" in refused.stderr
    assert told(place, out, "--overwrite") == "replaces what is there"
    stop(place, out, overwrite=True)
    assert told(place, out, "--overwrite") == "goes on: 2 of 12 blocks are done"
    assert told(place, out, "--overwrite", "--overlap", "8,8").startswith("begins again: ")
    assert asked(place, out, "--overwrite").exit_code == 0
    (tmp_path / "labels.tif.spoco-run" / "config.yaml").unlink()
    assert told(place, out).startswith("makes what lacks beside")


def test_a_dry_run_of_a_folder_says_so_of_each_image(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    out.mkdir()
    stop(place, out / "a.tif")
    shown = json.loads(asked(place, out, "--dry-run").stdout)
    assert shown["plans"]["a.tif"].endswith("; goes on: 2 of 12 blocks are done")
    assert shown["plans"]["b.tif"].endswith("; begins")
    shutil.rmtree(out / "a.tif.spoco-run")
    assert asked(place, out).exit_code == 0
    Overwriting(tmp_path / "labels.spoco-run", wanted=True).add("a.tif")
    with (tmp_path / "labels.spoco-run" / "overwritten.jsonl").open("a") as file:
        file.write('["another version", "b.tif"]\n["cut')
    shown = json.loads(asked(place, out, "--dry-run", "--overwrite").stdout)
    assert shown["have_labels"] == ["a.tif"]
    assert shown["plans"]["b.tif"].endswith("; replaces what is there")
