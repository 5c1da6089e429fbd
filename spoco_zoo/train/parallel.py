"""Training on several devices: one process each, started by ``torchrun``.

Each process trains on its share of every batch; gradients are averaged by
DistributedDataParallel, and so are the normalisation buffers, so that every
process holds the same networks after every step. Process 0 alone validates,
writes and reports.
"""

from __future__ import annotations

import gc
import importlib
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Ranks", "average_buffers", "join", "leave", "share_of_batch", "wrap"]

# The others wait while process 0 validates, which takes long on large volumes.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Ranks:
    """Which process this is.

    Attributes
    ----------
    rank, world : int
        Number of this process, and how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def agree(self, flag: bool, device: torch.device) -> bool:
        """What process 0 says; every process has to ask."""
        if self.world == 1:
            return flag
        said = torch.tensor([int(flag)], device=device)
        dist.broadcast(said, 0)
        return bool(said.item())

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.world > 1:
            dist.barrier()


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """Meet the other processes of ``torchrun``, if it started this one; choose its device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # DistributedDataParallel imports this. Imported any later, functions in it would hold
    # the group as the default of an argument, and `leave` could not end the group's threads.
    importlib.import_module("torch._dynamo")
    dist.init_process_group(backend, timeout=PATIENCE)
    return Ranks(dist.get_rank(), world), device


def leave(ranks: Ranks) -> None:
    """Part from the other processes; nothing that `wrap` returned may be held any more.

    The group's threads end with the last that holds it. One that lets go of a tensor
    while the interpreter ends would abort the process.
    """
    if ranks.world > 1:
        gc.collect()
        dist.destroy_process_group()


def share_of_batch(batch_size: int, ranks: Ranks) -> int:
    """Crops per step of one process.

    Raises
    ------
    ConfigError
        If the processes cannot share a batch evenly.
    """
    if batch_size % ranks.world:
        raise ConfigError(
            "--batch-size must be a multiple of the number of processes",
            f"{batch_size} crops for {ranks.world} processes",
            f"Pass --batch-size {-(-batch_size // ranks.world) * ranks.world}.",
        )
    return batch_size // ranks.world


def wrap(network: nn.Module, ranks: Ranks, *, compiled: bool) -> nn.Module:
    """What training calls: the network itself, averaging gradients or compiled if asked to."""
    called: nn.Module = network
    if ranks.world > 1:
        called = DistributedDataParallel(network)
    if compiled:
        called = torch.compile(called)  # type: ignore[assignment]
    return called


@torch.no_grad()
def average_buffers(network: nn.Module, ranks: Ranks) -> None:
    """Average the running statistics of all processes in place."""
    if ranks.world == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    dist.all_reduce(flat)
    parts = (flat / ranks.world).split([buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view_as(buffer))
