"""What a finished run tells its user: that the image may not be what the model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.intensities import divisor

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
    "hint_few",
    "hint_light",
    "hint_nothing",
    "hint_sizes",
]

LEAN = 0.1
"""An image leans to the other side than those of the training if both do by as much as this."""
ENOUGH = 10
"""Objects that tell of which size they are."""
SPECK = 8
"""Voxels of a region that may be a dropped object; smaller ones are noise."""
LARGEST_ZOOM = 4.0
"""That is chosen, or advised where little is known."""
FEW = 3
"""Dropped regions of which nothing is said."""
MUCH = 0.07
"""Share of the foreground in dropped regions, from which they are no crumbs but objects.

In images of nuclei at their own size it was above this in 1 of 47; at half the size in all 9
of 14 in which so many nuclei were missed that enlarging the image helped."""


def hint(
    plan: Plan, bins: Mapping[str, int], statistics: Sequence[Statistics], blocks: BlockTally
) -> str:
    """All that is to be said of a finished run; see the other functions `hint_...`.

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
    network = plan.image.spatial_scale(plan.level)[-1]
    zoom = plan.source.spatial_scale(plan.config.level)[-1] / network
    sizes = ""
    # Who asks for larger objects knows that small ones are dropped.
    if plan.clustering.min_size <= plan.recipe.clustering.min_size:
        sizes = hint_dropped(bins, blocks, plan.recipe, zoom)
    sizes = sizes or hint_sizes(bins, plan.recipe, zoom) or hint_nothing(bins, statistics)
    step = float(plan.source.dtype.kind in "bui")
    light = hint_light(statistics, plan.recipe, step, odd=bool(sizes))
    return " ".join(filter(None, (sizes, light, hint_few(statistics))))


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
    bins: Mapping[str, int], blocks: BlockTally, recipe: ModelRecipe, zoom: float = 1.0
) -> str:
    """What to tell a user whose objects may be too small for the model, and so are missed.

    The few that are large enough look as if nothing were wrong; what was dropped tells.

    Parameters
    ----------
    bins, recipe, zoom
        As for `hint_sizes`.
    blocks : BlockTally
        With what the clustering dropped.

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
    if size < SPECK:
        return ""  # noise: enlarged it becomes thousands of objects
    low = str(2 ** int(np.log2(size)))
    typical = _median({**bins, low: bins.get(low, 0) + blocks.dropped})
    larger = min(
        max(zoom * (middle / typical) ** (1 / recipe.net.ndim), 2), max(zoom, LARGEST_ZOOM)
    )
    why = "smaller than --min-size"
    if recipe.clustering.scoring is not None:
        why = "unlike the objects of the training"
    return (
        f"{blocks.dropped} regions of some {size:.0f} voxels were dropped, because they are "
        f"{why}; {sum(bins.values())} objects were kept. If these regions are "
        "objects, they are smaller in this image than the model knows them: try "
        f"--zoom {_one_digit(larger)}. If they are pieces of objects, these are larger: try "
        f"--zoom {_one_digit(zoom / 2)}."
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


def hint_few(statistics: Sequence[Statistics]) -> str:
    """What to tell a user of whose image few voxels make most of the contrast."""
    apart = max((one.apart for one in statistics), key=abs, default=0.0)
    if not apart:
        return ""
    side = "brighter" if apart > 0 else "darker"
    return (
        f"{100 * abs(apart):.2g} % of all voxels are so much {side} than the others that the "
        "network saw next to no contrast in these. If they are hot pixels, a scale bar or text, "
        "crop the image (--roi does not help: all of it is looked at), or replace these voxels by "
        "its median."
    )


def hint_light(
    statistics: Sequence[Statistics], recipe: ModelRecipe, step: float = 0.0, *, odd: bool = False
) -> str:
    """What to tell a user whose image is dark where those of the training are bright.

    Objects cover less than half of most images, so the median lies on the background's side of
    the mean.

    Parameters
    ----------
    statistics : sequence of Statistics
        Of every time point.
    recipe : ModelRecipe
    step : float
        Between two values that the image can hold: 1 for integers.
    odd : bool
        Whether the labels look wrong anyhow. Then a bright image is told of even where the
        recipe does not know those of the training, as most stains are bright on dark.

    Returns
    -------
    str
        Empty if there is nothing to tell.
    """
    if not statistics:
        return ""
    lean = float(np.median([_lean(one, step) * (-1 if one.inverted else 1) for one in statistics]))
    if recipe.lean is None:
        if not odd or lean < LEAN:
            return ""
        return (
            "Most of what the network saw is bright, with less that is dark. A model of bright "
            "objects or outlines needs it the other way round: if labels look wrong, "
            f"{_other_light(statistics)}."
        )
    if min(abs(lean), abs(recipe.lean)) < LEAN or lean * recipe.lean > 0:
        return ""
    most, few = ("bright", "dark") if lean > 0 else ("dark", "bright")
    return (
        f"Most of what the network saw is {most}, with less that is {few}; in the images that the "
        f"model was trained on it was the other way round. If objects are {few}, and labels look "
        f"wrong, {_other_light(statistics)}."
    )


def _other_light(statistics: Sequence[Statistics]) -> str:
    """What makes the network see bright and dark the other way round."""
    return "leave --invert out" if all(one.inverted for one in statistics) else "try --invert"


def _lean(one: Statistics, step: float) -> float:
    """How far the median of an image is from its mean, in deviations, where that tells anything.

    The median of integers may be half a step off by itself. And where the ground was left out
    as a frame, what is left is mostly objects.
    """
    cut = one.low if one.lean > 0 else one.high
    if np.isfinite(cut):
        return 0.0
    return float(np.sign(one.lean) * max(abs(one.lean) - 0.5 * step / divisor(one.std), 0.0))
