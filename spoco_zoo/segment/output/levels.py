"""The arrays that final labels are written to."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from spoco_zoo import ngff
from spoco_zoo.segment.output.target import TiffTarget
from spoco_zoo.segment.slabs import damaged

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from spoco_zoo.ngff import LabelTarget
    from spoco_zoo.segment.plan import Plan

__all__ = ["create_final", "create_levels", "open_levels", "write_tiff"]


def create_levels(plan: Plan, dtype: np.dtype[Any], *, keep: bool) -> list[Any]:
    """Create the label's arrays.

    Parameters
    ----------
    plan : Plan
    dtype : dtype
        Of the final ids.
    keep : bool
        Whether what an earlier process of this run began stays.

    Returns
    -------
    list of array
        Finest level first. A TIFF has one, a scratch array in the run folder that becomes the file
        in the end.
    """
    target = plan.target
    if isinstance(target, TiffTarget):
        path = plan.folder / f"final-{dtype.name}.zarr"
        if not keep:
            shutil.rmtree(path, ignore_errors=True)
        return [_staged(path, target.shape, plan, dtype)]
    ngff.create_label(target, dtype=dtype, shard=plan.grid.block, chunk=plan.chunk, keep=keep)
    return open_levels(target)


def open_levels(target: LabelTarget) -> list[Any]:
    """The arrays of a label that was begun, finest level first."""
    return [ngff.open_label_array(target, i) for i in range(len(target.levels))]


def write_tiff(plan: Plan, level: Any, highest: int) -> None:
    """Write a finished level with ids up to `highest` to the file that was asked for."""
    target, source, config = plan.target, plan.source, plan.config
    try:
        ngff.write_label_tiff(
            target.path,
            level,
            config.voxel_size or source.known_sizes(config.level),
            axes="".join(target.axes).upper(),
            interval=source.interval,
            highest=highest,
        )
    except ValueError as error:  # a checksum of Zarr
        raise damaged(error, level.store_path) from error


def create_final(plan: Plan, levels: list[Any], dtype: np.dtype[Any], *, keep: bool) -> Any:
    """What blocks' labels are written to: the finest level, or an array at the network's size."""
    if not plan.rescaled:
        return levels[0]
    path = plan.folder / f"network-{dtype.name}.zarr"
    if not keep:
        shutil.rmtree(path, ignore_errors=True)
    lead = levels[0].shape[: levels[0].ndim - len(plan.grid.shape)]
    return _staged(path, (*lead, *plan.grid.shape), plan, dtype)


def _staged(path: Path, shape: tuple[int, ...], plan: Plan, dtype: np.dtype[Any]) -> Any:
    """An array of final ids in the run folder, a block a shard."""
    lead = (1,) * (len(shape) - len(plan.grid.shape))
    chunk, shard = (*lead, *plan.chunk), (*lead, *plan.grid.block)
    return ngff.scratch_array(path, shape, dtype, chunk, shard)
