"""A run that is stopped when its labels are there, but not yet all that lies beside them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile
from click.testing import Result
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
sys.path.insert(0, str(Path(__file__).parent))
from bundle_runs import disks, make_run
from hearing import all_ears

from spoco_zoo.cli import app

BESIDE = ("config.yaml", "objects.csv", "segment.html", "segment.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a run, and the table of the image's objects."""
    folder = tmp_path_factory.mktemp("stopped-beside")
    make_run(folder / "run", 2)
    tifffile.imwrite(folder / "image.tif", disks(2, 0)[0][0])
    (folder / "truth").mkdir()
    done = carry_out(folder, folder / "truth")
    assert done.exit_code == 0, done.output
    return folder


def command(place: Path, out: Path, *more: str) -> list[str]:
    asked = ["segment", str(place / "image.tif"), "--measure", "--model", str(place / "run")]
    return [*asked, "--output", str(out / "labels.tif"), *more]


def carry_out(place: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, command(place, out, *more))


def run_folder(out: Path) -> Path:
    return out / "labels.tif.spoco-run"


def is_complete(place: Path, out: Path) -> bool:
    if {path.name for path in run_folder(out).iterdir()} != {*BESIDE, "segment.json"}:
        return False
    tables = [run_folder(folder) / "objects.csv" for folder in (out, place / "truth")]
    return tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.parametrize("number", ["KILL", "INT"])
def test_the_same_command_makes_page_and_table_of_a_run_that_was_stopped_before(
    place: Path, tmp_path: Path, number: str
) -> None:
    asked = [sys.executable, "-m", "spoco_zoo", *command(place, tmp_path)]
    process = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True, preexec_fn=all_ears)
    report, ledger = (run_folder(tmp_path) / name for name in ("segment.json", "progress.jsonl"))
    while process.poll() is None and (not report.exists() or ledger.exists()):
        time.sleep(0.001)
    os.kill(process.pid, getattr(signal, f"SIG{number}"))
    said = process.communicate()[1]
    if not process.returncode:  # it was done before the signal came
        assert is_complete(place, tmp_path)
        return
    if number == "INT":
        assert process.returncode == 130, said
        assert "Go on with: spoco-zoo segment" in said
    before = (tmp_path / "labels.tif").stat()
    (run_folder(tmp_path) / "objects.csv").unlink(missing_ok=True)  # it was nearly done, at most
    again = carry_out(place, tmp_path)
    assert again.exit_code == 0, again.output
    assert is_complete(place, tmp_path)
    after = (tmp_path / "labels.tif").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("lost", BESIDE[:3])
def test_what_lacks_is_made_once_and_for_the_same_command_alone(
    place: Path, tmp_path: Path, lost: str
) -> None:
    done = carry_out(place, tmp_path)
    assert done.exit_code == 0, done.output
    (run_folder(tmp_path) / lost).unlink()
    for other in (("--seed", "1"), ("--roi", "0:40,0:40"), ("--foreground", "2.5")):
        refused = carry_out(place, tmp_path, *other)
        assert refused.exit_code == 2, refused.output
        assert "existing file" in refused.output
    again = carry_out(place, tmp_path)
    assert again.exit_code == 0, again.output
    assert again.stdout == done.stdout
    assert is_complete(place, tmp_path)
    refused = carry_out(place, tmp_path)
    assert refused.exit_code == 2, refused.output


def test_a_page_beside_labels_of_another_image_of_that_name_was_made(
    place: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "image.tif"
    shutil.copy(place / "image.tif", mine)
    shutil.copytree(place / "run", tmp_path / "run")
    done = carry_out(tmp_path, tmp_path)
    assert done.exit_code == 0, done.output
    page = run_folder(tmp_path) / "segment.html"
    page.unlink()
    image = tifffile.imread(mine)
    tifffile.imwrite(mine, image[::-1])
    refused = carry_out(tmp_path, tmp_path)
    assert refused.exit_code == 2, refused.output
    assert "existing file" in refused.output
    assert not page.exists()
    tifffile.imwrite(mine, image)
    again = carry_out(tmp_path, tmp_path)
    assert again.exit_code == 0, again.output
    assert page.exists()


@pytest.mark.parametrize("lost", ["config", "plan", "model"])
def test_a_report_that_lacks_entries_was_a_traceback(
    place: Path, tmp_path: Path, lost: str
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(place / "image.tif", images)
    asked = ["segment", str(images), "--model", str(place / "run"), "--output", str(tmp_path / "o")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    report = tmp_path / "o" / "image.tif.spoco-run" / "segment.json"
    summary = json.loads(report.read_text())
    del summary[lost]
    report.write_text(json.dumps(summary))
    report.with_name("segment.html").unlink()
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 0, again.output
    assert (f"'{lost}' is missing" in again.output) == (lost != "model")
    report.with_name("segment.html").unlink(missing_ok=True)
    asked[1], asked[-1] = str(images / "image.tif"), str(tmp_path / "o" / "image.tif")
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2, refused.output
    assert "existing file" in refused.output
