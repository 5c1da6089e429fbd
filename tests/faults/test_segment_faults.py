"""Processes that really die, files that are really damaged: the result is whole or says so."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
sys.path.insert(0, str(Path(__file__).parent))
import segment_driver
from planted import read_labels, same_partition, store_bytes, tissue, write_image

BLOCKS = 12
"""Of the 256 x 180 image below."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image and its truth; object 7 lies inside one block and out of all other's sight."""
    folder = tmp_path_factory.mktemp("faults")
    truth = tissue((256, 180), 80, seed=5)
    truth[truth == 7] = 100
    truth[84:100, 84:100] = 0
    truth[88:96, 88:96] = 7
    np.save(folder / "truth.npy", truth)
    write_image(folder / "image.ome.zarr", truth, "YX")
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, str]:
    """What a run gives in which nothing goes wrong."""
    done = drive(place, place / "alone" / "o.zarr", "plain")
    assert done.returncode == 0, done.stderr
    labels = read_labels(place / "alone" / "o.zarr")
    assert same_partition(labels, np.load(place / "truth.npy"))
    return store_bytes(place / "alone" / "o.zarr")


FORKS = multiprocessing.get_context("forkserver")
# The imports are made once; every process after that starts from them at once.
FORKS.set_forkserver_preload(["segment_driver"])


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    returncode: int
    stdout: str
    stderr: str


def drive(
    place: Path, output: Path, cluster: str, *, workers: int = 0, kill_after: int = -1, **env: str
) -> Ended:
    """Segment in a process of its own."""
    output.parent.mkdir(exist_ok=True)
    streams = output.with_suffix(".out"), output.with_suffix(".err")
    arguments = [str(place / "image.ome.zarr"), str(output), str(place / "truth.npy")]
    arguments += [str(workers), cluster, str(kill_after)]
    process = FORKS.Process(target=segment_driver.child, args=(streams, env, arguments))
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the process hangs"
    return Ended(process.exitcode, *(s.read_text() for s in streams))


def folder_of(output: Path) -> Path:
    return output.with_name(output.name + ".spoco-run")


@pytest.mark.parametrize("kill_after", [1, 7, BLOCKS, BLOCKS + 4, 2 * BLOCKS + 6])
def test_a_killed_driver_goes_on_to_the_same_bytes(
    place: Path, undisturbed: dict[str, str], tmp_path: Path, kill_after: int
) -> None:
    """Killed in the blocks, between the phases, in the faces, in the relabelling."""
    output = tmp_path / "o.zarr"
    killed = drive(place, output, "plain", kill_after=kill_after)
    assert killed.returncode == -signal.SIGKILL
    assert (folder_of(output) / "lock.json").exists()
    again = drive(place, output, "plain")
    assert again.returncode == 0, again.stderr
    resumed = int(again.stdout.split()[1])
    assert resumed == min(kill_after, BLOCKS)
    assert store_bytes(output) == undisturbed
    assert [p.name for p in folder_of(output).iterdir()] == ["segment.json"]


def test_a_killed_worker_is_replaced(
    place: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    done = drive(place, tmp_path / "o.zarr", "dies_once", workers=2, SPOCO_FAULTS=str(tmp_path))
    assert (tmp_path / "died").exists()
    assert done.returncode == 0, done.stderr
    assert store_bytes(tmp_path / "o.zarr") == undisturbed


@pytest.mark.parametrize(("cluster", "workers"), [("fails", 0), ("poisonous", 1)])
def test_a_bad_block_is_named_and_the_rest_is_there(
    place: Path, undisturbed: dict[str, str], tmp_path: Path, cluster: str, workers: int
) -> None:
    output = tmp_path / "o.zarr"
    done = drive(place, output, cluster, workers=workers, SPOCO_FAULTS=str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert "block 4 (64:128,64:128)" in done.stderr
    labels, truth = read_labels(output), np.load(place / "truth.npy")
    assert not labels[64:128, 64:128].any()
    outside = np.ones(truth.shape, bool)
    outside[64:128, 64:128] = False
    assert (labels[outside] > 0).all()
    # Mended, the same command adds what was missing, and nothing shows what happened.
    (tmp_path / "mended").touch()
    again = drive(place, output, cluster, SPOCO_FAULTS=str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert int(again.stdout.split()[1]) == BLOCKS - 1
    assert store_bytes(output) == undisturbed


def test_a_bad_block_that_stays_bad_keeps_its_exit_code(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.zarr"
    first = drive(place, output, "fails", SPOCO_FAULTS=str(tmp_path))
    before = store_bytes(output)
    second = drive(place, output, "fails", SPOCO_FAULTS=str(tmp_path))
    assert (first.returncode, second.returncode) == (3, 3)
    assert store_bytes(output) == before


def test_a_cut_ledger_line_costs_one_block(
    place: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "o.zarr"
    drive(place, output, "plain", kill_after=5)
    ledger = folder_of(output) / "progress.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-9])
    again = drive(place, output, "plain")
    assert again.returncode == 0, again.stderr
    assert int(again.stdout.split()[1]) == 4
    assert store_bytes(output) == undisturbed


def test_an_unfinished_run_is_not_continued_with_another_clustering(
    place: Path, tmp_path: Path
) -> None:
    drive(place, tmp_path / "o.zarr", "plain", kill_after=3)
    again = drive(place, tmp_path / "o.zarr", "fails", SPOCO_FAULTS=str(tmp_path))
    assert again.returncode == 2
    assert "cluster was" in again.stderr
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize("damage", ["remove", "empty", "swap"])
def test_damaged_staging_is_never_published_as_if_whole_and_made_again(
    place: Path, undisturbed: dict[str, str], tmp_path: Path, damage: str
) -> None:
    output = tmp_path / "o.zarr"
    drive(place, output, "plain", kill_after=BLOCKS + 2)
    shards = sorted(p for p in (folder_of(output) / "local.zarr" / "c").rglob("*") if p.is_file())
    victim = shards[5]
    if damage == "remove":
        victim.unlink()
    elif damage == "empty":
        victim.write_bytes(b"")
    else:
        victim.write_bytes(shards[6].read_bytes())
    again = drive(place, output, "plain")
    assert again.returncode == 3
    assert "block 5 " in again.stderr
    mended = drive(place, output, "plain")
    assert mended.returncode == 0, mended.stderr
    assert int(mended.stdout.split()[1]) == BLOCKS - 1
    assert store_bytes(output) == undisturbed


def test_a_damaged_image_is_named_and_can_be_mended(
    place: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    chunks = [p for p in (place / "image.ome.zarr" / "0" / "c").rglob("*") if p.is_file()]
    sound = chunks[0].read_bytes()
    try:
        chunks[0].write_bytes(sound[: len(sound) // 2])
        done = drive(place, tmp_path / "o.zarr", "plain")
    finally:
        chunks[0].write_bytes(sound)
    assert done.returncode == 2
    assert "image.ome.zarr" in done.stderr
    assert drive(place, tmp_path / "o.zarr", "plain").returncode == 0
    assert store_bytes(tmp_path / "o.zarr") == undisturbed


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    place: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk: it needs no rights."""
    done = drive(place, tmp_path / "o.zarr", "plain", SPOCO_FILE_LIMIT="2500")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "disk is full" in done.stderr
    assert drive(place, tmp_path / "o.zarr", "plain").returncode == 0
    assert store_bytes(tmp_path / "o.zarr") == undisturbed
