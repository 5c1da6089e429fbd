"""The device that a user names: understood and there, or one line that says why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spoco_zoo.errors import ConfigError, one_line
from spoco_zoo.nets.cores import keep_to_share

__all__ = [
    "OUT_OF_MEMORY",
    "check_device",
    "choose_device",
    "find_device",
    "has_bfloat16",
    "memory_sufficing",
    "short_of_memory",
]

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
"""Errors that say nothing of a file that was being read."""


def find_device(name: str) -> torch.device:
    """The device of a name that was checked; `auto` is this process's own GPU if it has one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes bfloat16 in hardware; where it does not, float32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def check_device(name: str, *, here: bool = True) -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:I`` as a device; nothing is put on it.

    Parameters
    ----------
    name : str
    here : bool
        Whether this process must have it.

    Raises
    ------
    ConfigError
        If the device is unknown or absent.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        reason = str(error) if isinstance(name, str) else "no name"
        raise _refused(name, reason) from error
    if device.type not in ("cpu", "cuda"):
        raise _refused(name, "a device of another kind")
    if here and device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise _refused(name, f"{count or 'no'} CUDA device{'s' * (count > 1)} here")
    return device


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:I`` as a device that works.

    torch then has no more threads than this process may use cores.

    Raises
    ------
    ConfigError
        If the device is unknown or absent.
    """
    device = find_device(name) if name == "auto" else check_device(name)
    keep_to_share()
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _refused(name, str(error)) from error
    return device


def _refused(name: str, reason: str) -> ConfigError:
    return ConfigError(
        "--device must be auto, cpu, cuda or cuda:I, and be there",
        f"{name!r}: {' '.join(reason.split())[:80]}",
        "Use --device cpu, or install a torch build with CUDA.",
    )


def short_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that a device's memory does not suffice.

    cuDNN tries every way to compute a convolution that it knows, and where none finds room for its
    workspace says that there is none. On a CPU the allocator has no error of its own.
    """
    said = ("unable to find an engine", "STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(s in str(error) for s in said)


@contextmanager
def memory_sufficing(device: torch.device, what: str, found: str, remedy: str) -> Iterator[None]:
    """Say what to do where something does not fit a device's memory.

    Parameters
    ----------
    device : torch.device
    what, found, remedy : str
        What is to fit, its size, and what helps beside another device.

    Raises
    ------
    ConfigError
    """
    try:
        yield
    except RuntimeError as error:
        if not short_of_memory(error):
            raise
        raise ConfigError(
            f"{what} must fit the memory of {device}",
            f"{one_line(error)[:200]} ({found})",
            f"{remedy}, or take another device.",
        ) from error
