"""The head that makes labels with loops that the ONNX exporter turns into its own.

Importing this loads much of torch's compiler, so only an export to ONNX does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from spoco_zoo.nets.instances import Instances, SpocoUNetWithLabels, flow, ring

__all__ = ["LoopedInstances", "for_onnx"]


class LoopedInstances(Instances):
    """The same steps with loops that the ONNX exporter turns into its own."""

    def components(self, root: Tensor, joins: list[Tensor]) -> Tensor:
        """See `Instances`."""

        def body(root: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            after = flow(root, joins)
            return after, (after != root).any()

        result: Tensor = _repeat(body, root)[0]
        return result

    def grown(self, owner: Tensor, mask: Tensor, field: Tensor, anchors: Tensor) -> Tensor:
        """See `Instances`."""

        def body(owner: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            after = ring(owner, mask, field, anchors)
            return after, (after != owner).any()

        result: Tensor = _repeat(body, owner)[0]
        return result

    def absorbed(self, owner: Tensor, order: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
        """See `Instances`."""

        def body(owner: Tensor, order: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            after, places = self.absorb_once(owner, order, field)
            return after, places, (after != owner).any()

        after, places, _ = _repeat(body, owner, order)
        return after, places


def _repeat(body: Callable[..., tuple[Tensor, ...]], *state: Tensor) -> Any:
    """Repeat until the last value that `body` returns is False."""
    first = torch.ones((), dtype=torch.bool, device=state[0].device)
    return while_loop(lambda *values: values[-1].clone(), body, (*state, first))


def for_onnx(network: torch.nn.Module) -> torch.nn.Module:
    """The network as the ONNX exporter can take it; itself if it returns no labels."""
    if not isinstance(network, SpocoUNetWithLabels):
        return network
    looped = copy.deepcopy(network)
    looped.instances.__class__ = LoopedInstances
    return looped
