"""What intensities tell of an image: light the other way round, or contrast in a few voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.intensities import divisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.intensities import Statistics

__all__ = [
    "are_opposite",
    "hint_even",
    "hint_few",
    "hint_glare",
    "hint_light",
    "hint_lost",
]

LEAN = 0.1
"""An image leans to the other side than those of the training if both do by as much as this."""
EVEN = 1.45
"""The brightest voxels of an image without objects are at most this times as far from the median as
the darkest: of noise, smooth or not, stripes and vignetting. With nuclei it was 7 and more."""
DIM = 1.5
"""All but a hundredth of the voxels at either end reach less far than this, in deviations, where
few take the contrast. In volumes of nuclei and cells it was 3 to 5, in two of 438 images of nuclei,
with one and two of them, less."""
NAMED = 5
"""Lost planes that are named."""


def hint_even(statistics: Sequence[Statistics], recipe: ModelRecipe, *, odd: bool = False) -> str:
    """What to tell a user of objects in an image whose intensities are those of a mere ground.

    Parameters
    ----------
    statistics : sequence of Statistics
        Of every time point.
    recipe : ModelRecipe
        Models of other images than of few bright objects on dark are not judged.
    odd : bool
        Whether the labels look wrong anyhow. Then models that do not know their light are judged
        too.

    Returns
    -------
    str
        Empty if there is nothing to tell.
    """
    bright = odd if recipe.lean is None else recipe.lean <= -LEAN
    if not statistics or not bright:
        return ""
    rises = [_inverse(one.rise) if one.inverted else one.rise for one in statistics]
    if float(np.median(rises)) > EVEN:
        return ""
    return (
        "The brightest voxels are hardly farther from the median than the darkest, as of noise or "
        "of uneven light: these objects may be none. If there are objects, and labels look wrong, "
        "take the ground out of the image first (a rolling ball, or the difference from a wide "
        "blur), or choose another channel (--channel)."
    )


def _inverse(rise: float) -> float:
    return 1 / rise if rise > 0 else np.inf


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


def hint_glare(statistics: Sequence[Statistics]) -> str:
    """What to tell a user whose labels look wrong, of an image that may hold debris with a halo.

    Or sparse objects on even ground, which look the same: so nothing is cut off.
    """
    if all(one.rest >= DIM or not one.std for one in statistics):
        return ""
    return (
        "A hundredth of all voxels makes most of the contrast, and the network saw little in the "
        "others. If it is debris or glare, crop the image (--roi does not help: all of it is "
        "looked at), or cut off what is brighter than objects are (in Fiji: Process > Math > Max)."
    )


def hint_lost(statistics: Sequence[Statistics]) -> str:
    """What to tell a user of whose stack some planes hold nothing."""
    planes = sorted({plane for one in statistics for plane, _ in one.lost})
    if not planes:
        return ""
    named = ", ".join(map(str, planes[:NAMED])) + ", ..." * (len(planes) > NAMED)
    one = len(planes) == 1
    which, holds, its = ("Plane", "holds", "its") if one else ("Planes", "hold", "their")
    when = " at some times" if len(statistics) > 1 else ""
    return (
        f"{which} {named} of the image (the first is 0) {holds} one value{when}, as where a frame "
        f"was lost: the network saw the nearest other plane in {its} place."
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
    if not are_opposite(lean, recipe.lean):
        return ""
    most, few = ("bright", "dark") if lean > 0 else ("dark", "bright")
    return (
        f"Most of what the network saw is {most}, with less that is {few}; in the images that the "
        f"model was trained on it was the other way round. If objects are {few}, and labels look "
        f"wrong, {_other_light(statistics)}."
    )


def are_opposite(lean: float, learned: float) -> bool:
    """Whether an image leans to the other side than those of the training, and both clearly."""
    return min(abs(lean), abs(learned)) >= LEAN and lean * learned < 0


def _other_light(statistics: Sequence[Statistics]) -> str:
    """What makes the network see bright and dark the other way round."""
    return "try --no-invert" if all(one.inverted for one in statistics) else "try --invert"


def _lean(one: Statistics, step: float) -> float:
    """How far the median of an image is from its mean, in deviations, where that tells anything.

    The median of integers may be half a step off by itself. And where the ground was left out
    as a frame, what is left is mostly objects.
    """
    cut = one.low if one.lean > 0 else one.high
    if np.isfinite(cut):
        return 0.0
    return float(np.sign(one.lean) * max(abs(one.lean) - 0.5 * step / divisor(one.std), 0.0))
