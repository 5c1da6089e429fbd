"""Runs that once lost something, or said nothing that a user could act upon."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).parent))
from campaign import Campaign
from planted import code_model, exact_cluster
from struck import Run

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import LedgerError, StoreError
from spoco_zoo.locking import LOCK, RunLock
from spoco_zoo.segment import segment


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    folder = tmp_path_factory.mktemp("symptoms")
    os.chmod(folder, 0o755)
    os.chmod(folder.parent, 0o755)
    return Campaign(folder, lambda text: None)


@pytest.fixture
def run(control: Campaign, tmp_path: Path) -> Run:
    """A run in which nothing has happened yet; a success compares all bytes."""
    place = control.folder / tmp_path.name
    return Run(control, control.worlds[0], np.random.default_rng(0), place)


def strike_until(run: Run, text: str) -> None:
    """Kill an attempt when its ledger says something."""
    assert run.attempt(strike_after=text).code == -signal.SIGKILL


def shards(run: Run) -> list[Path]:
    return sorted(p for p in (run.result / "0" / "c").rglob("*") if p.is_file())


@pytest.mark.parametrize("damage", ["delete", "empty", "cut"])
def test_a_lost_shard_of_the_unfinished_label_was_published_as_background(
    run: Run, damage: str
) -> None:
    strike_until(run, '"level": 1')
    victim = shards(run)[2]
    if damage == "delete":
        victim.unlink()
    else:
        victim.write_bytes(b"" if damage == "empty" else victim.read_bytes()[:40])
    assert run.attempt().code == 0


def test_a_deleted_unfinished_label_was_published_empty(run: Run) -> None:
    import shutil

    strike_until(run, '"level": 1')
    shutil.rmtree(run.result)
    assert run.attempt().code == 0


def test_a_run_killed_after_publishing_could_not_go_on(run: Run) -> None:
    strike_until(run, '"phase": "publishing"')
    assert run.attempt().code == 0


def test_labels_of_an_abandoned_run_showed_where_its_successor_has_none(run: Run) -> None:
    """Overwritten with another region cut off, nothing of the former labels may stay."""
    strike_until(run, '"level": 1')
    stray = run.result / "0" / "c" / "0" / "0"
    other = run.result / "0" / "c" / "1" / "0"
    other.write_bytes(stray.read_bytes())
    assert run.attempt(overwrite=True).code == 0


def test_a_label_that_was_moved_away_kept_its_run_from_ever_ending(run: Run) -> None:
    strike_until(run, '"phase": "publishing"')
    shutil.rmtree(run.result)
    assert run.attempt().code == 0


def test_a_damaged_file_of_matches_ended_in_a_traceback_or_other_labels(run: Run) -> None:
    strike_until(run, '"phase": "core"')
    file = next(p for p in (run.scratch / "faces").rglob("*.npz"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
    done = run.attempt()
    assert done.code == 2
    assert "makes that block again" in done.err
    assert run.attempt().code == 0


@pytest.mark.parametrize("limit", [300, 600, 900])
def test_a_disk_that_is_full_for_the_ledger_ended_in_a_traceback(run: Run, limit: int) -> None:
    done = run.attempt(file_limit=limit)
    assert done.code == 1
    assert "File too large" in done.err
    assert run.attempt().code == 0


def test_a_ledger_of_other_lines_ended_in_a_traceback(run: Run) -> None:
    strike_until(run, '"phase": "block"')
    ledger = run.scratch / "progress.jsonl"
    sound = ledger.read_bytes()
    for line in (b'{"phase":"block","n":10000}', b'{"x":1}', b'{"phase":"nothing"}', b"\xff\xfe"):
        ledger.write_bytes(sound.rstrip(b"\n") + b"\n" + line + b"\n")
        done = run.attempt()
        assert done.code == 2, done.err
        assert "--overwrite" in done.err
    ledger.write_bytes(sound)
    assert run.attempt().code == 0


def test_a_process_that_was_killed_while_writing_left_its_temporary_file(run: Run) -> None:
    strike_until(run, '"phase": "core"')
    (run.result / "0" / "c" / "0" / "0.0123456789abcdef.partial").write_bytes(b"half")
    assert run.attempt().code == 0


def test_a_damaged_report_of_a_finished_run_ended_in_a_traceback(run: Run) -> None:
    strike_until(run, '"phase": "published"')
    (run.scratch / "segment.json").write_bytes(b"")
    done = run.attempt()
    assert done.code == 2
    assert "report" in done.err
    assert run.attempt(overwrite=True).code == 0


def test_after_a_jump_of_the_clock_two_runs_held_one_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLock(tmp_path):
        began = psutil.Process.create_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + 3600)
        with pytest.raises(LedgerError, match=str(os.getpid())), RunLock(tmp_path):
            pass


def test_a_lock_that_is_being_written_was_taken_for_a_dead_one(tmp_path: Path) -> None:
    file = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(LedgerError, match="another process"), RunLock(tmp_path):
        pass
    os.close(file)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_settings_refuse_numbers_that_are_none() -> None:
    from spoco_zoo.errors import ConfigError

    with pytest.raises(ConfigError):
        SegmentConfig.checked({"stitch_iou": float("nan")})


def test_a_flipped_letter_in_the_metadata_of_staged_labels_was_a_traceback(run: Run) -> None:
    strike_until(run, '"phase": "block"')
    metadata = run.scratch / "local.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace("chunk_shape", "chunk_shapE"))
    done = run.attempt()
    assert done.code == 2
    assert "metadata" in done.err
    assert run.attempt(overwrite=True).code == 0


def test_a_run_that_waited_for_the_lock_of_one_that_finished_began_a_new_ledger(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = code_model(np.load(run.world.truth))
    begin = partial(
        segment, run.image, model, run.world.config, output=run.output, label_name="label",
        cluster=exact_cluster,
    )  # fmt: skip
    enter = RunLock.__enter__

    def late(self: RunLock) -> RunLock:
        # Between this run's plan and its lock, another one does all the work.
        monkeypatch.setattr(RunLock, "__enter__", enter)
        begin()
        return enter(self)

    monkeypatch.setattr(RunLock, "__enter__", late)
    with pytest.raises(StoreError, match="existing label"):
        begin()
    assert [p.name for p in run.scratch.iterdir()] == ["segment.json"]


@pytest.mark.parametrize("left", [".zattrs", ".zgroup", ".zgroup.0123.partial"])
def test_a_kill_between_two_files_of_a_group_left_something_that_was_not_ours(
    control: Campaign, tmp_path: Path, left: str
) -> None:
    world = next(w for w in control.worlds if w.in_place and (w.image / ".zgroup").exists())
    run = Run(control, world, np.random.default_rng(0), control.folder / tmp_path.name)
    label = run.image / "labels" / "label"
    zarr.create_group(label.parent, zarr_format=2, attributes={"labels": []})
    label.mkdir()
    (label / left).write_text("{}" if left == ".zattrs" else '{"zarr_format": 2}')
    assert run.attempt().code == 0  # compares every file


@pytest.mark.parametrize("state", ['"phase": "core"', '"phase": "publishing"'])
def test_lost_attributes_of_a_level_of_the_unfinished_label_stayed_lost(
    control: Campaign, tmp_path: Path, state: str
) -> None:
    world = next(w for w in control.worlds if w.in_place and (w.image / ".zgroup").exists())
    run = Run(control, world, np.random.default_rng(0), control.folder / tmp_path.name)
    strike_until(run, state)
    (run.image / "labels" / "label" / "0" / ".zattrs").unlink()
    assert run.attempt().code == 0  # compares every file
