"""At which size a network should see an image whose scale is not known: the decision.

Networks find objects of the size that they were trained on, and far smaller or larger ones
badly. Where voxel sizes do not tell, a part of the image is segmented before the run, and again
at half or twice the size if its objects look too large or too small::

    zoom   1/8 <- 1/4 <- 1/2 <- 1 ----> 2 ----> 4
             pieces become      small objects,
             whole objects      or dropped ones

In volumes parts of a large object are missed rather than found as pieces, and what counts is how
much of the part belongs to objects, and how usual these are.

`spoco_zoo.segment.scale.looking` does the looking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.segment.review.hints import LARGEST_ZOOM, MUCH, SPECK

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Look", "choose_scale", "choose_scale_of_volume"]

LEAST, MOST = 0.125, LARGEST_ZOOM
"""Zooms that are chosen."""
SMALL = 0.3
"""Objects below this part of the training's median size may be too small."""
ENLARGED = 0.85
"""They are if they are below this part of it where they are enlarged."""
GROWN = 1.35
"""Objects that are larger by this at half the size, each and all together, were pieces before."""
FILLED = 1.5
"""They were if all together they are larger by this, as where most of an object was missed."""
BARE = 0.02
"""Share of voxels that belong to objects, below which there may be larger objects unseen."""
FULLER = 3
"""There are if at a smaller size this many times that share does."""
FEW = 4
"""Fewer objects than this do not speak for another size of a volume: the part may be one."""
SMALL_3D = 0.45
"""Objects of a volume below this part of the training's median size may be too small."""
FARTHEST = 0.2
"""Of a larger part of a volume, 400 voxels a side, more would have to be read than is bearable."""
BETTER = 3.0
"""Times the merit that a smaller size of a volume must have. Of nuclei and cells, drawn or real, at
their own size it was up to 1.7; at twice that of nuclei 20 and more, of two of five cells 5."""


@dataclass(frozen=True)
class Look:
    """What was found in a part of an image at one zoom, in voxels of the network."""

    sizes: tuple[int, ...]
    """Of the objects."""
    dropped: int = 0
    """Regions below the smallest size."""
    dropped_voxels: int = 0
    voxels: int = 1
    """Of the part."""

    @property
    def share(self) -> float:
        """How much of the part belongs to objects."""
        return sum(self.sizes) / self.voxels

    @property
    def kept(self) -> float:
        """How much of the foreground belongs to objects."""
        found = sum(self.sizes)
        return found / (found + self.dropped_voxels) if found else 0.0

    @property
    def count(self) -> int:
        """Objects and dropped regions."""
        return len(self.sizes) + self.dropped

    @property
    def much_dropped(self) -> bool:
        """Whether dropped regions hold too much to be crumbs."""
        return self.dropped_voxels > MUCH * (self.dropped_voxels + sum(self.sizes))

    @property
    def mostly_dropped(self) -> bool:
        """Whether dropped regions hold as much as the objects."""
        return self.dropped_voxels >= sum(self.sizes)

    @property
    def typical(self) -> float:
        """Size below which objects hold a quarter of all their voxels.

        About the median where sizes are alike, and not that of debris between large objects. If
        all are too small to be kept, the mean of those.
        """
        if self.sizes:
            rising = np.sort(self.sizes)
            return float(rising[np.searchsorted(np.cumsum(rising), rising.sum() / 4)])
        return self.dropped_voxels / self.dropped if self.dropped else np.inf

    def are_whole(self, usual: float) -> bool:
        """Whether there are objects, next to none was dropped, and they are no pieces."""
        return bool(self.sizes) and not self.much_dropped and self.typical >= usual


def choose_scale(look: Callable[[float, float], Look], usual: float, largest: float) -> float:
    """Decide at which zoom a network should see an image.

    Parameters
    ----------
    look : callable
        ``look(zoom, reach)`` is what is found at a zoom in a part of the image that is larger,
        the smaller `reach` is: as many voxels of the network as any other at zoom `reach`.
    usual : float
        Median size of the training's objects in voxels.
    largest : float
        Size that but few of them exceed.

    Returns
    -------
    float
        1/8, 1/4, 1/2, 1, 2 or 4.
    """
    half, quarter = look(1 / 2, 1), look(1 / 4, 1 / 2)
    small = half.share < BARE or half.mostly_dropped
    if not (small or half.are_whole(usual) or quarter.are_whole(usual)):
        return 1.0  # objects are of usual sizes, which is told by half the work
    found = look(1, 1)
    if SPECK <= found.typical < SMALL * usual and (zoom := _enlarged(found, look, usual)) > 1:
        return zoom
    zoom = _first_seen(found, look, usual)
    found = look(zoom, zoom)
    while zoom > LEAST:
        half = look(zoom / 2, zoom)
        if not half.are_whole(usual) or not (found.typical > largest or _in_pieces(found, half)):
            break
        found = look(zoom / 2, zoom / 2)
        if not found.are_whole(usual):
            break  # what the smaller part held was not like the rest
        zoom /= 2
    return zoom


def choose_scale_of_volume(look: Callable[[float, float], Look], usual: float) -> float:
    """Decide at which zoom a network should see a volume.

    Parameters
    ----------
    look, usual
        As for `choose_scale`.

    Returns
    -------
    float
        1/8, 1/4, 1/2, 1, 2 or 4.
    """
    found = {zoom: look(zoom, zoom) for zoom in (1.0, 1 / 2, 1 / 4)}
    if _merit(found[1 / 4], usual) > _merit(found[1 / 2], usual):
        found[LEAST] = look(LEAST, FARTHEST)
    best = max(found, key=lambda zoom: _merit(found[zoom], usual))
    if _merit(found[best], usual) > BETTER * _merit(found[1], usual):
        return best
    zoom = 1.0
    while zoom < MOST and SPECK <= found[zoom].typical < SMALL_3D * usual:
        # Of a part that is a little narrower, or eight times the voxels would be too many.
        found[2 * zoom] = look(2 * zoom, 1.5 * zoom)
        if _merit(found[2 * zoom], usual) <= _merit(found[zoom], usual):
            break
        zoom *= 2
    return zoom


def _merit(found: Look, usual: float) -> float:
    """How much of a part belongs to objects, and less the less usual their size is."""
    if len(found.sizes) < FEW or found.share < BARE:
        return 0.0
    ratio = found.typical / usual
    return float(found.share * min(ratio, 1 / ratio) ** 0.5)


def _first_seen(found: Look, look: Callable[[float, float], Look], usual: float) -> float:
    """1, or if next to nothing is found there the largest zoom at which whole objects are.

    Of objects many times too large nothing is found at twice that size either.
    """
    zoom = 1.0
    while found.share < BARE and zoom > LEAST:
        zoom /= 2
        smaller = look(zoom, zoom)
        if smaller.are_whole(usual) and smaller.share > FULLER * found.share:
            return zoom
    return 1.0


def _enlarged(found: Look, look: Callable[[float, float], Look], usual: float) -> float:
    """2, or 4 where that still drops much, if objects are small there, too; else 1."""
    twice = look(2, 1)
    # Of noise less is left when it is smooth.
    if len(twice.sizes) < len(found.sizes) or twice.typical >= ENLARGED * usual:
        return 1.0
    if not twice.much_dropped:
        return 2.0
    four = look(4, 2)
    if four.sizes and not four.much_dropped and four.typical < ENLARGED * usual:
        return MOST
    more = len(twice.sizes) >= 2 * max(len(found.sizes), 1)
    return 2.0 if more and not twice.mostly_dropped else 1.0


def _in_pieces(found: Look, half: Look) -> bool:
    """Whether what is found is parts of objects that are found at half the size."""
    # Small objects that are joined are larger, too, but all together they are not.
    each = 4 * half.typical > GROWN * found.typical
    all_together = half.share > GROWN * found.share
    return (each and all_together) or half.share > FILLED * found.share
