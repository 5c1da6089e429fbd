"""The embedding field: network outputs on one global grid of patches, blended.

For a voxel the same patches are summed in the same order whatever region is asked
for, so the field is the same bit for bit as long as the network gives the same
output for the same patch. For that reason outputs may be kept from one region to
the next one beside it, which needs some of the same patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from spoco_zoo.nets.device import short_of_memory
from spoco_zoo.nets.unet import turned
from spoco_zoo.segment.blocks import make_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from spoco_zoo.config import NetConfig
    from spoco_zoo.nets.model import Embedder
    from spoco_zoo.segment.blocks import Box
    from spoco_zoo.segment.field import Field, Patch

__all__ = ["Disagreement", "Embedded", "Kept", "embed"]


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
    used: int
    """Patches that the region is made of and that were not blank, kept ones included."""


@dataclass(frozen=True)
class Output:
    """What the network says of a part of a patch."""

    box: Box
    values: torch.Tensor
    """float32 (E, [Z,] Y, X)."""

    def over(self, part: Box) -> torch.Tensor:
        """The values in a part of the box."""
        return self.values[(slice(None), *part.within(self.box))]


class Kept:
    """Outputs of patches from one region for the next one, which needs them too.

    Memory is bounded by what two successive regions share.
    """

    def __init__(self) -> None:
        self._ready: dict[tuple[int, ...], Output] = {}
        self._coming: dict[tuple[int, ...], Output] = {}

    def find(self, patch: Patch) -> Output | None:
        """The output that the region before left; it is handed over once, and not kept longer."""
        return self._ready.pop(patch.index, None)

    def offer(self, patch: Patch, output: Output, trusted: Box, upcoming: Box) -> None:
        """Copy what the upcoming region needs, if this output has all of it."""
        part = trusted.overlap(upcoming)
        if min(part.shape) > 0 and output.box.overlap(part) == part:
            values = output.over(part).clone(memory_format=torch.contiguous_format)
            self._coming[patch.index] = Output(part, values)

    def turn(self) -> None:
        """The upcoming region is the present one from now on."""
        self._ready, self._coming = self._coming, {}


def embed(
    network: Embedder,
    image: np.ndarray,
    field: Field,
    region: Box,
    *,
    net: NetConfig,
    device: torch.device | str = "cpu",
    batch: int = 1,
    blank: tuple[float, np.ndarray] | None = None,
    kept: Kept | None = None,
    upcoming: Box | None = None,
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
    net : NetConfig
        What the network is; where it turns channels with position (`rotary`) it does so from the
        origin of its input, and the embeddings of the region are turned from that of the volume.
    device : torch.device or str
    batch : int
        Patches of equal shape per forward on a CUDA device; halved while memory
        does not suffice. Always 1 elsewhere, so that results do not depend on
        which patches share a batch.
    blank : (float, ndarray of shape (E,)), optional
        A patch whose voxels all have one value, not above the first entry, is
        not sent through the network: its embedding is the second entry.
    kept : Kept, optional
        Outputs that the region before left; afterwards those for `upcoming`.
    upcoming : Box, optional
        The region that will be asked for next with the same `kept`.

    Returns
    -------
    Embedded
    """
    device, kept = torch.device(device), kept or Kept()
    out = torch.zeros((net.embedding_dim, *region.shape), dtype=torch.float32, device=device)
    seams = _Seams(field, region)
    run = used = 0
    source = _Source(torch.from_numpy(image), field.needed(region), blank, kept)
    forward = _Forward(network, net.rotary, device, batch if device.type == "cuda" else 1)
    for patch, output, fresh in forward.run(source, field.patches(region)):
        run += fresh
        used += output is not None
        if output is None:
            assert blank is not None
            value = torch.as_tensor(blank[1], dtype=torch.float32, device=device)
            value = value.reshape(-1, *[1] * len(region.start))
            output = Output(patch.input, value.expand(-1, *patch.input.shape))
        elif upcoming is not None:
            kept.offer(patch, output, field.trusted(patch), upcoming)
        part = patch.support.overlap(region)
        weight = torch.from_numpy(field.weights(patch, part)).to(device)
        out[(slice(None), *part.within(region))].add_(output.over(part) * weight)
        seams.add(patch, output)
    kept.turn()
    return Embedded(out, seams.measured(), run, used)


@dataclass(frozen=True)
class _Source:
    """Where the input, or already the output, of a patch comes from."""

    pixels: torch.Tensor
    box: Box
    """Where the pixels lie in the volume."""
    blank: tuple[float, np.ndarray] | None
    kept: Kept

    def of(self, patch: Patch) -> torch.Tensor | Output | None:
        """Pixels to be run, an output that is there already, or None for a blank patch."""
        if (ready := self.kept.find(patch)) is not None:
            return ready
        pixel = self.pixels[(slice(None), *patch.input.within(self.box))]
        return None if _is_blank(pixel, self.blank) else pixel


Waiting = list[tuple["Patch", "torch.Tensor | Output | None"]]


@dataclass(frozen=True)
class _Forward:
    """The network on patch after patch."""

    network: Embedder
    rotary: tuple[tuple[float, ...], ...]
    device: torch.device
    batch: int

    def run(
        self, source: _Source, patches: Iterator[Patch]
    ) -> Iterator[tuple[Patch, Output | None, bool]]:
        """Each patch with its output, None if blank, and whether it was run; order is kept."""
        waiting: Waiting = []
        for patch in patches:
            waiting.append((patch, source.of(patch)))
            if len(waiting) >= self.batch:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _flush(self, waiting: Waiting) -> Iterator[tuple[Patch, Output | None, bool]]:
        """Run patches of equal shape together."""
        results: dict[int, torch.Tensor] = {}
        shapes: dict[torch.Size, list[tuple[int, torch.Tensor]]] = {}
        for i, (_, found) in enumerate(waiting):
            if isinstance(found, torch.Tensor):
                shapes.setdefault(found.shape, []).append((i, found))
        for members in shapes.values():
            stack = torch.stack([pixel for _, pixel in members])
            for (i, _), result in zip(members, self._outputs(stack), strict=True):
                results[i] = self._placed(result, waiting[i][0])
        for i, (patch, found) in enumerate(waiting):
            if i in results:
                yield patch, Output(patch.input, results[i]), True
            else:
                assert not isinstance(found, torch.Tensor)
                yield patch, found, False

    def _outputs(self, stack: torch.Tensor) -> torch.Tensor:
        """Output (N, E, ...); the batch is halved while the device's memory is short."""
        try:
            with torch.inference_mode():
                return self.network(stack.to(self.device)).contiguous()
        except RuntimeError as error:
            if len(stack) == 1 or not short_of_memory(error):
                raise
        torch.cuda.empty_cache()
        half = len(stack) // 2
        return torch.cat([self._outputs(part) for part in (stack[:half], stack[half:])])

    def _placed(self, output: torch.Tensor, patch: Patch) -> torch.Tensor:
        """What the network turned from the patch's origin, turned from the volume's."""
        if not self.rotary:
            return output
        # A 2D network on a stack knows of the last two axes only.
        start = patch.input.start[-len(self.rotary[0]) :]
        places = [torch.tensor(at, dtype=torch.float64, device=output.device) for at in start]
        with torch.inference_mode():
            return turned(output[None], [list(periods) for periods in self.rotary], places)[0]


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
        self.count = 0
        # On the device until the end: each look at a value would make the host wait for it.
        self.totals: list[torch.Tensor] = []
        self.worst: list[torch.Tensor] = []

    def add(self, patch: Patch, output: Output) -> None:
        """Measure a patch against its lower neighbours and keep what its upper ones need."""
        for axis, grid in enumerate(self.field.axes):
            k = patch.index[axis]
            if k > 0 and (lower := self.strips.pop((axis, patch.index), None)) is not None:
                strip = output.over(self._strip(patch, axis, k))
                distance = (strip - lower).square().sum(0).sqrt()
                self.totals.append(distance.sum(dtype=torch.float64))
                self.worst.append(distance.max())
                self.count += distance.numel()
            if k + 2 < len(grid.edges) and grid.reach:
                box = self._strip(patch, axis, k + 1)
                if min(box.shape) > 0:
                    above = tuple(i + (a == axis) for a, i in enumerate(patch.index))
                    self.strips[axis, above] = output.over(box).clone()

    def measured(self) -> Disagreement:
        """The sum of all comparisons."""
        if not self.count:
            return Disagreement()
        total, worst = torch.stack(self.totals).sum(), torch.stack(self.worst).max()
        return Disagreement(float(total), self.count, float(worst))

    def _strip(self, patch: Patch, axis: int, upper: int) -> Box:
        """Around face `upper` along `axis` where both patches are trusted, inside the region."""
        spans = []
        for a, (grid, k) in enumerate(zip(self.field.axes, patch.index, strict=True)):
            if a == axis:
                spans.append((grid.trusted(upper)[0], grid.trusted(upper - 1)[1]))
            else:
                spans.append((grid.edges[k], grid.edges[k + 1]))
        return make_box(spans).overlap(self.region)
