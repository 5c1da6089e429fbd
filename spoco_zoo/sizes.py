"""Sizes of voxels, and of objects made of them: compared, converted, put into words."""

from __future__ import annotations

from math import gamma, pi
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FAR", "are_near", "bytes_text", "equivalent_diameter", "size_text"]

FAR = 1.5
"""Factor between voxel sizes beyond which objects look to a network as if of another size."""


def are_near(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two voxel sizes are within `FAR` of each other along every axis."""
    return all(1 / FAR <= x / y <= FAR for x, y in zip(a, b, strict=True))


def equivalent_diameter(extent: Any, ndim: int) -> Any:
    """Diameter of the disc or ball of a given area or volume.

    Parameters
    ----------
    extent : float or array of float
        Area or volume.
    ndim : int
        2 or 3.

    Returns
    -------
    float or array of float
        In the unit whose square or cube `extent` has.

    Examples
    --------
    >>> round(equivalent_diameter(3.14159, 2), 3), round(equivalent_diameter(0.5236, 3), 3)
    (2.0, 1.0)
    """
    unit_ball = pi ** (ndim / 2) / gamma(ndim / 2 + 1)
    return 2 * (extent / unit_ball) ** (1 / ndim)


def size_text(size: Sequence[float]) -> str:
    """Numbers along the axes, as in ``0.5 x 0.2 x 0.2``."""
    return " x ".join(f"{value:.4g}" for value in size)


def bytes_text(count: float) -> str:
    """A count of bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
