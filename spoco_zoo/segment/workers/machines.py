"""What a user asks a run to work on, refused before anything is written if it cannot be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from spoco_zoo.errors import ConfigError
from spoco_zoo.nets.device import check_device
from spoco_zoo.sizes import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_machines", "check_workers", "remark_memory"]

LIBRARIES = 2**30
"""Memory of a worker before its first block."""


def check_machines(
    workers: int, gpus: Sequence[str | int], scheduler: str | None, device: str
) -> None:
    """Refuse workers, GPUs and devices that contradict each other or are not there.

    Raises
    ------
    ConfigError
    """
    check_workers(workers, gpus, scheduler)
    if gpus:
        _check_gpus([str(gpu) for gpu in gpus], device)
    elif device != "auto":
        # The workers of a scheduler are on other machines.
        check_device(device, here=scheduler is None)


def check_workers(workers: int, gpus: Sequence[str | int], scheduler: str | None) -> None:
    """Refuse a negative number of workers, and two kinds of them.

    Raises
    ------
    ConfigError
    """
    if not hasattr(workers, "__index__") or workers < 0:
        raise ConfigError(
            "--workers must be a whole number, 0 or more",
            repr(workers),
            "Use 0 to work in this process.",
        )
    if scheduler is not None and (workers or gpus):
        raise ConfigError(
            "a running scheduler brings its own workers",
            f"--scheduler {scheduler} with --workers {workers} and --gpus {list(gpus)}",
            "Leave out --workers and --gpus, or --scheduler.",
        )


def remark_memory(workers: int, worker_bytes: int) -> str | None:
    """A line on workers of this machine that may need more memory than it, or its container, has.

    The system then ends one or another again and again, which costs what these were at.
    """
    if workers == 0:
        return None
    from spoco_zoo.segment.workers.clusters import memory_here

    here = memory_here()
    needed = workers * (worker_bytes + LIBRARIES)
    if needed <= here:
        return None
    fit = here // (worker_bytes + LIBRARIES)
    remedy = f"--workers {fit}" if fit else "a smaller --block"
    return (
        f"{workers} workers may need {bytes_text(needed)} of memory, and here there are "
        f"{bytes_text(here)}: the system may end some of them. Take {remedy}."
    )


def _check_gpus(gpus: Sequence[str], device: str) -> None:
    """Refuse GPUs that are not there: their workers would use the CPU and say nothing."""
    if device not in ("auto", "cuda"):
        raise ConfigError(
            "each worker of --gpus has one GPU",
            f"--device {device} with --gpus {','.join(gpus)}",
            "Leave out --device, or --gpus.",
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # Under this variable indices are still those of the machine, of which torch counts a part.
    some = "CUDA_VISIBLE_DEVICES" in os.environ
    for gpu in gpus:
        index = gpu.isascii() and gpu.isdecimal() and (some or int(gpu) < count)
        if not count or not (index or gpu.startswith(("GPU-", "MIG-"))):
            raise ConfigError(
                "--gpus must be indices of GPUs of this machine with commas between",
                f"{gpu!r}, with {count or 'no'} CUDA device{'s' * (count > 1)} here",
                "As in 0,1, or leave it out.",
            )
