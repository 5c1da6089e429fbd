"""The embedding field: network outputs on one global grid of patches, blended.

For a voxel the same patches are summed in the same order whatever region is asked
for, so the field is the same bit for bit as long as the network gives the same
output for the same patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from spoco_zoo.segment.field import make_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from spoco_zoo.nets.model import Embedder
    from spoco_zoo.segment.blocks import Box
    from spoco_zoo.segment.field import Field, Patch

__all__ = ["Disagreement", "Embedded", "embed"]


@dataclass(frozen=True)
class Disagreement:
    """Distance between the outputs of neighbouring patches where both are trusted."""

    total: float = 0.0
    count: int = 0
    worst: float = 0.0

    def __add__(self, other: Disagreement) -> Disagreement:
        return Disagreement(
            self.total + other.total, self.count + other.count, max(self.worst, other.worst)
        )


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a region, and how far patches differed in it."""

    embeddings: torch.Tensor
    """float32 (E, [Z,] Y, X) on the device of the network."""
    disagreement: Disagreement
    patches: int
    """Patches that went through the network."""


def embed(
    network: Embedder,
    image: np.ndarray,
    field: Field,
    region: Box,
    *,
    channels: int,
    device: torch.device | str = "cpu",
    batch: int = 1,
    blank: tuple[float, np.ndarray] | None = None,
) -> Embedded:
    """Embeddings of a region of the volume.

    Parameters
    ----------
    network : Embedder
        In evaluation mode, on `device`.
    image : float32, shape (C, [Z,] Y, X)
        The normalised image over ``field.needed(region)``.
    field : Field
    region : Box
        In voxels of the volume.
    channels : int
        Length E of an embedding.
    device : torch.device or str
    batch : int
        Patches of equal shape per forward on a CUDA device; halved while memory
        does not suffice. Always 1 elsewhere, so that results do not depend on
        which patches share a batch.
    blank : (float, ndarray of shape (E,)), optional
        A patch whose voxels all have one value, not above the first entry, is
        not sent through the network: its embedding is the second entry.

    Returns
    -------
    Embedded
    """
    device = torch.device(device)
    needed = field.needed(region)
    pixels = torch.from_numpy(image)
    out = torch.zeros((channels, *region.shape), dtype=torch.float32, device=device)
    seams = _Seams(field, region)
    run = 0
    for patch, result in _forwarded(
        network, pixels, field.patches(region), needed, device, batch, blank
    ):
        run += result is not None
        if result is None:
            assert blank is not None
            value = torch.as_tensor(blank[1], dtype=torch.float32, device=device)
            result = value.reshape(-1, *[1] * len(region.start)).expand(-1, *patch.input.shape)
        part = patch.support.overlap(region)
        inner = result[(slice(None), *part.within(patch.input))]
        weight = torch.from_numpy(field.weights(patch, part)).to(device)
        out[(slice(None), *part.within(region))].add_(inner * weight)
        seams.add(patch, result)
    return Embedded(out, seams.disagreement, run)


def _forwarded(
    network: Embedder,
    pixels: torch.Tensor,
    patches: Iterator[Patch],
    needed: Box,
    device: torch.device,
    batch: int,
    blank: tuple[float, np.ndarray] | None,
) -> Iterator[tuple[Patch, torch.Tensor | None]]:
    """Each patch with its output (E, [Z,] Y, X), or None if it is blank; order is kept."""
    size = batch if device.type == "cuda" else 1
    waiting: list[tuple[Patch, torch.Tensor | None]] = []
    for patch in patches:
        pixel = pixels[(slice(None), *patch.input.within(needed))]
        waiting.append((patch, None if _is_blank(pixel, blank) else pixel))
        if len(waiting) >= size:
            yield from _flush(network, waiting, device)
            waiting = []
    yield from _flush(network, waiting, device)


def _flush(
    network: Embedder, waiting: list[tuple[Patch, torch.Tensor | None]], device: torch.device
) -> Iterator[tuple[Patch, torch.Tensor | None]]:
    """Run patches of equal shape together."""
    results: dict[int, torch.Tensor] = {}
    shapes: dict[torch.Size, list[int]] = {}
    for i, (_, pixel) in enumerate(waiting):
        if pixel is not None:
            shapes.setdefault(pixel.shape, []).append(i)
    for members in shapes.values():
        stack = torch.stack([pixel for i in members if (pixel := waiting[i][1]) is not None])
        for i, result in zip(members, _forward(network, stack, device), strict=True):
            results[i] = result
    for i, (patch, _) in enumerate(waiting):
        yield patch, results.get(i)


def _forward(network: Embedder, stack: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Output (N, E, ...) in float32; the batch is halved while the device's memory is short."""
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"),
        ):
            return network(stack.to(device)).float()
    except torch.cuda.OutOfMemoryError:
        if len(stack) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(stack) // 2
    parts = [_forward(network, part, device) for part in (stack[:half], stack[half:])]
    return torch.cat(parts)


def _is_blank(pixel: torch.Tensor, blank: tuple[float, np.ndarray] | None) -> bool:
    """Whether all voxels have one value and it is a dark one."""
    if blank is None:
        return False
    first = pixel.flatten()[0]
    return bool(first <= blank[0]) and bool((pixel == first).all())


class _Seams:
    """Compares every patch with its lower neighbour along each axis, keeping thin strips only."""

    def __init__(self, field: Field, region: Box) -> None:
        self.field, self.region = field, region
        self.strips: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
        self.disagreement = Disagreement()

    def add(self, patch: Patch, result: torch.Tensor) -> None:
        """Measure a patch against its lower neighbours and keep what its upper ones need."""
        for axis, grid in enumerate(self.field.axes):
            k = patch.index[axis]
            if k > 0 and (lower := self.strips.pop((axis, patch.index), None)) is not None:
                strip = result[(slice(None), *self._strip(patch, axis, k).within(patch.input))]
                distance = (strip - lower).square().sum(0).sqrt()
                self.disagreement += Disagreement(
                    float(distance.sum(dtype=torch.float64)),
                    distance.numel(),
                    float(distance.max()),
                )
            if k + 2 < len(grid.edges) and grid.reach:
                box = self._strip(patch, axis, k + 1)
                if min(box.shape) > 0:
                    above = tuple(i + (a == axis) for a, i in enumerate(patch.index))
                    strip = result[(slice(None), *box.within(patch.input))]
                    self.strips[axis, above] = strip.clone()

    def _strip(self, patch: Patch, axis: int, upper: int) -> Box:
        """Around face `upper` along `axis` where both patches are trusted, inside the region."""
        spans = []
        for a, (grid, k) in enumerate(zip(self.field.axes, patch.index, strict=True)):
            if a == axis:
                spans.append((grid.trusted(upper)[0], grid.trusted(upper - 1)[1]))
            else:
                spans.append((grid.edges[k], grid.edges[k + 1]))
        return make_box(spans).overlap(self.region)
