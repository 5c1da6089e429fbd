"""The ledger survives a cut line and refuses another run's settings."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from spoco_zoo.errors import LedgerError
from spoco_zoo.segment.blocks import make_grid
from spoco_zoo.segment.ledger import PROGRESS, Ledger, was_published
from spoco_zoo.segment.progress import Progress

KEYS = {"model": "abc", "config.halo": "(8, 8)"}


def fill(folder: Path, count: int) -> None:
    with Ledger(folder, KEYS) as ledger:
        for n in range(count):
            ledger.append({"phase": "block", "n": n})


def read(folder: Path) -> list[dict]:
    with Ledger(folder, KEYS) as ledger:
        return list(ledger.entries())


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    fill(tmp_path, 1)
    assert [e["n"] for e in read(tmp_path)] == [0, 1, 2, 0]


@pytest.mark.parametrize("cut", [1, 5, 14])
def test_a_cut_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    fill(tmp_path, 3)
    path = tmp_path / PROGRESS
    path.write_bytes(path.read_bytes()[:-cut])
    assert [e["n"] for e in read(tmp_path)] == [0, 1]
    with Ledger(tmp_path, KEYS) as ledger:
        ledger.append({"phase": "block", "n": 7})
        assert [e["n"] for e in ledger.entries()] == [0, 1, 7]


def test_of_a_long_ledger_only_the_cut_line_is_dropped(tmp_path: Path) -> None:
    """It is read from its end, 4096 bytes at a time."""
    fill(tmp_path, 600)
    path = tmp_path / PROGRESS
    assert path.stat().st_size > 3 * 4096
    path.write_bytes(path.read_bytes()[:-4])
    assert [e["n"] for e in read(tmp_path)] == list(range(599))


def test_a_ledger_cut_within_its_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / PROGRESS).write_text('{"fingerp')
    assert read(tmp_path) == []


def test_a_damaged_line_elsewhere_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    path = tmp_path / PROGRESS
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:5]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LedgerError, match="line 3"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"config.halo": "(4, 4)"}, "config.halo"), ({"extra": "1"}, "extra")],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, change: dict, name: str) -> None:
    fill(tmp_path, 1)
    with pytest.raises(LedgerError, match=name):
        Ledger(tmp_path, {**KEYS, **change})


def test_a_run_of_another_version_names_the_versions(tmp_path: Path) -> None:
    """What its blocks hold may be otherwise, whatever the settings; these are not to blame."""
    old = {**KEYS, "format": "5", "spoco-zoo": "0.1.0"}
    with Ledger(tmp_path, old) as ledger:
        ledger.append({"phase": "block", "n": 0})
    with pytest.raises(LedgerError, match=r"format was 5 and is now 6 .* Install that version"):
        Ledger(tmp_path, {**old, "format": "6", "model": "another"})
    with pytest.raises(LedgerError, match=r"spoco-zoo was 0\.1\.0 and is now 0\.2\.0, format was"):
        Ledger(tmp_path, {**old, "format": "6", "spoco-zoo": "0.2.0"})


def test_published_is_seen_in_an_unfinished_run_only(tmp_path: Path) -> None:
    assert not was_published(tmp_path)
    fill(tmp_path, 1)
    assert not was_published(tmp_path)
    with Ledger(tmp_path, KEYS) as ledger:
        ledger.append({"phase": "published", "failed": 1})
    assert was_published(tmp_path)


def test_the_driver_grew_with_every_write_unit_of_a_level() -> None:
    units, progress = 20_000, Progress(1)
    order = np.random.default_rng(0).permutation(units)
    tracemalloc.start()
    for n in order.tolist():
        progress.add({"phase": "coarse", "level": 1, "n": n, "crc": n * 7, "epoch": 1})
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 32 * units
    assert all(progress.coarse_checksum(1, n) == n * 7 for n in range(units))
    assert progress.coarse_checksum(1, 2 * units) is None
    assert progress.coarse_checksum(2, 0) is None


def test_every_lost_block_made_anew_what_is_as_long_as_the_run() -> None:
    """Of a million blocks whose intensities had changed it would have taken ten minutes."""
    progress, made = Progress(4), []
    progress._forget_later = lambda made=made, own=progress._forget_later: made.append(own())
    for n in range(4):
        progress.add({"phase": "lost", "n": n})
    assert not made
    progress.add({"phase": "core", "n": 1, "crc": 5, "epoch": 4})
    assert progress.relabelling
    for n in range(4):
        progress.add({"phase": "lost", "n": n})
    assert not progress.relabelling
    assert len(made) == 2  # by the new epoch, and by the first that was lost


@pytest.mark.parametrize("counts", [(3, 4), (2, 3, 4), (1, 1), (5, 1, 2)])
def test_faces_to_be_matched_are_those_between_two_blocks_with_objects(counts) -> None:
    grid = make_grid(tuple(8 * n for n in counts), (8,) * len(counts), (2,) * len(counts), 2)
    rng, progress = np.random.default_rng(0), Progress(grid.total)
    progress.objects[:] = rng.integers(-1, 3, grid.total)
    progress.add({"phase": "face", "n": 0, "tally": {}, "doubts": [], "epoch": 1})
    found = progress.unmatched(grid.counts)
    for n in range(grid.total):
        for axis in range(len(counts)):
            above = grid.above(n, axis)
            both = above is not None and progress.objects[n] > 0 and progress.objects[above] > 0
            assert found[axis, n] == (both and n > 0)


def test_of_many_settings_those_that_differ_are_named(tmp_path: Path) -> None:
    settings = {"method": "instance", "bandwidth": 1.0, "foreground": 1.5, "smoothness": 0.75}
    earlier = {**KEYS, "config.clustering": str({**settings, "min_size": 8, "min_samples": 5})}
    later = {**KEYS, "config.clustering": str({**settings, "min_size": 9, "min_samples": 5})}
    Ledger(tmp_path, earlier).close()
    with pytest.raises(LedgerError, match=r"was min_size 8 and is now min_size 9 \("):
        Ledger(tmp_path, later)
    # Who asks for a smallest size does without scores.
    earlier["config.clustering"] = str({**settings, "min_size": 8, "scoring": {"a": [1, 2]}})
    later["config.clustering"] = str({**settings, "min_size": 9, "scoring": None})
    (tmp_path / "other").mkdir()
    Ledger(tmp_path / "other", earlier).close()
    with pytest.raises(LedgerError, match=r"was min_size 8 and is now min_size 9 \("):
        Ledger(tmp_path / "other", later)
    # Checksums, of which the line was full.
    with pytest.raises(LedgerError, match="found another model"):
        Ledger(tmp_path / "other", {**later, "model": "81a8f7fac73d"})
    with pytest.raises(LedgerError, match="found another image, or one that was moved"):
        Ledger(tmp_path / "other", {**earlier, "source": "81a8f7fac73d"})
