"""The matches of a face that could as well have gone the other way, for people to look at.

Every decision has a margin: overlap against the least that is asked for, distance
between mean embeddings against the most that is allowed. A doubt of 1 lies on the
border, 0 far from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spoco_zoo.replacing import replacing
from spoco_zoo.segment.slabs import block_file, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spoco_zoo.segment.blocks import BlockGrid
    from spoco_zoo.segment.stitch import Match, Rule, Side

__all__ = ["Doubt", "find_doubts", "save_views", "worst_doubts"]

Verdict = Literal["joined", "overlap", "embedding"]
VERDICTS: tuple[Verdict, ...] = ("joined", "overlap", "embedding")

LEAST = 0.7
"""Decisions farther from the border are not doubtful."""
PER_FACE, MOST = 2, 12
"""Doubts kept per face, and per verdict in all: memory does not grow with the faces."""
PICTURED, AROUND = 8, 40
"""Doubts to be shown, and voxels around each on every side."""


@dataclass(frozen=True)
class Doubt:
    """One pair of objects of two neighbouring blocks, and what was decided."""

    verdict: Verdict
    """Joined, or refused for too little overlap, or for embeddings that differ."""
    doubt: float
    iou: float
    distance: float
    """Of the mean embeddings, in units of the embedding space."""
    block: int
    axis: int
    """The face is the block's upper one along this axis."""
    face: int
    """First voxel above the face along the axis."""
    time: int
    below: int
    """Local id in the block."""
    above: int
    """Local id in its neighbour."""
    voxel: tuple[int, ...]
    """A voxel of the slab that both objects hold ([Z,] Y, X), in voxels of the segmented region."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Doubt:
        """The reverse of `to_dict`."""
        return cls(**{**values, "voxel": tuple(values["voxel"])})


def find_doubts(
    low: Side, high: Side, found: Match, rule: Rule, grid: BlockGrid, block: int, axis: int
) -> list[Doubt]:
    """The most doubtful decisions of one face.

    Parameters
    ----------
    low, high : Side
        Views of the slab by the block below and above the face.
    found : Match
        What was decided.
    rule : Rule
    grid : BlockGrid
    block, axis : int
        The face is the block's upper one along the axis.
    """
    start, face = grid.slab(block, axis).start, grid.core(block).stop[axis]
    judged = found.judged
    nearness = np.minimum(judged.distance, rule.distance) / np.maximum(
        np.maximum(judged.distance, rule.distance), 1e-9
    )
    overlap = np.minimum(judged.iou, rule.iou) / np.maximum(np.maximum(judged.iou, rule.iou), 1e-9)
    scores = np.choose(judged.verdict, [np.maximum(nearness, overlap), overlap, nearness])
    doubts = []
    for code, verdict in enumerate(VERDICTS):
        chosen = np.flatnonzero((judged.verdict == code) & (scores >= LEAST))
        for i in chosen[np.argsort(-scores[chosen], kind="stable")][:PER_FACE]:
            a, b = int(low.ids[judged.a[i]]), int(high.ids[judged.b[i]])
            voxels = np.argwhere((low.labels == a) & (high.labels == b))
            middle = voxels[np.abs(voxels - voxels.mean(0)).sum(1).argmin()]
            place = tuple(int(v) + s for v, s in zip(middle, start, strict=True))
            values = float(scores[i]), float(judged.iou[i]), float(judged.distance[i])
            doubts.append(Doubt(verdict, *values, block, axis, face, grid.time(block), a, b, place))
    return doubts


def worst_doubts(doubts: Sequence[Doubt]) -> list[Doubt]:
    """The `MOST` most doubtful of each verdict, in an order that does not depend on theirs."""
    order = sorted(doubts, key=lambda d: (-d.doubt, d.block, d.axis, d.below, d.above))
    return [d for v in VERDICTS for d in [d for d in order if d.verdict == v][:MOST]]


def save_views(path: Path, folder: Path, grid: BlockGrid, doubts: Sequence[Doubt]) -> None:
    """Keep what the two blocks see around each of the first `PICTURED` doubts.

    The arrays ``below_i`` and ``above_i`` are planes (Y, X) of the slab, uint8: 0
    nothing, 1 another object, 2 the object in question; ``corner_i`` is their first
    voxel (Y, X) in the segmented region.

    Raises
    ------
    StoreError
        If what a block has staged is gone or damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    for i, doubt in enumerate(doubts[:PICTURED]):
        number = grid.above(doubt.block, doubt.axis)
        assert number is not None
        slab = grid.slab(doubt.block, doubt.axis)
        inner = [v - s for v, s in zip(doubt.voxel, slab.start, strict=True)]
        low = [max(v - AROUND, 0) for v in inner[-2:]]
        window = tuple(slice(a, v + AROUND) for a, v in zip(low, inner[-2:], strict=True))
        arrays[f"corner_{i}"] = np.add(low, slab.start[-2:])
        for block, side, one, name in (
            (doubt.block, "above", doubt.below, "below"),
            (number, "below", doubt.above, "above"),
        ):
            labels = read_labels(block_file(folder, block), doubt.axis, side)
            plane = labels[tuple(inner[:-2])][window]
            arrays[f"{name}_{i}"] = np.where(plane == one, 2, plane > 0).astype(np.uint8)
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
