"""Which channels of an image a network gets.

Decisions only. Each comes with a sentence for the user, because none is made silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.ngff import find_channels, palette_error, planes_as_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.ngff import Image

__all__ = ["COLOURS", "choose_axes", "choose_channels", "colours_in_the_middle"]

COLOURS = ("red", "green", "blue")

LOOK = 512
"""Edge of the middle part that decides between colours."""


def choose_axes(image: Image, recipe: ModelRecipe) -> Image:
    """Take planes without a name as channels, as in training, if a 2D model takes as many."""
    net = recipe.net
    if image.guessed == "z" and net.ndim == 2 and 1 < net.in_channels == image.spatial_shape()[0]:
        return planes_as_channels(image)
    return image


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
        Why these, if nobody asked for them and they are not simply all.

    Raises
    ------
    ConfigError
        If a channel is asked for of an image that has no channel axis.
    StoreError
        If the image has other channels than the model takes, and none is the
        obvious one.
    """
    needed = recipe.net.in_channels
    if image.indexed:
        raise palette_error(image.uri)
    # The one channel of a plane may have a name, which many images then share.
    given = [name for name in image.channel_names if not name.isdecimal()]
    if wanted is not None and "c" not in image.axes and str(wanted) not in given:
        planes = " Its planes have no name: save it with axes CYX if they are channels."
        raise ConfigError(
            "--channel chooses from a channel axis",
            f"axes {','.join(image.axes)} in {image.uri}",
            "Leave it out." + (planes if image.guessed else ""),
        )
    if wanted is not None:
        chosen = find_channels(image, wanted, needed)
        return chosen, _of_two(image, str(wanted), chosen[0])
    if image.colour and needed == 3:
        return (0, 1, 2), ""
    if image.colour and needed == 1:
        return _of_colours(image, level)
    names = [name.lower() for name in image.channel_names]
    known = [name.lower() for name in recipe.channel_names]
    # Before their order: two programs that write the same stains may number them otherwise.
    if all(names.count(name) == known.count(name) == 1 for name in known):
        chosen = tuple(names.index(name) for name in known)
        if chosen == tuple(range(image.n_channels)):
            return chosen, ""
        shown = ", ".join(image.channel_names[i] for i in chosen)
        return chosen, f"The image has several channels; used by name: {shown}."
    try:
        return find_channels(image, None, needed), ""
    except StoreError as error:
        hint = f" The model was trained on: {', '.join(recipe.channel_names)}."
        raise StoreError(error.rule, error.found, error.remedy + hint) from error


def _of_two(image: Image, wanted: str, chosen: int) -> str:
    """What to say of a text that is the name of one channel and the index of another."""
    if not wanted.isdecimal() or int(wanted) == chosen or int(wanted) >= image.n_channels:
        return ""
    other = image.channel_names[int(wanted)]
    return (
        f"--channel {wanted} is the name of channel {chosen}, which is used, and the index of "
        f"another, {other}: --channel {other} takes that one."
    )


def colours_in_the_middle(image: Image, level: int) -> NDArray[np.generic] | None:
    """Colours (C, [Z,] Y, X) of the middle of a photograph; None if they are equal: it is grey."""
    where = []
    for axis, n in zip(image.spatial, image.spatial_shape(level), strict=True):
        edge = min(n, LOOK if axis != "z" else 1)
        where.append(slice((n - edge) // 2, (n - edge) // 2 + edge))
    middle = image.read(level, image.n_times // 2, range(min(image.n_channels, 3)), where)
    return None if all(np.array_equal(middle[0], other) for other in middle[1:]) else middle


def _of_colours(image: Image, level: int) -> tuple[tuple[int, ...], str]:
    """The colour with most contrast in the middle of a photograph."""
    middle = colours_in_the_middle(image, level)
    if middle is None:
        return (0,), "The image is stored in colour, but it is grey: one channel is used."
    best = int(np.argmax([float(colour.std(dtype=np.float64)) for colour in middle]))
    return (best,), (
        f"The image is in colour and the model takes one channel: {COLOURS[best]} has most "
        "contrast and is used. --channel 0, 1 or 2 chooses another."
    )
