"""One process at a time in a run folder: of this machine, of its containers, of other machines.

Another machine is a process that reads another name of its kernel, on a file system without locks.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from spoco_zoo import holder as holders
from spoco_zoo import locking
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import LedgerError, SpocoError
from spoco_zoo.locking import LOCK, RunLock, alone_in
from spoco_zoo.train.checkpoint import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD = """
import sys, time
from pathlib import Path

folder, boot, beat = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
from spoco_zoo import holder, locking

locking.BEAT = beat
if boot:
    import errno, fcntl

    def none(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock, holder.BOOT = none, Path(boot)
with locking.RunLock(folder) as lock:
    print("held", flush=True)
    while not Path(sys.argv[4]).exists():
        lock.check()
        time.sleep(0.01)
"""
NAMESPACES = ["unshare", "--uts", "--pid", "--fork", "--kill-child"]


@contextmanager
def holder(
    folder: Path, boot: Path | None = None, beat: float = 0.05, inside: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a folder, until it dies."""
    code = [sys.executable, "-c", HOLD, str(folder), str(boot or ""), str(beat), str(folder / "x")]
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [*inside, *code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=paths
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What another machine's kernel is called; nothing is locked by the file system."""

    def none(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "boot").write_text("another machine\n")
    return tmp_path / "boot"


def beats_end() -> None:
    """Wait until whoever touches a lock in this process has seen that it is lost."""
    for thread in threading.enumerate():
        if thread.name == "lock":
            thread.join(60)


def set_times(monkeypatch: pytest.MonkeyPatch, silence: float, watch: float) -> None:
    monkeypatch.setattr(locking, "SILENCE", silence)
    monkeypatch.setattr(locking, "WATCH", watch)
    monkeypatch.setattr(locking, "BEAT", 0.05)


def test_a_living_process_keeps_others_out(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        with pytest.raises(LedgerError, match=str(os.getpid())), RunLock(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
    assert (tmp_path / LOCK).exists()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("job", "restarts", "taken"),
    [("7", "1", True), ("7", "", False), ("8", "1", False), ("", "", False)],
)
def test_a_job_that_slurm_starts_again_takes_over_on_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, restarts: str, taken: bool
) -> None:
    """Another process of the same start, and another job, may be at work there."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    with RunLock(tmp_path):
        text = (tmp_path / LOCK).read_text()
    (tmp_path / LOCK).write_text(json.dumps({**json.loads(text), "host": "elsewhere", "boot": "b"}))
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    if not taken:
        with pytest.raises(LedgerError, match=r"on elsewhere \(SLURM job 7"), RunLock(tmp_path):
            pass
        return
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["restarts"] == 1


@pytest.mark.parametrize("deleted", [False, True])
def test_a_holder_that_was_not_gone_removed_the_lock_of_the_next_one(
    tmp_path: Path, deleted: bool
) -> None:
    """Its node may only have been out of reach, or its user have told us that it was gone."""
    with RunLock(tmp_path):
        next_one = {**json.loads((tmp_path / LOCK).read_text()), "host": "elsewhere"}
        if deleted:
            (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text(json.dumps(next_one))
    assert json.loads((tmp_path / LOCK).read_text()) == next_one


def test_a_later_process_with_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        holder = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps({**holder, "started": holder["started"] - 1000}))
    with RunLock(tmp_path):
        pass


def test_the_lock_of_an_earlier_version_on_another_host_is_respected(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 0}))
    with pytest.raises(LedgerError, match="elsewhere"), RunLock(tmp_path):
        pass


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode != 0,
    reason="needs leave to make namespaces",
)
def test_a_container_that_was_killed_left_a_lock_that_only_its_host_name_could_open(
    tmp_path: Path,
) -> None:
    inside = (*NAMESPACES, "sh", "-c", 'hostname container && exec "$@"', "sh")
    with holder(tmp_path, inside=inside) as process:
        with pytest.raises(LedgerError, match=r"process 1 on container at work"), RunLock(tmp_path):
            pass
        inner = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        psutil.wait_procs(inner, timeout=60)  # they follow it in their own time
        with RunLock(tmp_path):
            pass


def test_a_living_process_of_another_machine_is_respected(
    tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder(tmp_path, far):
        with pytest.raises(LedgerError, match=r"seen \d s ago.* repeat this in"), RunLock(tmp_path):
            pass
        # The clocks may differ by any time, and it seem silent.
        set_times(monkeypatch, silence=-1e9, watch=60)
        with pytest.raises(LedgerError, match="at work in"), RunLock(tmp_path):
            pass


def test_a_process_of_another_machine_that_was_killed_is_gone_after_a_while(
    tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the lock had to be deleted by hand: a replaced pod never went on with its run."""
    with holder(tmp_path, far) as process:
        process.kill()
    with (
        pytest.raises(LedgerError, match=r"if it is gone, repeat this in \d\d s"),
        RunLock(tmp_path),
    ):
        pass
    os.utime(tmp_path / LOCK, (time.time() - 100, time.time() - 100))
    monkeypatch.setattr(locking, "WATCH", 0.2)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_a_clock_that_was_set_back_asked_to_wait_for_a_day(tmp_path: Path, far: Path) -> None:
    """And said that a process was seen 0 s ago that may have ended long before."""
    with holder(tmp_path, far) as process:
        process.kill()
    os.utime(tmp_path / LOCK, (time.time() + 86400, time.time() + 86400))
    with pytest.raises(LedgerError, match="if it is gone for good, delete"), RunLock(tmp_path):
        pass


def test_a_process_that_was_only_held_up_ends_when_its_lock_was_taken_over(
    tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder(tmp_path, far) as process:
        process.send_signal(signal.SIGSTOP)
        set_times(monkeypatch, silence=0, watch=0.5)
        with RunLock(tmp_path) as lock:
            process.send_signal(signal.SIGCONT)
            _, said = process.communicate(timeout=60)
            assert process.returncode == 1
            assert "removed or taken over by another process" in said
            lock.check()
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_machine_of_the_same_name_is_another_one(tmp_path: Path, far: Path) -> None:
    """Cloud images and pods of a set may all have one host name."""
    with holder(tmp_path, far), pytest.raises(LedgerError, match="seen"), RunLock(tmp_path):
        pass


def test_a_lock_that_was_deleted_under_way_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "BEAT", 0.01)
    with RunLock(tmp_path) as lock:
        lock.check()
        (tmp_path / LOCK).unlink()
        beats_end()
        with pytest.raises(SpocoError, match=r"the lock of this run, .*lock\.json, was removed"):
            lock.check()


def test_a_lock_that_another_machine_removed_on_a_server_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an open file that is gone there, NFS says neither that it is there nor that it is not."""
    monkeypatch.setattr(locking, "BEAT", 0.01)
    asked = os.fstat
    with RunLock(tmp_path) as lock:

        def stale(file: int) -> os.stat_result:
            if file == lock._file:
                raise OSError(errno.ESTALE, "Stale file handle")
            return asked(file)

        monkeypatch.setattr(os, "fstat", stale)
        beats_end()
        with pytest.raises(SpocoError, match="was removed"):
            lock.check()


def test_a_training_that_is_refused_does_not_touch_the_lock(tmp_path: Path) -> None:
    """Tried again and again, it kept the holder alive that was gone."""
    (tmp_path / LOCK).write_text("")
    os.utime(tmp_path / LOCK, (1e9, 1e9))
    RunFolder.open(tmp_path, TrainConfig(), resume=False)
    assert (tmp_path / LOCK).stat().st_mtime == 1e9


def test_on_a_full_disk_an_empty_lock_stayed_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, text: bytes, at: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"), alone_in(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_systems_without_a_name_of_the_kernel_tell_hosts_by_their_names(
    tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.unlink()
    monkeypatch.setattr(holders, "BOOT", far)
    with holder(tmp_path, far) as process:
        with pytest.raises(LedgerError, match="delete"), RunLock(tmp_path):
            pass
        process.kill()
    with RunLock(tmp_path):
        pass
