"""Who holds a lock, and whether that process is still there: of this system, or of another one."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

__all__ = ["Holder"]

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""A name of the running kernel, the same in all of its containers, whose host names differ."""


@dataclass(frozen=True)
class Holder:
    """A process, as a lock names it.

    Attributes
    ----------
    pid : int
    host : str
    started : float
        When it began, in seconds since the epoch, by the clock of its host.
    boot : str
        The name of its kernel; empty where that has none.
    job : str
        The SLURM job that it is part of, if any.
    restarts : int
        How often SLURM has started that job again.
    beats : bool
        Whether it touches its lock every few seconds, as earlier versions did not.
    """

    pid: int
    host: str
    started: float
    boot: str = ""
    job: str = ""
    restarts: int = 0
    beats: bool = False

    def __str__(self) -> str:
        job = f" (SLURM job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"

    @classmethod
    def me(cls) -> Holder:
        """The process that asks."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=psutil.Process().create_time(),
            boot=_boot(),
            job=_slurm_job(),
            restarts=_slurm_restarts(),
            beats=True,
        )

    @classmethod
    def parse(cls, text: bytes) -> Holder | None:
        """What a lock file says; None if it is empty or was cut while being written."""
        try:
            said = json.loads(text)
            return cls(
                pid=int(said["pid"]),
                host=str(said["host"]),
                started=float(said["started"]),
                boot=str(said.get("boot", "")),
                job=str(said.get("job", "")),
                restarts=int(said.get("restarts", 0)),
                beats=bool(said.get("beats", False)),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def text(self) -> bytes:
        """For a lock file."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_near(self) -> bool:
        """Whether it runs, or ran, under the kernel of this process."""
        boot = _boot()
        if boot and self.boot:
            return boot == self.boot
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Of a process of this host, whether it is there, and not a later one with its number."""
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) < 1)
        except psutil.NoSuchProcess:
            return False

    @property
    def is_former_start(self) -> bool:
        """Whether it belongs to an earlier start of this process's job, which SLURM has ended."""
        return bool(self.job) and self.job == _slurm_job() and self.restarts < _slurm_restarts()


def _boot() -> str:
    with suppress(OSError):
        return BOOT.read_text().strip()
    return ""


def _slurm_job() -> str:
    job, cluster = map(os.environ.get, ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME"))
    return f"{job} of {cluster}" if job and cluster else job or ""


def _slurm_restarts() -> int:
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(restarts) if restarts.isdecimal() else 0
