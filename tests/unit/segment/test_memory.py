"""Workers use freed memory again, whatever dask told their allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from spoco_zoo.segment.execute import make_executor
from spoco_zoo.segment.workers.memory import return_freed_memory

SCRIPT = """
import resource
import sys
from spoco_zoo.segment.workers.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(400):
    bytes(bytearray(1 << 19))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

SCATTERED = """
import sys
from pathlib import Path
from spoco_zoo.segment.workers.memory import keep_freed_memory, return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024

keep_freed_memory()
kib = int(sys.argv[1])
before = resident()
blocks = [bytearray(b"x" * (kib << 10)) for _ in range(200 * 1024 // kib)]
del blocks[:-1]  # the last one lies above the others
kept = resident() - before
return_freed_memory()
print(kept, resident() - before)
"""


FROZEN = """
import gc
import torch
import weakref
from spoco_zoo.segment.workers.memory import keep_freed_memory, return_freed_memory
keep_freed_memory()
looked_at = len(gc.get_objects())

class Model:
    def __init__(self):
        self.me = self

first = Model()
seen = weakref.ref(first)
keep_freed_memory()  # as before the next row of blocks
del first
return_freed_memory()
print(gc.get_freeze_count(), looked_at, seen() is None)
"""


def page_faults(way: str) -> int:
    """Pages that the system had to give while 1 MiB was taken and freed 400 times."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, way],
        capture_output=True,
        check=True,
        env=environment,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's allocator")
def test_a_worker_takes_its_pages_once() -> None:
    # 256 pages each time, unless they are kept, or something above them keeps them by chance.
    kept = page_faults("kept")
    assert kept < 400 * 256 / 5
    assert kept <= page_faults("as dask leaves it")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's allocator")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for its memory")
@pytest.mark.parametrize(("size", "stays"), [(512, True), (3 << 10, False)])
def test_what_is_kept_goes_back_when_told_to_and_large_arrays_at_once(
    size: int, stays: bool
) -> None:
    """Of 200 MiB in arrays of `size` KiB."""
    done = subprocess.run(
        [sys.executable, "-c", SCATTERED, str(size)], capture_output=True, check=True, text=True
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 150 if stays else kept < 20
    assert left < 20


def test_an_array_in_a_cycle_is_freed_at_once() -> None:
    class Holder:
        """What an error with its traceback is, too."""

        def __init__(self) -> None:
            self.me = self

    holder = Holder()
    held = weakref.ref(holder)
    del holder
    return_freed_memory()
    assert held() is None


def test_libraries_were_looked_through_after_each_block() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROZEN], capture_output=True, check=True, text=True
    )
    libraries, looked_at, freed = done.stdout.split()
    assert int(libraries) > 20 * int(looked_at)
    assert freed == "True"  # what a worker loads later must not stay for ever


def test_workers_grew_for_minutes_with_records_and_scattered_memory() -> None:
    def asked(item: int) -> tuple[str | bool | None, ...]:
        from distributed import get_worker

        names = ("MALLOC_ARENA_MAX", "NUMPY_MADVISE_HUGEPAGE", "THP_MEM_ALLOC_ENABLE")
        set_before = map(os.environ.get, names)
        return (*set_before, "profile" in get_worker().periodic_callbacks)

    found, failed = [], []
    executor = make_executor(1, dashboard=False)
    try:
        executor.run(
            asked, [0], lambda _, result: found.append(result), lambda *why: failed.append(why)
        )
    finally:
        executor.close()
    assert not failed
    assert found == [("1", "0", "1", False)]


def test_settings_for_workers_are_not_left_to_the_users_own_dask() -> None:
    import dask

    before = dask.config.get("distributed.scheduler")
    executor = make_executor(1, dashboard=False)
    assert dask.config.get("distributed.scheduler.worker-ttl") == "30 minutes"
    executor.close()
    assert dask.config.get("distributed.scheduler") == before
