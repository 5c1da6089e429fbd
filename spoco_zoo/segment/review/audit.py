"""The run's own measurement of its seams and objects, for the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from scipy import ndimage

from spoco_zoo.segment.cluster.meanshift import mark_foreground
from spoco_zoo.segment.cluster.tensor_field import TensorField

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.segment.stitch import Side

__all__ = [
    "BlockTally",
    "FaceTally",
    "SizeTally",
    "count_cut",
    "count_dropped",
    "count_per_block",
    "throughput",
]


class _Tally:
    """Numbers that add up field by field."""

    LARGEST: ClassVar[tuple[str, ...]] = ()
    """Fields of which the larger one stays."""

    def __add__(self, other: Self) -> Self:
        # A run that goes on does this for every line of its ledger.
        mine, others = vars(self), vars(other)
        merged = {name: value + others[name] for name, value in mine.items()}
        largest = {name: max(mine[name], others[name]) for name in self.LARGEST}
        return type(self)(**merged | largest)


@dataclass(frozen=True)
class BlockTally(_Tally):
    """Sums over blocks."""

    LARGEST = ("disagreement_worst",)

    blocks: int = 0
    local_objects: int = 0
    """Objects with voxels in the core of their block."""
    voxels: int = 0
    """Clustered voxels, overlaps included."""
    patches: int = 0
    """Patches that went through the network."""
    read_seconds: float = 0.0
    embed_seconds: float = 0.0
    cluster_seconds: float = 0.0
    write_seconds: float = 0.0
    disagreement_total: float = 0.0
    disagreement_count: int = 0
    disagreement_worst: float = 0.0
    """Largest distance between the outputs of two patches at a voxel that both are trusted at."""
    kept_voxels: int = 0
    """Voxels of cores that belong to objects; see `count_dropped`."""
    dropped: int = 0
    """Connected parts of the foreground of cores that belong to no object."""
    dropped_voxels: int = 0

    def summary(self, delta_var: float) -> dict[str, Any]:
        """Plain values; patch disagreement in units of `delta_var`, None if never measured."""
        values = asdict(self)
        total = values.pop("disagreement_total")
        count, worst = values.pop("disagreement_count"), values.pop("disagreement_worst")
        values["patch_disagreement_mean"] = total / count / delta_var if count else None
        values["patch_disagreement_max"] = worst / delta_var if count else None
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def count_dropped(
    field: torch.Tensor,
    labels: np.ndarray,
    core: tuple[slice, ...],
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
) -> tuple[int, int]:
    """What the clustering left out of a block's core: too small, or of too low a score.

    The clustering gives every voxel that is no background to an object, and drops objects last:
    foreground without a label was dropped.

    Parameters
    ----------
    field : Tensor, shape (E, [Z,] Y, X)
    labels : ndarray, shape ([Z,] Y, X)
    core : tuple of slice
    config : ClusteringConfig
        Other methods than ``instance`` leave voxels out for other reasons: nothing is counted.
    background : tuple of float or None
        Without it nothing is dropped.

    Returns
    -------
    regions, voxels : int
    """
    if background is None or config.method != "instance":
        return 0, 0
    foreground = mark_foreground(TensorField(field), config, background)
    left = (foreground[core] > 0) & (labels[core] == 0)
    voxels = int(left.sum())
    return (int(ndimage.label(left)[1]), voxels) if voxels else (0, 0)


@dataclass(frozen=True)
class FaceTally(_Tally):
    """Sums over block faces."""

    faces: int = 0
    accepted: int = 0
    """Pairs of local objects that are one object."""
    refused_overlap: int = 0
    """Best partners that overlap too little, or would join objects that touch."""
    refused_embedding: int = 0
    """Pairs that overlap enough but whose embeddings differ."""
    cut: int = 0
    """Objects that a block sees passing its face and that have no partner beyond it."""


def count_cut(below: Side, above: Side, pairs: np.ndarray, axis: int, face: int) -> int:
    """Objects that pass a face in their own block's view but have no partner.

    Parameters
    ----------
    below, above : Side
        Views of the slab.
    pairs : int64, shape (m, 2)
        The accepted matches.
    axis, face : int
        The face lies between the layers ``face - 1`` and ``face`` of the slab.

    Returns
    -------
    int
    """
    total = 0
    for side, partnered in ((below, pairs[:, 0]), (above, pairs[:, 1])):
        layers = np.moveaxis(side.labels, axis, 0)
        passing = np.unique(layers[face - 1][layers[face - 1] == layers[face]])
        total += int((~np.isin(passing[passing > 0], partnered)).sum())
    return total


def count_per_block(owned: np.ndarray) -> dict[str, Any]:
    """How many objects blocks hold in their cores.

    Parameters
    ----------
    owned : int64, shape (blocks,)
        Objects of each block; -1 for a block without result.

    Returns
    -------
    dict
        Least, median, most, blocks without any, and a histogram whose bins are as
        in `SizeTally`.
    """
    found = owned[owned >= 0]
    if not len(found):
        return {"least": 0, "median": 0, "most": 0, "empty": 0, "histogram": {}}
    return {
        "least": int(found.min()),
        "median": float(np.median(found)),
        "most": int(found.max()),
        "empty": int((found == 0).sum()),
        "histogram": _in_powers_of_two(_octaves(found[found > 0])),
    }


def throughput(voxels: int, seconds: Mapping[str, float]) -> dict[str, float]:
    """Voxels per second, all in all and of the blocks alone.

    Parameters
    ----------
    voxels : int
        Segmented voxels, without those that an earlier process did.
    seconds : mapping of str to float
        Time of each phase in this process.
    """
    total, blocks = sum(seconds.values()), seconds["blocks"]
    return {
        "voxels_per_second": round(voxels / max(total, 1e-9), 1),
        "block_voxels_per_second": round(voxels / max(blocks, 1e-9), 1),
    }


@dataclass
class SizeTally:
    """Histogram of object sizes in powers of two; bin b counts sizes 2**b to 2**(b + 1) - 1."""

    bins: Counter[int] = field(default_factory=Counter)
    objects: int = 0
    voxels: int = 0
    smallest: int = 0
    largest: int = 0

    def add(self, sizes: np.ndarray) -> None:
        """Add the voxel counts of whole objects, positive integers."""
        if not len(sizes):
            return
        self.bins.update(_octaves(sizes))
        self.smallest = min(self.smallest or int(sizes.min()), int(sizes.min()))
        self.largest = max(self.largest, int(sizes.max()))
        self.objects += len(sizes)
        self.voxels += int(sizes.sum())

    def summary(self) -> dict[str, Any]:
        """Plain values; the histogram maps each bin's lower end to its count."""
        return {
            "objects": self.objects,
            "voxels": self.voxels,
            "smallest": self.smallest,
            "largest": self.largest,
            "histogram": _in_powers_of_two(self.bins),
        }


def _octaves(values: np.ndarray) -> dict[int, int]:
    """How many of some positive integers lie in 2**b to 2**(b + 1) - 1, by b."""
    bins, counts = np.unique(np.log2(values).astype(int), return_counts=True)
    return dict(zip(bins.tolist(), counts.tolist(), strict=True))


def _in_powers_of_two(bins: Mapping[int, int]) -> dict[str, int]:
    """Counts by the lower ends of their bins, smallest first, as JSON has them."""
    return {str(2**b): bins[b] for b in sorted(bins)}
