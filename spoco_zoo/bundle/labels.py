"""How far the labels of a network with a head may be from those of the travelling script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spoco_zoo.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LABEL_TOLERANCE", "check_labels"]

LABEL_TOLERANCE = 1e-3
"""Largest part of the voxels whose label may differ between script, network and formats.

Measured are none; a sum that is rounded the other way can move a voxel at a threshold.
"""


def check_labels(result: NDArray[np.int32], expected: NDArray[np.int32], what: str) -> float:
    """Part of the voxels whose labels differ.

    Raises
    ------
    ExportError
        If it is more than `LABEL_TOLERANCE`.
    """
    differing = float((result != expected).mean()) if result.shape == expected.shape else 1.0
    if differing > LABEL_TOLERANCE:
        raise ExportError(
            f"labels of {what} differ from those of the script in {differing:.2%} of the voxels. "
            "Leave --with-labels out."
        )
    return differing
