"""Embeddings that stay where they are: read slab by slab, on any device, in any float type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from spoco_zoo.errors import DataError
from spoco_zoo.segment.cluster import portable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["TensorField", "check_finite", "local_field"]


class TensorField(portable.Field):
    """Embeddings as a tensor; only masks and single voxels are copied to the host.

    Parameters
    ----------
    embeddings : Tensor
        Any float dtype, (E, [Z,] Y, X), on any device.
    """

    def __init__(self, embeddings: Tensor) -> None:
        self.values = embeddings.detach().contiguous()
        self.dim, self.shape = len(self.values), tuple(self.values.shape[1:])

    def foreground(
        self, slab: slice, background: Sequence[float] | None, radius: float
    ) -> NDArray[np.bool_]:
        """Voxels of a slab that are farther than `radius` from the background, bool."""
        if background is None:
            return np.ones((slab.stop - slab.start, *self.shape[1:]), bool)
        square = torch.zeros((), device=self.values.device)
        for channel, origin in zip(self.values, background, strict=True):
            square = square + (channel[slab].float() - origin) ** 2
        return np.asarray((square > radius**2).cpu().numpy())

    def foreground_and_seeds(
        self,
        slab: slice,
        background: Sequence[float] | None,
        radius: float,
        smoothness: float,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Two bool arrays of a slab: foreground, and foreground that can be a seed."""
        low, high = max(slab.start - 1, 0), min(slab.stop + 1, self.shape[0])
        part = self.values[:, low:high].float()
        if background is not None:
            origin = torch.tensor(background, device=part.device)
            part = part - origin.view(-1, *(1,) * len(self.shape))
        square = (part * part).sum(0)
        spread = box_mean(square[None])[0] - (box_mean(part) ** 2).sum(0)
        inner = slice(slab.start - low, slab.stop - low)
        inside = torch.ones_like(square, dtype=torch.bool)
        if background is not None:
            inside = square > radius**2
        smooth = inside & (spread <= smoothness**2)
        return inside[inner].cpu().numpy(), smooth[inner].cpu().numpy()

    def rows(self, where: NDArray[np.integer]) -> NDArray[np.float32]:
        """Embeddings of voxels that are given by flat index, float32 (n, E)."""
        return np.asarray(self.tensor_rows(where).cpu().numpy())

    def steps(self, slab: slice, axis: int, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Distances between neighbours along an axis, where `wanted` (that axis first)."""
        part = self.values[:, slab].movedim(axis + 1, 1)
        square = torch.zeros(wanted.shape, device=part.device)
        for channel in part:
            square += (channel[1:].float() - channel[:-1].float()) ** 2
        chosen = torch.from_numpy(np.ascontiguousarray(wanted)).to(part.device)
        return np.asarray(square[chosen].sqrt().cpu().numpy())

    def tensor_rows(self, where: NDArray[np.integer]) -> Tensor:
        """The same on the device of the embeddings."""
        index = torch.from_numpy(np.asarray(where, np.int64)).to(self.values.device)
        rows: Tensor = self.values.flatten(1)[:, index].T.float().contiguous()
        return rows


def box_mean(part: Tensor) -> Tensor:
    """Mean over a box of 3 voxels, the border repeated, of float32 (C, [Z,] Y, X)."""
    ndim = part.ndim - 1
    padded = functional.pad(part[None], (1,) * (2 * ndim), mode="replicate")
    pool = functional.avg_pool2d if ndim == 2 else functional.avg_pool3d
    mean: Tensor = pool(padded, 3, stride=1)
    return mean[0]


def local_field(embeddings: Tensor) -> portable.Field:
    """What reads these embeddings fastest: numpy in main memory, torch elsewhere."""
    if embeddings.device.type == "cpu" and embeddings.dtype != torch.bfloat16:
        return portable.Field(embeddings.detach().numpy())
    return TensorField(embeddings)


def check_finite(embeddings: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    DataError
        With the number of voxel values that are not finite.
    """
    # Its extremes are NaN or infinite if any value is; to count them takes ten times as long.
    if not embeddings.numel() or torch.isfinite(torch.stack(torch.aminmax(embeddings))).all():
        return
    bad = 0
    for slab in portable.slabs(tuple(embeddings.shape[1:])):
        bad += int((~torch.isfinite(embeddings[:, slab])).sum())
    raise DataError(
        "embeddings must be finite",
        f"{bad} NaN or infinite values",
        "Look for NaN in the image; if there is none, train the model again.",
    )
