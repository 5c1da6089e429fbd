"""At which size a 2D network should see an image whose scale is not known.

Networks find objects of the size that they were trained on, and far smaller or larger ones
badly. Where voxel sizes do not tell, a part of the image is segmented before the run, and again
at half or twice the size if its objects look too large or too small::

    zoom   1/8 <- 1/4 <- 1/2 <- 1 ----> 2 ----> 4
             pieces become      small objects,
             whole objects      or dropped ones
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spoco_zoo.intensities import normalise, statistics_of
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.ngff import resampled
from spoco_zoo.segment.audit import count_dropped
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.embed import embed
from spoco_zoo.segment.field import make_field
from spoco_zoo.segment.fit import choose_axes, choose_channels
from spoco_zoo.segment.hints import ENOUGH, MUCH
from spoco_zoo.segment.inference import made_ready
from spoco_zoo.segment.normalise import check_finite
from spoco_zoo.segment.plan import asked_region
from spoco_zoo.segment.tiling import choose_tiling

if TYPE_CHECKING:
    from collections.abc import Callable

    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.nets.model import Embedder, Model
    from spoco_zoo.ngff import Image

__all__ = ["Look", "choose_scale", "find_scale", "scale_is_open"]

LEAST, MOST = 0.125, 4.0
"""Zooms that are chosen."""
SPECK = 8
"""Voxels of a region that may be a dropped object; smaller ones are noise."""
SMALL = 0.3
"""Objects below this part of the training's median size may be too small."""
ENLARGED = 0.7
"""They are if they are below this part of it where they are enlarged."""
GROWN = 1.35
"""Objects that are larger by this at half the size, each and all together, were pieces before."""
BARE = 0.02
"""Share of voxels that belong to objects, below which there may be larger objects unseen."""
FULLER = 3
"""There are if at a smaller size this many times that share does."""
EDGE = 384
"""Of the part that is looked at, in voxels of the network at most twice as many: 0.5 GB."""
PLACES = ((2, 2), (1, 1), (3, 3), (1, 3), (3, 1))
"""Where it may lie, in quarters of an image's sides."""


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
        """Median size of the objects; if all are too small to be kept, the mean of those."""
        if self.sizes:
            return float(np.median(self.sizes))
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
    good = four.sizes and not four.much_dropped and four.typical < ENLARGED * usual
    return MOST if good else 1.0


def _in_pieces(found: Look, half: Look) -> bool:
    """Whether what is found is parts of objects that are found at half the size."""
    # Small objects that are joined are larger, too, but all together they are not.
    each = 4 * half.typical > GROWN * found.typical
    all_together = half.share > GROWN * found.share
    return each and all_together


def scale_is_open(image: Image, recipe: ModelRecipe, config: SegmentConfig) -> bool:
    """Whether neither the user nor voxel sizes say at which size the network sees an image.

    Only 2D networks with the clustering of their own embeddings and a background prototype
    are asked: what they drop can be counted.
    """
    known = recipe.voxel_size and (config.voxel_size or image.voxel_size(config.level))
    return (
        config.zoom is None
        and config.rescale
        and not known
        and recipe.net.ndim == 2
        and recipe.object_size is not None
        and recipe.background is not None
        and recipe.clustering.method == "instance"
    )


def find_scale(image: Image, model: Model, config: SegmentConfig) -> tuple[float, str]:
    """Look at the middle of an image, and where that holds little, at other parts.

    On the CPU, so that the decision does not depend on the device of the run.

    Parameters
    ----------
    image : Image
    model : Model
    config : SegmentConfig
        Which level, channel and region; the model's own clustering is used.

    Returns
    -------
    zoom : float
        1 if the image should be taken as it is, or if the question is not open.
    note : str
        What to tell the user if it is another one.
    """
    recipe = model.recipe
    if not scale_is_open(image, recipe, config):
        return 1.0, ""
    assert recipe.object_size is not None
    image = choose_axes(image, recipe)
    channels, _ = choose_channels(image, config.level, config.channel, recipe)
    network = made_ready(model.network, torch.device("cpu"), "float32")
    region = asked_region(image, recipe, config)

    def read(part: Box) -> np.ndarray:
        values = image.read(config.level, 0, channels, part.slices)
        check_finite(values, part, image.uri)
        return values.reshape(len(channels), *part.shape[-2:])

    # Of all parts, though the region may be one of them: by its own one without objects would
    # be all noise. The run measures the whole.
    shape = image.spatial_shape(config.level)
    whole = Box((0,) * len(shape), shape)
    parts = dict.fromkeys(_part(whole, place, EDGE) for place in PLACES)
    statistics = statistics_of(lambda: map(read, parts))._replace(inverted=config.invert)

    def look(zoom: float, part: Box) -> Look:
        size = [max(round(n * zoom), 1) for n in part.shape[-2:]]
        return _look(normalise(resampled(read(part), size), statistics), network, recipe)

    first, best = Look(()), PLACES[0]
    for place in PLACES:
        found = look(1 / 2, _part(region, place, EDGE))
        if found.count > first.count:
            first, best = found, place
        if found.count >= ENOUGH or max(region.shape[-2:]) <= EDGE:
            break
    seen = {(1 / 2, 1.0): first}

    def look_there(zoom: float, reach: float) -> Look:
        if (zoom, reach) not in seen:
            seen[zoom, reach] = look(zoom, _part(region, best, round(EDGE / reach)))
        return seen[zoom, reach]

    zoom = choose_scale(look_there, *recipe.object_size[1:])
    return zoom, _note(zoom)


def _note(zoom: float) -> str:
    if zoom == 1:
        return ""
    side = "smaller" if zoom > 1 else "larger"
    return (
        f"Objects look much {side} than those that the model was trained on: the network sees the "
        f"image at {zoom:g} times its size, and the labels come back at full size. --zoom 1 takes "
        "it as it is."
    )


def _part(region: Box, place: tuple[int, int], edge: int) -> Box:
    """A part of a region's middle plane around a place in quarters of its sides."""
    start = [(a + b) // 2 for a, b in zip(region.start, region.stop, strict=True)]
    stop = [z + 1 for z in start]
    for axis, k in zip((-2, -1), place, strict=True):
        a, b = region.start[axis], region.stop[axis]
        side = min(edge, b - a)
        start[axis] = min(max(a + (b - a) * k // 4 - side // 2, a), b - side)
        stop[axis] = start[axis] + side
    return Box(tuple(start), tuple(stop))


def _look(pixels: np.ndarray, network: Embedder, recipe: ModelRecipe) -> Look:
    """Segment normalised pixels (C, Y, X) as they are."""
    shape = pixels.shape[1:]
    whole = tuple(-(-n // f) * f for n, f in zip(shape, pooling_factor(recipe.net), strict=True))
    tiling = choose_tiling(recipe, shape, (0, 0), patch=whole)
    field = make_field(
        shape,
        tiling.patch,
        tiling.halo,
        factor=tiling.factor,
        radius=tiling.radius,
        blend="linear",
    )
    region = Box((0, 0), shape)
    embeddings = embed(network, pixels, field, region, net=recipe.net).embeddings
    labels = cluster(embeddings, recipe.clustering, recipe.background)
    dropped = count_dropped(embeddings, labels, region.slices, recipe.clustering, recipe.background)
    return Look(tuple(np.bincount(labels.ravel())[1:].tolist()), *dropped, region.size)
