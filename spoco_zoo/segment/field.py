r"""The grid of patches on which a volume's embeddings are made.

One axis::

    volume end |                                             (voxels)
    patch k    [~~~~~~|==================|~~~~~~]            core and halo on both sides
    patch k+1                 [~~~~~~|==================|~~~~~~]
    support k     [...|==================|...]               core and `reach`: what is used
    weight k       /1111111111111111111111\                  ramps centred on the core's faces
               |trim |reach|  core  |reach| trim|            halo = reach + trim

Patches are cut at the ends of the volume and never padded there, so that the
network's own treatment of borders is the same as for the volume in one piece.
Core faces lie at multiples of the pooling factor, half a core away from the
multiples of the core: block faces, which lie there, fall into the middle of
cores and a block touches one patch less per axis.

Nothing here depends on blocks. For a voxel the same patches are summed in the
same order whatever the region asked for, so the field is the same bit for bit
as long as the network gives the same output for the same patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from spoco_zoo.errors import ConfigError
from spoco_zoo.segment.blocks import make_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spoco_zoo.config import Blend
    from spoco_zoo.segment.blocks import Box

__all__ = ["AxisGrid", "Field", "Patch", "blend_reach", "half_core", "make_field"]

STEEPNESS = 2.5
"""Standard deviations of the Gaussian ramp from its centre to its end."""


@dataclass(frozen=True)
class AxisGrid:
    """Patches along one axis of the volume."""

    size: int
    """Voxels of the volume."""
    halo: int
    reach: int
    """Output that is trusted beyond the core."""
    blend: Blend
    edges: tuple[int, ...]
    """Core k is ``edges[k]:edges[k + 1]``."""

    def patch(self, k: int) -> tuple[int, int]:
        """Input of patch `k`: start (inclusive) and stop (exclusive)."""
        return self._grown(k, self.halo)

    def trusted(self, k: int) -> tuple[int, int]:
        """Core and reach of patch `k`, whatever the blend."""
        return self._grown(k, self.reach)

    def support(self, k: int) -> tuple[int, int]:
        """Where patch `k` has weight."""
        return self._grown(k, 0 if self.blend == "crop" else self.reach)

    def touching(self, start: int, stop: int) -> range:
        """Patches with weight in ``start:stop``."""
        reach = 0 if self.blend == "crop" else self.reach
        inner = self.edges[1:-1]
        first = int(np.searchsorted(inner, start - reach, side="right"))
        last = int(np.searchsorted(inner, stop + reach, side="left"))
        return range(first, last + 1)

    def weights(self, k: int) -> np.ndarray:
        """Weight of patch `k` over its support, float32; the weights at a voxel sum to one."""
        x = np.arange(*self.support(k)) + 0.5
        total = sum(self._raw(j, x) for j in self.touching(*self.support(k)))
        return np.asarray(self._raw(k, x) / total, np.float32)

    def _grown(self, k: int, margin: int) -> tuple[int, int]:
        return max(self.edges[k] - margin, 0), min(self.edges[k + 1] + margin, self.size)

    def _raw(self, k: int, x: np.ndarray) -> np.ndarray:
        """Product of the rising and the falling ramp of patch `k`, not normalised."""
        weight = np.ones(len(x))
        if k > 0:
            weight *= self._ramp(x - self.edges[k])
        if k < len(self.edges) - 2:
            weight *= self._ramp(self.edges[k + 1] - x)
        return weight

    def _ramp(self, distance: np.ndarray) -> np.ndarray:
        """From 0 to 1 over `reach` voxels on both sides of a face; a step without reach."""
        if self.blend == "crop" or self.reach == 0:
            return (distance > 0).astype(float)
        u = distance / self.reach
        inside = np.abs(u) < 1
        smooth = (u + 1) / 2 if self.blend == "linear" else ndtr(STEEPNESS * u)
        return np.where(inside, smooth, u > 0)


@dataclass(frozen=True)
class Patch:
    """One patch of the grid; boxes are in voxels of the volume."""

    index: tuple[int, ...]
    input: Box
    support: Box


@dataclass(frozen=True)
class Field:
    """The grid of patches over a volume ([Z,] Y, X)."""

    axes: tuple[AxisGrid, ...]

    def patches(self, region: Box) -> Iterator[Patch]:
        """Patches with weight in `region`, in C order of the grid."""
        spans = [a.touching(*s) for a, s in zip(self.axes, _spans(region), strict=True)]
        for index in product(*spans):
            inputs = [a.patch(k) for a, k in zip(self.axes, index, strict=True)]
            supports = [a.support(k) for a, k in zip(self.axes, index, strict=True)]
            yield Patch(index, make_box(inputs), make_box(supports))

    def trusted(self, patch: Patch) -> Box:
        """Where the output of a patch is used or compared."""
        return make_box([a.trusted(k) for a, k in zip(self.axes, patch.index, strict=True)])

    def needed(self, region: Box) -> Box:
        """The part of the image that the embeddings of `region` depend on."""
        spans = [a.touching(*s) for a, s in zip(self.axes, _spans(region), strict=True)]
        return make_box(
            [
                (a.patch(span[0])[0], a.patch(span[-1])[1])
                for a, span in zip(self.axes, spans, strict=True)
            ]
        )

    def weights(self, patch: Patch, part: Box) -> np.ndarray:
        """Weights of a patch over `part` of its support, float32 ([Z,] Y, X)."""
        weight = np.ones((), np.float32)
        where = part.within(patch.support)
        for axis, k, keep in zip(self.axes, patch.index, where, strict=True):
            weight = np.multiply.outer(weight, axis.weights(k)[keep])
        return weight


def make_field(
    shape: Sequence[int],
    patch: Sequence[int],
    halo: Sequence[int],
    *,
    factor: Sequence[int],
    radius: Sequence[int],
    blend: Blend,
) -> Field:
    """The patch grid of a volume.

    Parameters
    ----------
    shape : sequence of int
        The volume ([Z,] Y, X); not the part of it that is segmented.
    patch, halo : sequence of int
        Input of the network, and the part of it on each side that is context.
        Multiples of `factor`. A volume that fits one patch along an axis has
        one patch along it, without halo.
    factor, radius : sequence of int
        Pooling factor and receptive-field radius of the network.
    blend : {"crop", "linear", "gaussian"}
        Weights where outputs of neighbouring patches overlap.

    Raises
    ------
    ConfigError
        If patch or halo is no multiple of the factor, or no core remains.
    """
    for name, values in (("patch", patch), ("halo", halo)):
        if any(v % f for v, f in zip(values, factor, strict=True)):
            higher = tuple(-(-v // f) * f for v, f in zip(values, factor, strict=True))
            raise ConfigError(
                f"{name} must be a multiple of the network's pooling factor {tuple(factor)}",
                str(tuple(values)),
                f"Use --{name} {','.join(map(str, higher))}.",
            )
    axes = []
    for n, p, h, f, r in zip(shape, patch, halo, factor, radius, strict=True):
        if n > p and p - 2 * h < f:
            raise ConfigError(
                "a patch must be larger than twice its halo",
                f"patch {tuple(patch)} with halo {tuple(halo)}",
                "Use a larger --patch or a smaller --halo.",
            )
        axes.append(AxisGrid(n, h, blend_reach(h, r), blend, _edges(n, p, h, f)))
    return Field(tuple(axes))


def blend_reach(halo: int, radius: int) -> int:
    """Voxels of a halo that are trusted: those that see no border, or half of it if none does."""
    return halo - (radius if halo >= radius else halo // 2)


def half_core(core: int, factor: int) -> int:
    """From a block face to the nearest core face: half a core, in multiples of the factor."""
    return core // 2 // factor * factor


def _edges(size: int, patch: int, halo: int, factor: int) -> tuple[int, ...]:
    """Core faces along one axis, ends of the volume included."""
    if size <= patch:
        return (0, size)
    core = (patch - 2 * halo) // factor * factor
    faces = list(range(half_core(core, factor) or core, size, core))
    # The last core has no halo on its far side, so it may be longer by a halo.
    if len(faces) > 1 and size - faces[-1] <= halo:
        faces.pop()
    return (0, *faces, size)


def _spans(box: Box) -> list[tuple[int, int]]:
    return list(zip(box.start, box.stop, strict=True))
