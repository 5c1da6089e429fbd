"""Pairs (object, voxel) for the terms that compare an object with voxels around it.

Local terms look at a window around each object and list its pairs. Global terms
look at whole images: there every object meets every voxel, so the distances are
one matrix per image, and neither index lists nor embedding differences are kept.
Both kinds answer the same questions, so that each loss is written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from spoco_zoo.train.objects import Windows, owners, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.train.objects import Objects

__all__ = ["Pairs", "WholeImage", "Windowed", "pairs_of", "squared_distances"]


class Pairs(Protocol):
    """Pairs of k objects with voxels, stored as tensors of one shape ``(pairs)``."""

    @property
    def objects(self) -> slice:
        """Which of the batch's objects these are."""

    def squared(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """``d(e_p, anchor_k)^2``, shape (pairs), of rows (P, E) and all anchors (K, E)."""

    def inside(self) -> Tensor:
        """Bool (pairs): the voxel belongs to the object."""

    def total(self, values: Tensor) -> Tensor:
        """Sum of values (pairs) per object, shape (k,)."""

    def total_inside(self, values: Tensor) -> Tensor:
        """Sum of values (pairs) over each object's own voxels, shape (k,)."""

    def total_among(self, values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of values (pairs) over chosen voxels, bool (P,), and their number, each (k,)."""


@dataclass(frozen=True)
class Windowed:
    """Pairs of all objects of a batch with the voxels of their windows, as lists (M,).

    Attributes
    ----------
    windows : Windows
    owner_of : Tensor
        int64 (P,), object index of each voxel, -1 for none.
    count : int
        Number of objects K.
    """

    windows: Windows
    owner_of: Tensor
    count: int

    @property
    def objects(self) -> slice:
        """Which of the batch's objects these are."""
        return slice(0, self.count)

    def squared(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """See `Pairs`."""
        difference = rows[self.windows.voxel] - anchors[self.windows.owner]
        return difference.square().sum(-1)

    def inside(self) -> Tensor:
        """See `Pairs`."""
        return self.owner_of[self.windows.voxel] == self.windows.owner

    def total(self, values: Tensor) -> Tensor:
        """See `Pairs`."""
        return values.new_zeros(self.count).index_add(0, self.windows.owner, values)

    def total_inside(self, values: Tensor) -> Tensor:
        """See `Pairs`."""
        return self.total(values * self.inside())

    def total_among(self, values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pairs`."""
        weight = chosen[self.windows.voxel].to(values.dtype)
        return self.total(values * weight), self.total(weight)


@dataclass(frozen=True)
class WholeImage:
    """Every object of one image with every voxel of it, as matrices (k, S).

    Attributes
    ----------
    objects : slice
    voxels : slice
        The image's rows.
    owner_of : Tensor
        int64 (P,), object index of each voxel of the batch, -1 for none.
    """

    objects: slice
    voxels: slice
    owner_of: Tensor

    def squared(self, rows: Tensor, anchors: Tensor) -> Tensor:
        """See `Pairs`."""
        return squared_distances(anchors[self.objects], rows[self.voxels])

    def inside(self) -> Tensor:
        """See `Pairs`."""
        ids = torch.arange(self.objects.start, self.objects.stop, device=self.owner_of.device)
        return self.owner_of[self.voxels] == ids[:, None]

    def total(self, values: Tensor) -> Tensor:
        """See `Pairs`."""
        return values.sum(1)

    def total_inside(self, values: Tensor) -> Tensor:
        """See `Pairs`."""
        owner = self.owner_of[self.voxels]
        own = (owner >= 0).nonzero().squeeze(1)
        row = owner[own] - self.objects.start
        return values.new_zeros(values.shape[0]).index_add(0, row, values[row, own])

    def total_among(self, values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pairs`."""
        weight = chosen[self.voxels].to(values.dtype)
        return values @ weight, weight.sum().expand(values.shape[0])


def pairs_of(
    objects: Objects, margin: Sequence[int] | None, contacts: Tensor | None = None
) -> list[Pairs]:
    """Pairs of a batch: one group of windows, or, with `margin` None, one per image.

    With `contacts`, bool (K, K), windows leave out voxels of objects that are no contact of theirs.
    """
    owner_of = owners(objects)
    if margin is not None:
        pairs = windows(objects, margin)
        if contacts is not None:
            other = owner_of[pairs.voxel]
            kept = (other < 0) | (other == pairs.owner) | contacts[pairs.owner, other]
            pairs = Windows(pairs.owner[kept], pairs.voxel[kept])
        return [Windowed(pairs, owner_of, objects.count)]
    per_image = objects.voxels_per_image
    # Objects are numbered image by image, so each image has a range of them.
    stops = torch.bincount(objects.image, minlength=objects.shape[0]).cumsum(0).tolist()
    groups: list[Pairs] = []
    for n, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        if stop > start:
            voxels = slice(n * per_image, (n + 1) * per_image)
            groups.append(WholeImage(slice(start, stop), voxels, owner_of))
    return groups


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Matrix ``d(a_i, b_j)^2``, shape (A, B), of float (A, E) and (B, E).

    One matrix product each way; only the two inputs are kept for the gradient.
    The error is of the order of the rounding of ``|a|^2 + |b|^2``.
    """
    result: Tensor = _SquaredDistances.apply(first, second)  # type: ignore[no-untyped-call]
    return result


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        result = torch.addmm(second.square().sum(1), first, second.T, alpha=-2)
        return result.add_(first.square().sum(1)[:, None]).clamp_(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        first, second = ctx.saved_tensors
        (g,) = gradients
        to_first = to_second = None
        if ctx.needs_input_grad[0]:
            to_first = 2 * (first * g.sum(1)[:, None] - g @ second)
        if ctx.needs_input_grad[1]:
            to_second = torch.addmm(second * g.sum(0)[:, None], g.T, first, alpha=-1).mul_(2)
        return to_first, to_second
