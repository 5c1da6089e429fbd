"""A process that segments while something goes wrong: one attempt of the campaign.

Faults are placed by counting: an attempt may be struck at its n-th step in the file
system (a file opened for writing, renamed, removed, a folder made), or a worker at
the n-th block that any worker begins. So the same attempt is struck at the same place.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import code_model, exact_cluster

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import SpocoError
from spoco_zoo.segment import segment
from spoco_zoo.segment.ledger import Ledger

WORKER_TIMEOUT = "4s"
STOPPED_SECONDS = 9
NOBODY = 65534


@dataclass(frozen=True)
class Attempt:
    """What to segment, and what goes wrong meanwhile."""

    image: str
    output: str | None
    truth: str
    config: SegmentConfig
    marks: str
    """Folder in which workers count their blocks."""
    workers: int = 0
    overwrite: bool = False
    strike: int = 0
    """Step in the file system at which the driver gets `signal`; 0 for never."""
    strike_after: str = ""
    """Text of the ledger line after which the driver gets it."""
    signal: int = signal.SIGKILL
    worker_strikes: dict[int, str] = field(default_factory=dict)
    """Block count to "kill" or "stop"."""
    file_limit: int = 0
    """Bytes beyond which no file can grow, as if the disk were full."""
    unprivileged: bool = False
    clock: float = 0.0
    """Seconds by which the clock is wrong."""


def disturbed_cluster(embeddings, config, background, /, *, momentum=None):
    """Exact labels, unless this worker is to be struck at this block."""
    marks = Path(os.environ["SPOCO_MARKS"])
    count = 1
    while True:
        try:
            (marks / str(count)).touch(exist_ok=False)
            break
        except FileExistsError:
            count += 1
    what = os.environ.get(f"SPOCO_STRIKE_{count}")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        wake = f"sleep {STOPPED_SECONDS}; kill -CONT {os.getpid()}"
        subprocess.Popen(["sh", "-c", wake], start_new_session=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return exact_cluster(embeddings, config, background)


def run(attempt: Attempt, stdout: str, stderr: str) -> None:
    """Where a forked process begins: its own streams, its faults, then the run."""
    os.setsid()
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # As a program starts; a forked one has what its parent set.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["SPOCO_MARKS"] = attempt.marks
    for count, what in attempt.worker_strikes.items():
        os.environ[f"SPOCO_STRIKE_{count}"] = what
    model = code_model(np.load(attempt.truth))
    if attempt.workers:
        _shorten_worker_timeout()
    if attempt.clock:
        _jump(attempt.clock)
    if attempt.file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (attempt.file_limit, attempt.file_limit))
    if attempt.unprivileged and os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if attempt.strike_after:
        _strike_after(attempt.strike_after, attempt.signal)
    steps = _count_steps(attempt.strike, attempt.signal)
    try:
        result = segment(
            attempt.image,
            model,
            attempt.config,
            output=attempt.output,
            label_name="label",
            workers=attempt.workers,
            dashboard=False,
            overwrite=attempt.overwrite,
            cluster=disturbed_cluster,
        )
    except SpocoError as error:
        # The streams are written past the limit on files and past the strike.
        os.write(2, f"{error}\n".encode())
        os._exit(error.exit_code)
    except KeyboardInterrupt:
        # As the command line does where nothing has begun.
        os.write(2, b"interrupted\n")
        os._exit(130)
    os.write(1, f"{result.objects} {steps[0]}\n".encode())
    os._exit(0)


def _count_steps(strike: int, number: int) -> list[int]:
    """Count steps in the file system from now on; at one of them comes the signal."""
    steps = [0]
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def audit(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & writing or "/dev/" in str(path):
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            return
        steps[0] += 1
        if steps[0] == strike:
            os.kill(os.getpid(), number)

    sys.addaudithook(audit)
    return steps


def _strike_after(text: str, number: int) -> None:
    """Send the signal when a line of the ledger with that text is written."""
    append = Ledger.append

    def struck(self: Ledger, entry: dict) -> None:
        append(self, entry)
        if text in json.dumps(entry):
            os.kill(os.getpid(), number)

    Ledger.append = struck


def _shorten_worker_timeout() -> None:
    """Give workers a time-out that a test can wait for, and let them start at once."""
    import dask
    import distributed

    original = distributed.SpecCluster

    def quick(*arguments, **options):
        dask.config.set(
            {
                "distributed.scheduler.worker-ttl": WORKER_TIMEOUT,
                "distributed.worker.multiprocessing-method": "fork",
            }
        )
        return original(*arguments, **options)

    distributed.SpecCluster = quick


def _jump(seconds: float) -> None:
    """Set this process's clock, and with it when processes seem to have begun."""
    now, began = time.time, psutil.Process.create_time
    time.time = lambda: now() + seconds
    psutil.Process.create_time = lambda self: began(self) + seconds
