"""Labels from the network's voxel size back to the image's own.

Every voxel takes the label of the network voxel that its centre lies in or at, so that
no new label arises and neighbours in different write units fit together. Where the
network's voxels are the finer ones, some are taken by none: what lies in those alone
is no object, and gets no id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.segment.output.pyramid import AxisStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.segment.blocks import Box
    from spoco_zoo.segment.plan import Plan

__all__ = ["Stretch", "resize_steps", "shown_voxels"]


@dataclass(frozen=True)
class Stretch(AxisStep):
    """From a part of the network's axis (`fine`) to a part of the image's (`coarse`).

    ::

        image    |--|--|--|[-|--|--|--|--]|--|     whole: all of it, coarse: the part [ ]
        network  |----|----|[---|----|----]---|    whole_fine, fine
    """

    first: int = 0
    """Start of the part in the image."""
    first_fine: int = 0
    """Start of the part in the view of the network."""
    whole: int = 1
    whole_fine: int = 1

    def picks(self, start: int, stop: int) -> np.ndarray:
        """The network voxel under the centre of each image voxel.

        Where that lies between two, as at twice the size, they are taken in turns: always the
        same one would move all objects by a quarter of a voxel.
        """
        # Twice the centre, in whole numbers: no rounding, whatever the size.
        place = self.first + np.arange(start, stop, dtype=np.int64)
        under, rest = np.divmod((2 * place + 1) * self.whole_fine, 2 * self.whole)
        under -= (rest == 0) & (place % 2 == 0)
        return np.asarray(np.clip(under - self.first_fine, 0, self.fine - 1))


def shown_voxels(steps: Sequence[AxisStep], core: Box) -> tuple[np.ndarray, ...]:
    """The voxels of a block's core that any voxel of the label takes, per axis.

    Parameters
    ----------
    steps : sequence of AxisStep
        From `resize_steps`, of the spatial axes.
    core : Box
        In voxels of the network; the result counts from its start.
    """
    picks = [np.unique(step.picks(0, step.coarse)) for step in steps]
    return tuple(
        one[(one >= a) & (one < b)] - a
        for one, a, b in zip(picks, core.start, core.stop, strict=True)
    )


def resize_steps(plan: Plan, lead: int) -> tuple[AxisStep, ...]:
    """How each axis of the label is filled from the labels at the network's voxel size.

    Parameters
    ----------
    plan : Plan
    lead : int
        Axes before the spatial ones, which are kept as they are.
    """
    shape = plan.source.spatial_shape(plan.config.level)
    rows = zip(
        plan.region.start,
        plan.region.shape,
        plan.source_region.start,
        plan.source_region.shape,
        shape,
        plan.image.spatial_shape(plan.level),
        strict=True,
    )
    steps = [
        AxisStep(size, size, 1)
        if whole == whole_fine
        else Stretch(fine, size, None, first, first_fine, whole, whole_fine)
        for first_fine, fine, first, size, whole, whole_fine in rows
    ]
    return (*(AxisStep(plan.grid.times, plan.grid.times, 1),) * lead, *steps)
