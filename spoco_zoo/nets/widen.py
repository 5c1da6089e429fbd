"""A trained network's weights in a wider network that computes the same.

More channels per level learn more, and cost more from the first step on. So a small
network may learn first, and a wide one go on from it. Channels of the small network keep
their weights and hear nothing of the new ones; new channels start as in a fresh network
and are not listened to (their outgoing weights are zero), but those weights have a
gradient, so training takes them in (Chen et al., "Net2Net", ICLR 2016, duplicate
channels instead, which start alike and stay so without noise)::

    features 2 -> 3, weights of a convolution (out, in):     o  old weight
                                                             0  zero
        o o 0                                                r  random
        o o 0
        r r r
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spoco_zoo.nets.registry import build_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spoco_zoo.config import NetConfig

__all__ = ["can_widen", "widened"]


def can_widen(given: NetConfig, wanted: NetConfig) -> bool:
    """Whether `wanted` is `given` with at least as many channels at every level.

    Its embeddings may also turn where those of `given` do not: the weights are of the same
    shapes, and training then finds out how far each voxel is to be turned back.
    """
    changes = {"features": wanted.features, "rotary": given.rotary or wanted.rotary}
    return given.model_copy(update=changes) == wanted and all(
        old <= new for old, new in zip(given.features, wanted.features, strict=True)
    )


def widened(
    state: Mapping[str, Tensor], given: NetConfig, wanted: NetConfig, seed: int
) -> dict[str, Tensor]:
    """State dict of the `wanted` network whose output, unturned, equals that of the `given` one.

    Parameters
    ----------
    state : mapping of Tensor
        State dict of the given network.
    given, wanted : NetConfig
        See `can_widen`, which must hold.
    seed : int
        Of the new channels' weights.

    Returns
    -------
    dict of Tensor
        Equal output in evaluation mode up to rounding; in training mode too, as
        BatchNorm looks at each channel by itself.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_network(wanted).state_dict()
    result = {}
    for name, new in fresh.items():
        old = state[name].to(new.device)
        result[name] = new.clone()
        if old.ndim == 0:  # how many batches BatchNorm has seen
            result[name] = old.clone()
            continue
        if old.ndim == 1:  # of BatchNorm, or the head's bias: one value per channel
            result[name][: len(old)] = old
            continue
        rows, columns = slice(0, old.shape[0]), _inputs(name, given, wanted, old.shape[1])
        result[name][rows] = 0
        result[name][rows, columns] = old
    return result


def _inputs(name: str, given: NetConfig, wanted: NetConfig, count: int) -> list[int]:
    """Where a convolution of the wide network finds the input channels of the given one.

    The first convolution of a decoder sees a skip connection's channels, then those from below.
    """
    parts = name.split(".")
    if parts[0] != "decoders" or parts[2:4] != ["layers", "0"]:
        return list(range(count))
    level = len(given.features) - 2 - int(parts[1])
    skip, below = given.features[level], given.features[level + 1]
    start = wanted.features[level]
    return [*range(skip), *range(start, start + below)]
