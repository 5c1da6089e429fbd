"""The momentum network: a moving average of the trained one (paper, section 3.3)."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["make_momentum", "momentum_at", "update_momentum"]


def make_momentum(network: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode, to start the average from."""
    momentum = copy.deepcopy(network).requires_grad_(False)
    return momentum.eval()


def momentum_at(step: int, top: float) -> float:
    """Weight of the old average at a step: ``min(top, (1 + step) / (10 + step))``.

    Early steps forget quickly, so that the average is useful in short runs too;
    a constant 0.999 would remember the random start for thousands of steps.
    """
    return min(top, (1 + step) / (10 + step))


@torch.no_grad()
def update_momentum(momentum: nn.Module, network: nn.Module, weight: float) -> None:
    """Average weights and normalisation buffers in place; integer buffers are copied.

    In training it is called after the optimiser's step and nowhere else: a forward pass for
    validation or prediction leaves the average alone.
    """
    for old, new in zip(momentum.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new.to(old.dtype), 1 - weight)
        else:
            old.copy_(new)
