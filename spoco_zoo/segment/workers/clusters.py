"""The dask clusters that tasks run on: one that is there, or one of this machine."""

from __future__ import annotations

import logging
import math
import os
import resource
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError, SpocoError, one_line
from spoco_zoo.nets.cores import share_of_cores
from spoco_zoo.segment.workers.failures import innermost, reason_of
from spoco_zoo.stopping import shielded_children

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

    from distributed import Client, SpecCluster

__all__ = ["connect", "memory_here", "start_cluster"]

PATIENCE = 120.0
"""Seconds that a scheduler may take to write its file."""
FILES, FILES_PER_WORKER = 128, 16
"""Open files that a driver may need by itself, and for each worker (measured: 28 and 10)."""
SETTINGS = {
    # A clustering step may hold the interpreter for longer than a heartbeat.
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.comm.timeouts.connect": "60s",
    # A worker that starts anew imports torch, which a busy machine does in more than
    # the default 15 seconds; after that the cluster would drop it for good.
    "distributed.deploy.lost-worker-timeout": "30 minutes",
    # Deaths before an item is given up; it then gets a second chance by itself.
    "distributed.scheduler.allowed-failures": 1,
    # Ten thousand events per topic, nobody's to read, made the driver grow for hours.
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    # What a site's own settings ask of its clusters is none of these processes' business.
    "distributed.comm.require-encryption": False,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.preload": [],
    "distributed.nanny.preload": [],
    "distributed.scheduler.preload": [],
    # A tree of where the worker was, every second: the last hundred take 60 MiB.
    "distributed.worker.profile.enabled": False,
    # Threads that read, write and talk would each scatter what they keep over an arena.
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    # Huge pages stay with parts of the heap that small things then fill, 2 MiB for each.
    "distributed.nanny.pre-spawn-environ.NUMPY_MADVISE_HUGEPAGE": 0,
    # Not so with torch's: they go back to the system at once, and clearing small ones took
    # a third of the forward.
    "distributed.nanny.pre-spawn-environ.THP_MEM_ALLOC_ENABLE": 1,
}
"""Dask's settings for a cluster of this machine, while there is one."""
SET_BY_DASK = ("PYTHONHASHSEED", "__DASK_PARENT_PID")
"""What it puts into the environment of its own process beside what is in its settings."""


def connect(scheduler: str) -> Client:
    """A client of a scheduler that is running already."""
    from distributed import Client

    quiet()
    where = {"address": scheduler}
    if Path(scheduler).suffix == ".json" or Path(scheduler).is_file():
        await_file(Path(scheduler))
        where = {"scheduler_file": scheduler}
    try:
        return Client(**where, timeout="30s")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(
            "a dask scheduler must answer at the address given",
            f"{one_line(error)[:120]} ({scheduler})",
            "Start it with `dask scheduler`, and check address and network.",
        ) from error


def await_file(path: Path) -> None:
    """Give a scheduler that is just starting the time to write its file."""
    until = time.monotonic() + PATIENCE
    while not path.is_file():
        if time.monotonic() > until:
            raise ConfigError(
                "a scheduler file must be there, or come within two minutes",
                f"none at {path}",
                f"Start `dask scheduler --scheduler-file {path}`.",
            )
        time.sleep(0.2)


def start_cluster(
    workers: int, gpus: Sequence[str | int], dashboard: bool, started: ExitStack
) -> tuple[Client, SpecCluster]:
    """A cluster of this machine; each worker is watched and started anew if it dies.

    Parameters
    ----------
    workers : int
    gpus : sequence of str or int
        CUDA devices; worker i sees the one at i alone.
    dashboard : bool
    started : ExitStack
        Is given what ends the cluster and undoes dask's settings and environment for it.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, Scheduler, SpecCluster

    from spoco_zoo.segment.workers.nanny import FirmNanny

    quiet()
    _allow_files(FILES + FILES_PER_WORKER * workers, workers)
    started.enter_context(dask.config.set(SETTINGS))
    started.enter_context(_environment_kept())
    # A share of the cores that this process may use (affinity, cgroups), unless the user has said
    # how many threads a process may have. dask looks at the limit of the process's own group alone.
    cores = math.ceil(min(CPU_COUNT, share_of_cores()))
    threads = os.environ.get("OMP_NUM_THREADS") or max(cores // workers, 1)
    specs = {}
    for i in range(workers):
        env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = str(gpus[i % len(gpus)])
        options = {
            "nthreads": 1,
            "env": env,
            "silence_logs": logging.ERROR,
            # Else a worker of one thread is killed that takes more than one core's share.
            "memory_limit": 0,
        }
        specs[f"worker-{i}"] = {"cls": FirmNanny, "options": options}
    options = {
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": dashboard,
        # A free port even without a dashboard: the server for metrics is always there.
        "dashboard_address": ":0",
    }
    try:
        with shielded_children():
            cluster = SpecCluster(  # type: ignore[no-untyped-call]
                workers=specs,
                scheduler={"cls": Scheduler, "options": options},
                silence_logs=logging.ERROR,
            )
    except RuntimeError as error:
        raise SpocoError(
            f"the worker processes did not start ({reason_of(innermost(error))}); a script must "
            'start them below `if __name__ == "__main__":`; workers=0 does without them'
        ) from None
    started.callback(cluster.close)
    return Client(cluster), cluster  # type: ignore[no-untyped-call]


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what dask sets for workers in the environment of whoever starts them.

    Else all processes that a notebook starts later have it: few memory arenas, one thread, and one
    seed for hashes.
    """
    import dask

    spawned = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    before = {name: os.environ.get(name) for name in (*spawned, *SET_BY_DASK)}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _allow_files(count: int, workers: int) -> None:
    """Let this process have so many files open, or say that it cannot: dask would wait for ever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ConfigError(
            f"{workers} workers need {count} open files",
            f"a limit of {hard} (ulimit -Hn)",
            "Raise it, or start fewer.",
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def memory_here() -> int:
    """Bytes that all processes of this machine, or of its container, may use."""
    from distributed.system import memory_limit

    return memory_limit()


def quiet() -> None:
    """Keep dask's chatter about workers that come and go out of the progress display.

    It stays so: some of it comes after a cluster is gone.
    """
    # A client has a level of its own: of a scheduler that goes it would print three tracebacks.
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
