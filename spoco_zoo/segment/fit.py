"""An image that is not quite what a model was trained on: which channel, at which voxel size.

Decisions only. Each comes with a sentence for the user, because none is made silently. What
cannot be decided, whether objects of unusual size are of another scale, is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.ngff import find_channels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.intensities import Statistics
    from spoco_zoo.ngff import Image

__all__ = ["Zoom", "choose_channels", "choose_zoom", "doubt", "doubt_light", "doubt_sizes"]

NEAR = 1.5
"""Voxel sizes within this factor of the training's are taken as they are."""
BELIEVABLE = 10.0
"""Beyond this factor the image's metadata are more likely wrong than its scale unusual."""
LEAN = 0.1
"""An image leans to the other side than those of the training if both do by as much as this."""
ENOUGH = 10
"""Objects that tell of which size they are."""
LOOK = 512
"""Edge of the middle part that decides between colours."""


@dataclass(frozen=True)
class Zoom:
    """How much larger the voxels of the network are than those of the image."""

    factors: tuple[float, ...]
    """Per spatial axis of the image; all 1 if it is taken as it is."""
    note: str = ""

    @property
    def needed(self) -> bool:
        """Whether the image has to be resampled."""
        return any(factor != 1 for factor in self.factors)


def choose_zoom(
    size: Sequence[float] | None,
    recipe: ModelRecipe,
    axes: Sequence[str],
    *,
    rescale: bool = True,
    zoom: float | None = None,
) -> Zoom:
    """Decide whether an image must be resampled to the model's voxel size.

    Parameters
    ----------
    size : sequence of float or None
        Voxel size of the image ([Z,] Y, X) in micrometres.
    recipe : ModelRecipe
        A 2D model leaves z alone.
    axes : sequence of str
        The image's spatial axes.
    rescale : bool
        False: never, but say what is off.
    zoom : float, optional
        The user's own choice: 0.5 halves the image along the axes of the model.

    Returns
    -------
    Zoom

    Examples
    --------
    >>> from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig
    >>> recipe = ModelRecipe(
    ...     net=NetConfig(), delta_var=0.5, delta_dist=2, kernel_threshold=0.5, background=None,
    ...     clustering=ClusteringConfig(), channel_names=("0",), patch=(64, 64),
    ...     voxel_size=(0.5, 0.5),
    ... )
    >>> choose_zoom((0.1, 0.1), recipe, "yx").factors
    (5.0, 5.0)
    >>> choose_zoom((0.4, 0.4), recipe, "yx").factors
    (1.0, 1.0)
    """
    same = (1.0,) * len(axes)
    if zoom == 1:
        return Zoom(same)
    if zoom is not None:
        lead = len(axes) - recipe.net.ndim
        return Zoom(
            (1.0,) * lead + (float(f"{1 / zoom:.6g}"),) * recipe.net.ndim,
            f"The image is resampled for the network {zoom:g} times, as asked, and the labels come "
            "back at full size.",
        )
    if size is None or recipe.voxel_size is None:
        return Zoom(same)
    if len(size) != len(axes):
        raise ConfigError(
            "voxel_size must have one entry per spatial axis " + ",".join(axes),
            f"{len(size)} entries",
            f"Give {len(axes)}.",
        )
    lead = len(axes) - len(recipe.voxel_size)
    ratios = (1.0,) * lead + tuple(
        float(f"{model / own:.6g}")
        for model, own in zip(recipe.voxel_size, size[lead:], strict=True)
    )
    if all(1 / NEAR <= ratio <= NEAR for ratio in ratios):
        return Zoom(same)
    sizes = f"{_sizes(size)} um a voxel, the model was trained at {_sizes(recipe.voxel_size)} um"
    if not rescale:
        return Zoom(
            same,
            f"Warning: the image has {sizes}: {_factors(ratios)}. Not rescaled, as asked; "
            "expect worse labels.",
        )
    if any(not 1 / BELIEVABLE <= ratio <= BELIEVABLE for ratio in ratios):
        return Zoom(
            same,
            f"Warning: the image says {sizes}: {_factors(ratios)}. Not believed and not "
            "rescaled. If it is true, convert the image to about the model's voxel size; if not, "
            "give the true one with --voxel-size.",
        )
    return Zoom(
        ratios,
        f"The image has {sizes}: it is resampled for the network by {_factors(ratios)}, and the "
        "labels come back at full size. --no-rescale takes it as it is.",
    )


def doubt(bins: Mapping[str, int], statistics: Sequence[Statistics], recipe: ModelRecipe) -> str:
    """All that is to be said of a finished run; see `doubt_sizes` and `doubt_light`."""
    return " ".join(filter(None, (doubt_sizes(bins, recipe), doubt_light(statistics, recipe))))


def doubt_sizes(bins: Mapping[str, int], recipe: ModelRecipe) -> str:
    """What to tell a user whose objects are of another size than those of the training.

    Parameters
    ----------
    bins : mapping
        How many objects have at least so many voxels of the network, and less than
        twice as many.
    recipe : ModelRecipe

    Returns
    -------
    str
        Empty if there is nothing to tell, or there are too few objects to judge by.
    """
    count = sum(bins.values())
    if recipe.object_size is None or count < ENOUGH:
        return ""
    smallest, middle, largest = recipe.object_size
    # Of the counts alone: a list of all objects would not fit the memory of a large run.
    lows = sorted(bins, key=int)
    middle_bin = int(np.searchsorted(np.cumsum([bins[low] for low in lows]), count // 2, "right"))
    typical = 1.5 * int(lows[middle_bin])
    if smallest <= typical <= largest:
        return ""
    zoom = (middle / typical) ** (1 / recipe.net.ndim)
    return (
        f"A typical object has some {typical:.0f} voxels, but of those that the model was trained "
        f"on 90 % have {smallest:.0f} to {largest:.0f}. If the image is of another scale, and "
        f"labels look wrong, try --zoom {zoom:.1g}."
    )


def doubt_light(statistics: Sequence[Statistics], recipe: ModelRecipe) -> str:
    """What to tell a user whose image is dark where those of the training are bright.

    Objects cover less than half of most images, so the median lies on the background's side of
    the mean.

    Parameters
    ----------
    statistics : sequence of Statistics
        Of every time point.
    recipe : ModelRecipe

    Returns
    -------
    str
        Empty if there is nothing to tell, or the recipe does not know.
    """
    if recipe.lean is None or not statistics:
        return ""
    lean = float(np.median([one.lean * (-1 if one.inverted else 1) for one in statistics]))
    if min(abs(lean), abs(recipe.lean)) < LEAN or lean * recipe.lean > 0:
        return ""
    most, few = ("bright", "dark") if lean > 0 else ("dark", "bright")
    return (
        f"Most of what the network saw is {most}, with less that is {few}; in the images that the "
        f"model was trained on it was the other way round. If objects are {few}, and labels look "
        "wrong, try --invert."
    )


def choose_channels(
    image: Image, level: int, wanted: str | int | None, recipe: ModelRecipe
) -> tuple[tuple[int, ...], str]:
    """Decide which channels the network gets.

    Parameters
    ----------
    image : Image
        Of a colour photograph a part of the pixels is read.
    level : int
    wanted : str, int or None
        What the user asked for.
    recipe : ModelRecipe

    Returns
    -------
    channels : tuple of int
    note : str
        Why these, if nobody asked for them.

    Raises
    ------
    StoreError
        If the image has other channels than the model takes, and none is the
        obvious one.
    """
    needed = recipe.net.in_channels
    if wanted is not None or image.n_channels == needed:
        return find_channels(image, wanted, needed), ""
    if image.colour and needed == 3:
        return (0, 1, 2), ""
    if image.colour and needed == 1:
        return _of_colours(image, level)
    names = [name.lower() for name in image.channel_names]
    known = [name.lower() for name in recipe.channel_names]
    if all(names.count(name) == 1 for name in known):
        chosen = tuple(names.index(name) for name in known)
        shown = ", ".join(image.channel_names[i] for i in chosen)
        return chosen, f"The image has several channels; used by its name: {shown}."
    try:
        return find_channels(image, None, needed), ""
    except StoreError as error:
        hint = f" The model was trained on: {', '.join(recipe.channel_names)}."
        raise StoreError(error.rule, error.found, error.remedy + hint) from error


def _of_colours(image: Image, level: int) -> tuple[tuple[int, ...], str]:
    """The colour with most contrast in the middle of a photograph."""
    where = []
    for axis, n in zip(image.spatial, image.spatial_shape(level), strict=True):
        edge = min(n, LOOK if axis != "z" else 1)
        where.append(slice((n - edge) // 2, (n - edge) // 2 + edge))
    middle = image.read(level, image.n_times // 2, range(min(image.n_channels, 3)), where)
    if all(np.array_equal(middle[0], other) for other in middle[1:]):
        return (0,), "The image is stored in colour, but it is grey: one channel is used."
    best = int(np.argmax([float(colour.std(dtype=np.float64)) for colour in middle]))
    name = ("red", "green", "blue")[best]
    return (best,), (
        f"The image is in colour and the model takes one channel: {name} has most contrast and is "
        "used. --channel 0, 1 or 2 chooses another."
    )


def _sizes(values: Sequence[float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values)


def _factors(ratios: Sequence[float]) -> str:
    """How far apart the voxel sizes are, per axis."""
    parts = [f"1/{r:.3g}" if r > 1 else f"{1 / r:.3g}" for r in ratios]
    return "a factor of " + (parts[0] if len(set(parts)) == 1 else " x ".join(parts))
