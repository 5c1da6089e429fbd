"""A folder of images whose run is stopped or killed: the same command does the rest."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
sys.path.insert(0, str(Path(__file__).parent))
from bundle_runs import disks, make_run
from hearing import all_ears

IMAGES = 6  # more than are done while a signal is on its way


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a run, and the labels that they should get."""
    folder = tmp_path_factory.mktemp("folder-faults")
    make_run(folder / "run", 2)
    (folder / "images").mkdir()
    for n in range(IMAGES):
        tifffile.imwrite(folder / "images" / f"{n}.tif", disks(2, n)[0][0])
    done = subprocess.run(command(folder, folder / "truth"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def command(place: Path, out: Path) -> list[str]:
    segment = [sys.executable, "-m", "spoco_zoo", "segment", str(place / "images"), "--measure"]
    return [*segment, "--model", str(place / "run"), "--output", str(out)]


@pytest.mark.parametrize(
    ("number", "code", "found"),
    [("KILL", -9, 1), ("KILL", -9, 2), ("INT", 130, 1), ("TERM", 130, 2)],
)
def test_the_same_command_does_the_rest(
    place: Path, tmp_path: Path, number: str, code: int, found: int
) -> None:
    out = tmp_path / "labels"
    process = subprocess.Popen(
        command(place, out), stderr=subprocess.PIPE, text=True, preexec_fn=all_ears
    )
    while len(list(out.glob("*.tif"))) < found and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, getattr(signal, f"SIG{number}"))
    said = process.communicate()[1]
    assert process.returncode == code, said
    if code == 130:
        assert "Go on with: spoco-zoo segment" in said
    done = subprocess.run(command(place, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = re.search(r"left as they are: (\d)", done.stderr)
    # The last one may have its labels and an open ledger.
    assert found - 1 <= int(left[1] if left else 0) < IMAGES
    for n in range(IMAGES):
        np.testing.assert_array_equal(
            tifffile.imread(out / f"{n}.tif"), tifffile.imread(place / "truth" / f"{n}.tif")
        )
    shown = json.loads(done.stdout)
    assert "without a table" not in done.stderr
    assert (
        Path(shown["table"]).read_bytes()
        == (place / "truth.spoco-run" / "objects.csv").read_bytes()
    )


@pytest.mark.parametrize("number", ["KILL", "INT"])
def test_a_folder_that_is_overwritten_began_anew_after_each_stop(
    place: Path, tmp_path: Path, number: str
) -> None:
    shutil.copytree(place / "images", tmp_path / "images")
    shutil.copytree(place / "run", tmp_path / "run")
    out, again = tmp_path / "labels", [*command(tmp_path, tmp_path / "labels"), "--overwrite"]
    subprocess.run(again, capture_output=True, check=True)
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tif")}

    def anew() -> dict[str, int]:
        times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tif")}
        return {name: then for name, then in times.items() if then != first[name]}

    process = subprocess.Popen(again, stderr=subprocess.DEVNULL, preexec_fn=all_ears)
    while len(anew()) < 3 and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, getattr(signal, f"SIG{number}"))
    assert process.wait() != 0
    before, list_of_done = anew(), tmp_path / "labels.spoco-run" / "overwritten.jsonl"
    noted = {json.loads(line)[1] for line in list_of_done.read_text().splitlines()} - {"0.tif"}
    # What is another image by now is done again, as is the one that was the last, perhaps: with its
    # labels written and not yet noted, its run goes on.
    image = tifffile.imread(tmp_path / "images" / "0.tif")
    tifffile.imwrite(tmp_path / "images" / "0.tif", image[::-1])
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = [name for name, then in before.items() if anew()[name] == then]
    assert f"had done before it was stopped: {len(noted)}." in done.stderr
    assert {"1.tif"} <= noted <= {*left} <= {*before} - {"0.tif"}
    assert len(anew()) == IMAGES
    assert not list_of_done.exists()
    assert "had done" not in subprocess.run(again, capture_output=True, text=True).stderr


def test_one_unusable_image_kept_the_others_from_being_overwritten_a_second_time(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "images").mkdir()
    shutil.copy(place / "images" / "0.tif", tmp_path / "images")
    (tmp_path / "images" / "1.tif").write_bytes(b"II*")
    out = tmp_path / "labels"
    times = set()
    for _ in range(2):
        done = subprocess.run([*command(tmp_path, out), "--overwrite"], capture_output=True)
        assert done.returncode == 3, done.stderr
        times.add((out / "0.tif").stat().st_mtime_ns)
    assert len(times) == 2


def test_a_second_run_on_the_same_folder_is_refused(place: Path, tmp_path: Path) -> None:
    # Its table would lack the images that the other one is at work on.
    out = tmp_path / "labels"
    first = subprocess.Popen(command(place, out), stderr=subprocess.DEVNULL, text=True)
    lock = tmp_path / "labels.spoco-run" / "lock.json"
    while not lock.exists() and first.poll() is None:
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # else it may be done before the second has started
    try:
        second = subprocess.run(command(place, out), capture_output=True, text=True)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert "one run at a time" in second.stderr
    assert first.wait() == 0
    assert len(list(out.glob("*.tif"))) == IMAGES
    assert not lock.exists()


def test_a_file_where_the_table_would_go_is_told_of_before_the_work(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.spoco-run").write_text("mine")
    done = subprocess.run(command(place, tmp_path / "labels"), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "labels.spoco-run" in done.stderr
    assert not (tmp_path / "labels").exists()
    assert (tmp_path / "labels.spoco-run").read_text() == "mine"
