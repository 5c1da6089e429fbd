"""Parts of an image are looked at, to find the scale at which a network should see it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from spoco_zoo.errors import RemoteError, StoreError
from spoco_zoo.intensities import divisor, normalise, statistics_of
from spoco_zoo.nets.receptive import pooling_factor, round_up
from spoco_zoo.ngff import resampled
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.channels import choose_axes, choose_channels
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.embed import embed
from spoco_zoo.segment.network.inference import made_ready
from spoco_zoo.segment.normalise import check_finite
from spoco_zoo.segment.region import asked_region
from spoco_zoo.segment.review.audit import count_dropped
from spoco_zoo.segment.review.hints import ENOUGH, hint_thin
from spoco_zoo.segment.scale.decision import Look, choose_scale, choose_scale_of_volume
from spoco_zoo.segment.scale.fit import stated_size
from spoco_zoo.segment.tiling import choose_tiling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.intensities import Statistics
    from spoco_zoo.nets.model import Embedder, Model
    from spoco_zoo.ngff import Image

__all__ = [
    "EDGE",
    "Shown",
    "find_scale",
    "middle_part",
    "part_around",
    "places",
    "scale_is_open",
    "shown_as_asked",
    "shown_channel",
]

EDGE = 384
"""Of the part that is looked at, in voxels of the network at most twice as many: 0.5 GB."""
EDGES = {2: EDGE, 3: 80}
"""The same by axes of the network: of a volume twice as many are 4 million voxels."""
UNREAD = "A part of the image cannot be read: the network sees it at its own size (--zoom)."
QUARTERS = ((2, 2), (1, 1), (3, 3), (1, 3), (3, 1))
"""Where its centre may lie (Y, X), in quarters of an image's sides."""
ROUGH = 2**13
"""Values of a part that tell how light it is."""
MOST_READ = 2**26
"""Pixels that are read in search of a part that holds anything."""
KEPT = 2**21
"""Voxels of the largest part that is kept: it may be on a server, and is looked at again."""


def scale_is_open(image: Image, recipe: ModelRecipe, config: SegmentConfig) -> bool:
    """Whether neither the user nor voxel sizes say at which size the network sees an image.

    Only networks with the clustering of their own embeddings are asked, in 2D with a background
    prototype: what they drop can be counted. Objects of a volume that is thinner than they are tell
    nothing.
    """
    known = recipe.voxel_size and (config.voxel_size or stated_size(image, config.level, recipe))
    return (
        config.zoom is None
        and config.rescale
        and not known
        and recipe.object_size is not None
        and (recipe.background is not None or recipe.net.ndim == 3)
        and recipe.clustering.method == "instance"
        and not hint_thin(asked_region(choose_axes(image, recipe), recipe, config).shape, recipe)
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
    try:
        zoom = _found_scale(image, model, config)
    except RemoteError:
        raise
    except StoreError:  # the blocks that hold it will say so
        return 1.0, UNREAD
    return zoom, _note(zoom)


def _found_scale(image: Image, model: Model, config: SegmentConfig) -> float:
    """The zoom that `find_scale` decides for."""
    recipe = model.recipe
    assert recipe.object_size is not None
    image = choose_axes(image, recipe)
    shown = shown_as_asked(image, model, config)
    region = asked_region(image, recipe, config)
    ndim = recipe.net.ndim
    edge = EDGES[ndim]
    centres = places(region, ndim)
    first, best = Look(()), centres[0]
    for centre in centres if shown.statistics.std else ():
        found = shown.look(1 / 2, part_around(region, centre, edge))
        if found.count > first.count:
            first, best = found, centre
        if found.count >= ENOUGH or max(region.shape[-ndim:]) <= edge:
            break
    if not first.count:
        # As in the gaps of a mosaic: what is looked at must hold something, or it tells nothing.
        best = *best[:-2], *_lightest(image, config.level, shown.channels, region)
        shown = replace(shown, centres=[*shown.centres, best])
        if not shown.statistics.std:
            return 1.0  # of one value, and next to the faces networks may see things in that, too
        first = shown.look(1 / 2, part_around(region, best, edge))
    seen = {(1 / 2, 1.0): first}

    def look(zoom: float, reach: float) -> Look:
        if (zoom, reach) not in seen:
            seen[zoom, reach] = shown.look(zoom, part_around(region, best, round(edge / reach)))
        return seen[zoom, reach]

    if ndim == 3:
        return choose_scale_of_volume(look, recipe.object_size[1])
    return choose_scale(look, *recipe.object_size[1:])


@dataclass(frozen=True)
class Shown:
    """An image as a network on the CPU is shown parts of it."""

    image: Image
    level: int
    channels: tuple[int, ...]
    invert: bool
    centres: Sequence[tuple[int, ...]]
    """Of the parts that tell how to normalise: by its own, one without objects is all noise."""
    network: Embedder
    recipe: ModelRecipe
    kept: dict[Box, np.ndarray] = field(default_factory=dict)
    """Parts that were read."""

    @property
    def ndim(self) -> int:
        """Of the network."""
        return self.recipe.net.ndim

    @cached_property
    def pixels(self) -> list[np.ndarray]:
        """These parts, which are gone through again."""
        whole = _whole(self.image, self.level)
        edge = EDGES[self.ndim]
        parts = dict.fromkeys(part_around(whole, centre, edge) for centre in self.centres)
        return [self._read(part) for part in parts]

    @cached_property
    def statistics(self) -> Statistics:
        """Of these parts together."""
        found = statistics_of(lambda: self.pixels, by_parts=self.ndim > 2)
        return found._replace(inverted=self.invert)

    def rough_lean(self) -> float:
        """About the lean of these parts, see `Statistics`, in next to no time."""
        some = np.concatenate([p.ravel()[:: max(p.size // ROUGH, 1)] for p in self.pixels])
        values = some.astype(np.float64)
        low, middle, high = np.quantile(values, (0.02, 0.5, 0.98))
        np.clip(values, low, high, out=values)  # hot pixels have no say
        return float((middle - values.mean()) / divisor(float(values.std())))

    def look(self, zoom: float, part: Box, *, scored: bool = False) -> Look:
        """Segment a part at a zoom, with the choice of objects by scores or without."""
        values = self._read(part)
        size = [max(round(n * zoom), 1) for n in values.shape[1:]]
        # Before it is resampled: absurd voxels are cut off first.
        pixels = resampled(normalise(values, self.statistics), size)
        return _look(pixels, self.network, self.recipe, scored=scored)

    def _read(self, part: Box) -> np.ndarray:
        values = self.kept.get(part)
        if values is None:
            values = _read(self.image, self.level, self.channels, part, self.ndim)
            if part.size <= KEPT:
                self.kept[part] = values
        return values


def shown_channel(image: Image, model: Model, config: SegmentConfig, channel: int) -> Shown:
    """An image of which the network is shown one channel."""
    return shown_as_asked(image, model, config.model_copy(update={"channel": channel}))


def shown_as_asked(image: Image, model: Model, config: SegmentConfig) -> Shown:
    """By statistics of parts of all of the image; the run measures the whole."""
    level, recipe = config.level, model.recipe
    channels, _ = choose_channels(image, level, config.channel, recipe)
    network = made_ready(model.network, torch.device("cpu"), "float32")
    centres = places(_whole(image, level), recipe.net.ndim)
    return Shown(image, level, channels, bool(config.invert), centres, network, recipe)


def _whole(image: Image, level: int) -> Box:
    shape = image.spatial_shape(level)
    return Box((0,) * len(shape), shape)


def _read(
    image: Image, level: int, channels: tuple[int, ...], part: Box, ndim: int = 2
) -> np.ndarray:
    """Voxels (C, [Z,] Y, X) of the first time point, where `ndim` is 2 of one plane."""
    values = image.read(level, 0, channels, part.slices)
    check_finite(values, part, image.uri)
    return values.reshape(len(channels), *part.shape[-ndim:])


def _note(zoom: float) -> str:
    if zoom == 1:
        return ""
    side = "smaller" if zoom > 1 else "larger"
    return (
        f"Objects look much {side} than those that the model was trained on: the network sees the "
        f"image at {zoom:g} times its size, and the labels come back at full size. --zoom 1 takes "
        "it as it is."
    )


def places(region: Box, ndim: int = 2) -> list[tuple[int, ...]]:
    """Centres ([Z,] Y, X) of the parts that are looked at, in the middle plane."""
    (top, left), sides = region.start[-2:], region.shape[-2:]
    deep = [(a + b) // 2 for a, b in zip(region.start, region.stop, strict=True)][-ndim:-2]
    return [(*deep, top + sides[0] * k // 4, left + sides[1] * j // 4) for k, j in QUARTERS]


def middle_part(region: Box, edge: int) -> Box:
    """The middle of a region's middle plane."""
    return part_around(region, places(region)[0], edge)


def part_around(region: Box, centre: tuple[int, ...], edge: int) -> Box:
    """A part of a region, or of its middle plane, around a voxel where the region allows.

    It has as many axes as `centre`.
    """
    start = [(a + b) // 2 for a, b in zip(region.start, region.stop, strict=True)]
    stop = [z + 1 for z in start]
    for axis, middle in zip(range(-len(centre), 0), centre, strict=True):
        a, b = region.start[axis], region.stop[axis]
        side = min(edge, b - a)
        start[axis] = min(max(middle - side // 2, a), b - side)
        stop[axis] = start[axis] + side
    return Box(tuple(start), tuple(stop))


def _lightest(image: Image, level: int, channels: tuple[int, ...], region: Box) -> tuple[int, int]:
    """The pixel (Y, X) whose surroundings differ most from what is usual in the middle plane.

    Found in rows of squares of `EDGE` / 4; of planes above `MOST_READ` pixels not in every row.
    """
    side = EDGE // 4
    whole = part_around(region, (0, 0), max(region.shape[-2:]))
    (top, left), (bottom, right) = whole.start[-2:], whole.stop[-2:]
    step = side * -(-whole.size // MOST_READ)
    rows = []
    for start in range(top, bottom, step):
        stop = min(start + side, bottom)
        strip = Box((*whole.start[:-2], start, left), (*whole.stop[:-2], stop, right))
        columns = _read(image, level, channels, strip).mean((0, 1), dtype=np.float64)
        rows.append([float(columns[at : at + side].mean()) for at in range(0, right - left, side)])
    light = np.asarray(rows)
    y, x = np.unravel_index(np.abs(light - np.median(light)).argmax(), light.shape)
    return top + int(y) * step + side // 2, left + int(x) * side + side // 2


def _look(pixels: np.ndarray, network: Embedder, recipe: ModelRecipe, *, scored: bool) -> Look:
    """Segment normalised pixels (C, [Z,] Y, X) as they are."""
    shape = pixels.shape[1:]
    whole = round_up(shape, pooling_factor(recipe.net))
    field = choose_tiling(recipe, shape, (0,) * len(shape), patch=whole).field(shape, "linear")
    region = Box((0,) * len(shape), shape)
    embeddings = embed(network, pixels, field, region, net=recipe.net).embeddings
    # Scores know objects of one size only; the limits of `scale` were found without them.
    clustering = recipe.clustering.model_copy(update={} if scored else {"scoring": None})
    labels = cluster(embeddings, clustering, recipe.background)
    dropped = count_dropped(embeddings, labels, region.slices, clustering, recipe.background)
    return Look(tuple(np.bincount(labels.ravel())[1:].tolist()), *dropped, region.size)
