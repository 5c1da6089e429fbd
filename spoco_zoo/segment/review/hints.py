"""What a finished run tells its user: that the image may not be what the model was trained on.

Here by its objects; by its intensities in `spoco_zoo.segment.review.light`.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.segment.review.light import (
    hint_even,
    hint_few,
    hint_glare,
    hint_light,
    hint_lost,
)
from spoco_zoo.segment.scale.fit import stated_size
from spoco_zoo.sizes import are_near, equivalent_diameter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.intensities import Statistics
    from spoco_zoo.segment.plan import Plan
    from spoco_zoo.segment.review.audit import BlockTally

__all__ = [
    "ENOUGH",
    "MUCH",
    "hint",
    "hint_dropped",
    "hint_merged",
    "hint_nothing",
    "hint_scale",
    "hint_sizes",
    "hint_thin",
]

MERGED = 4
"""Times the size that 95 % of the training's objects do not reach; nothing is as large."""
ENOUGH = 10
"""Objects that tell of which size they are."""
SPECK = 8
"""Pixels of a region that may be a dropped object; smaller ones, in 3D narrower ones, are noise."""
LARGEST_ZOOM = 4.0
"""That is chosen, or advised where little is known."""
FEW = 3
"""Objects that are next to none, and dropped regions of which nothing is said."""
MUCH = 0.07
"""Share of the foreground in dropped regions, from which they are no crumbs but objects.

In images of nuclei at their own size it was above this in 1 of 47; at half the size in all 9
of 14 in which so many nuclei were missed that enlarging the image helped."""
STATED = (
    "By what is stated, the network saw voxels of the size of its training, so the image may be "
    "noisier, or its objects others. If these regions are objects, annotate some and go on with "
    "the training: spoco-zoo train --init."
)
UNSURE = (
    "The network saw planes as 1 um apart, which may not be true: if it is not, give the true "
    "voxel size with --voxel-size."
)


def hint(
    plan: Plan, bins: Mapping[str, int], statistics: Sequence[Statistics], blocks: BlockTally
) -> str:
    """All that is to be said of a finished run; see the functions `hint_...`.

    Parameters
    ----------
    plan : Plan
    bins : mapping
        As for `hint_sizes`.
    statistics : sequence of Statistics
        Of every time point.
    blocks : BlockTally
        What the blocks counted.
    """
    sizes = hint_scale(plan, bins, blocks)
    if not sizes and (sizes := hint_nothing(bins, statistics)):
        sizes = f"{sizes} {hint_thin(plan.region.shape, plan.recipe)}".rstrip()
    step = float(plan.source.dtype.kind in "bui")
    light = hint_light(statistics, plan.recipe, step, odd=bool(sizes))
    # An image that leans to the other side is told of already, and one without objects, too.
    judged = sum(bins.values()) and not light
    even = hint_even(statistics, plan.recipe, odd=bool(sizes)) if judged else ""
    next_to_none = sum(bins.values()) <= FEW and blocks.dropped < ENOUGH
    # One or two nuclei may well be all that is in a plane.
    doubtful = sizes or (next_to_none and plan.recipe.net.ndim > 2)
    few, glare = hint_few(statistics), hint_glare(statistics) if doubtful else ""
    unknown = plan.recipe.lean is None and (light or even)
    # What is found in noise, without contrast or in the wrong light tells nothing of the scale.
    if few or unknown or (glare and next_to_none):
        sizes = ""
    said = hint_lost(statistics), few or glare, light, sizes, even
    return " ".join(filter(None, said))


def hint_scale(plan: Plan, bins: Mapping[str, int], blocks: BlockTally) -> str:
    """What sizes of objects, and what was dropped, tell of the scale of an image.

    Parameters
    ----------
    plan, bins, blocks
        As for `hint`.

    Returns
    -------
    str
        Empty if that is nothing, also of stacks that a 2D model segments: their objects span
        planes, those of the training are areas.
    """
    if plan.recipe.net.ndim < len(plan.region.shape) and plan.region.shape[0] > 1:
        return ""
    network = plan.image.spatial_scale(plan.level)[-1]
    zoom = plan.source.spatial_scale(plan.config.level)[-1] / network
    said = hint_merged(bins, prod(plan.region.shape), plan.recipe, plan.grid.times)
    # Who asks for larger objects knows that small ones are dropped.
    if not said and plan.clustering.min_size <= plan.recipe.clustering.min_size:
        said = hint_dropped(bins, blocks, plan.recipe, zoom, _known_scale(plan))
    said = said or hint_sizes(bins, plan.recipe, zoom)
    return (hint_thin(plan.region.shape, plan.recipe) or said) if said else ""


def hint_merged(bins: Mapping[str, int], voxels: int, recipe: ModelRecipe, times: int = 1) -> str:
    """What to tell a user of whose image most is one object, as where no outlines were seen.

    Parameters
    ----------
    bins, recipe
        As for `hint_sizes`.
    voxels : int
        Of one time point, as the network saw it.
    times : int
        How many time points there are; each may have one such object.

    Returns
    -------
    str
        Empty if there is nothing to tell.
    """
    if recipe.object_size is None or not bins:
        return ""
    top = max(bins, key=int)
    largest = 1.5 * int(top)
    if bins[top] > times or largest < max(voxels / 2, MERGED * recipe.object_size[2]):
        return ""
    count = sum(bins.values())
    # Without a background what lies outside of a tissue is an object, too.
    outside = "" if recipe.background else ", or if it is no more than what lies around a tissue"
    return (
        f"One object holds some {min(largest / voxels, 1):.0%} of the image, {count} "
        f"object{'s' * (count > 1)} all of it. Unless objects are that large{outside}, the "
        "network did not see what lies between them: it may be the wrong channel (--channel), "
        "light (--invert) or scale (--voxel-size, --zoom), or the image is overexposed."
    )


def hint_thin(shape: Sequence[int], recipe: ModelRecipe) -> str:
    """What to tell a user whose volume is thinner than an object: sizes there say nothing.

    Parameters
    ----------
    shape : sequence of int
        Of what the network saw ([Z,] Y, X).
    recipe : ModelRecipe

    Returns
    -------
    str
        Empty if it is thicker, or nothing is known of objects in 3D.
    """
    if recipe.object_size is None or recipe.net.ndim < 3:
        return ""
    voxel = recipe.voxel_size or (1.0, 1.0, 1.0)
    diameter = equivalent_diameter(recipe.object_size[1] * prod(voxel), 3)
    usual = [diameter / step for step in voxel]
    thick, wide = usual[0], max(usual[1:])
    if min(n / u for n, u in zip(shape[1:], usual[1:], strict=True)) < 1:
        return (
            f"The network saw {' x '.join(map(str, shape))} voxels; an object of its training is "
            f"some {thick:.0f} planes thick and {wide:.0f} voxels wide. Objects that are cut off "
            "are unlike those that it knows: if labels look wrong, segment a larger part."
        )
    if shape[0] >= thick:
        return ""
    planes = "1 plane" if shape[0] == 1 else f"{shape[0]} planes"
    return (
        f"The network saw a stack of {planes}; an object of its training has some "
        f"{thick:.0f}. Objects that are cut off above and below are unlike those that it knows: "
        "if labels look wrong, compare with a 2D model."
    )


def _known_scale(plan: Plan) -> str:
    """What follows if a 3D network saw the image at the voxel size of its training, else nothing.

    In 2D objects that are smaller at the same pixel size are found better if they are enlarged.
    """
    size = plan.config.voxel_size or stated_size(plan.source, plan.config.level, plan.recipe)
    learned, asked = plan.recipe.voxel_size, plan.config.zoom
    if size is None or learned is None or asked is not None or len(learned) < 3:
        return ""
    if not plan.rescaled and not are_near(size[-len(learned) :], learned):
        return ""
    if plan.rescaled and plan.config.voxel_size is None and size[0] == 1:
        return UNSURE
    return STATED


def hint_sizes(bins: Mapping[str, int], recipe: ModelRecipe, zoom: float = 1.0) -> str:
    """What to tell a user whose objects are of another size than those of the training.

    Parameters
    ----------
    bins : mapping
        How many objects have at least so many voxels of the network, and less than
        twice as many.
    recipe : ModelRecipe
    zoom : float
        How much larger than the image the network saw it.

    Returns
    -------
    str
        Empty if there is nothing to tell, or there are too few objects to judge by.
    """
    count = sum(bins.values())
    if recipe.object_size is None or count < ENOUGH:
        return ""
    smallest, middle, largest = recipe.object_size
    typical = _typical(bins)
    if smallest <= typical <= largest:
        return ""
    advised = _one_digit(zoom * (middle / typical) ** (1 / recipe.net.ndim))
    if advised == _one_digit(zoom):
        return ""
    return (
        f"A typical object has some {typical:.0f} voxels, but of those that the model was trained "
        f"on 90 % have {smallest:.0f} to {largest:.0f}. If the image is of another scale, and "
        f"labels look wrong, try --zoom {advised}."
    )


def hint_dropped(
    bins: Mapping[str, int],
    blocks: BlockTally,
    recipe: ModelRecipe,
    zoom: float = 1.0,
    known: str = "",
) -> str:
    """What to tell a user whose objects may be too small for the model, and so are missed.

    The few that are large enough look as if nothing were wrong; what was dropped tells.

    Parameters
    ----------
    bins, recipe, zoom
        As for `hint_sizes`.
    blocks : BlockTally
        With what the clustering dropped.
    known : str
        What to say if voxel sizes have decided about the scale. Then no other is advised: enlarged
        four times, a volume of which noise was dropped had but 0.01 of its AP@0.5 of 0.46 left.

    Returns
    -------
    str
        Empty if that is but little, or noise, or the objects that were kept are no small ones.
    """
    if recipe.object_size is None or blocks.dropped < FEW:
        return ""
    middle = recipe.object_size[1]
    if blocks.dropped_voxels < MUCH * (blocks.dropped_voxels + blocks.kept_voxels):
        return ""
    if bins and _typical(bins) > middle:
        return ""
    size = blocks.dropped_voxels / blocks.dropped
    if size < SPECK ** (recipe.net.ndim / 2):
        return ""  # noise: enlarged it becomes thousands of objects
    why = "smaller than --min-size"
    if recipe.clustering.scoring is not None:
        why = "unlike the objects of the training"
    count = sum(bins.values())
    found = (
        f"{blocks.dropped} regions of some {size:.0f} voxels were dropped, because they are "
        f"{why}; {count} objects were kept."
    )
    if known:
        if blocks.dropped <= count:
            return ""
        return f"{found} {known}"
    low = str(2 ** int(np.log2(size)))
    typical = _median({**bins, low: bins.get(low, 0) + blocks.dropped})
    larger = min(
        max(zoom * (middle / typical) ** (1 / recipe.net.ndim), 2), max(zoom, LARGEST_ZOOM)
    )
    return (
        f"{found} If these regions are objects, they are smaller in this image than the model "
        f"knows them: try --zoom {_one_digit(larger)}. If they are pieces of objects, these are "
        f"larger: try --zoom {_one_digit(zoom / 2)}."
    )


def hint_nothing(bins: Mapping[str, int], statistics: Sequence[Statistics]) -> str:
    """What to tell a user whose image has no objects, as it seems."""
    if sum(bins.values()):
        return ""
    if all(one.std == 0 for one in statistics):
        return "No objects: all voxels of the image have the same value."
    return (
        "No objects were found, though the image is not empty. If there are some, it may be the "
        "wrong channel (--channel), scale (--voxel-size, --zoom) or light (--invert), or a model "
        "of other objects."
    )


def _one_digit(factor: float) -> str:
    """A factor for people, without an exponent."""
    return f"{float(f'{factor:.1g}'):g}"


def _median(bins: Mapping[str, int]) -> float:
    """About the median of sizes, of the counts alone: a list of all would not fit the memory."""
    lows = sorted(bins, key=int)
    half = sum(bins.values()) // 2
    return 1.5 * int(lows[int(np.searchsorted(np.cumsum([bins[n] for n in lows]), half, "right"))])


def _typical(bins: Mapping[str, int]) -> float:
    """About the size below which objects hold a quarter of all their voxels.

    That is near to the median where sizes are alike, and not the size of debris between large
    objects (`spoco_zoo.segment.scale.decision.Look.typical`).
    """
    lows = sorted(map(int, bins))
    held = np.cumsum([bins[str(low)] * low for low in lows])
    return 1.5 * lows[int(np.searchsorted(held, held[-1] / 4))]
