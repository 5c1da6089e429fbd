"""Which channels and planes of an image a network gets.

Decisions only. Each comes with a sentence for the user, because none is made silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.ngff import find_channels, palette_error, planes_as_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.ngff import Image

__all__ = ["COLOURS", "choose_axes", "choose_channels", "note_planes", "some_colours"]

COLOURS = ("red", "green", "blue")

FEW_PLANES = 12
"""Stacks of no more are often one layer of objects, in and out of focus."""
LOOK = 512
"""Edge of the part that decides between colours."""
HALVES = ((1, 1), (0, 0), (2, 2), (0, 2), (2, 0))
"""Where it may lie (Y, X), in halves of the room that there is."""


def choose_axes(image: Image, recipe: ModelRecipe) -> Image:
    """Take planes without a name as channels, as in training, if a 2D model takes as many."""
    net = recipe.net
    if image.guessed == "z" and net.ndim == 2 and 1 < net.in_channels == image.spatial_shape()[0]:
        return planes_as_channels(image)
    return image


def note_planes(shape: Sequence[int], recipe: ModelRecipe) -> str:
    """What to tell of a stack of few planes ([Z,] Y, X) that a 2D model segments."""
    if recipe.net.ndim == len(shape) or not 1 < shape[0] <= FEW_PLANES:
        return ""
    return (
        f"Each of {shape[0]} planes is labelled by itself, and objects that lie above each other "
        "are joined. If the planes show one layer of objects, in and out of focus, some count "
        "twice: `spoco-zoo convert IN OUT.ome.zarr --project` makes one plane of them."
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


def some_colours(
    image: Image, level: int, region: Sequence[slice] | None = None
) -> NDArray[np.generic] | None:
    """Colours (C, [Z,] Y, X) of a part of a photograph, or of a region of it.

    Of the middle, or of another part where they are equal there; None if they are everywhere: it
    is grey.
    """
    whole = region or tuple(slice(0, n) for n in image.spatial_shape(level))
    for y, x in HALVES:
        where = []
        for axis, part, place in zip(image.spatial, whole, (0, y, x)[-len(whole) :], strict=True):
            edge = min(part.stop - part.start, LOOK if axis != "z" else 1)
            room = part.stop - part.start - edge
            start = part.start + (room // 2 if axis == "z" else room * place // 2)
            where.append(slice(start, start + edge))
        found = image.read(level, image.n_times // 2, range(min(image.n_channels, 3)), where)
        if not all(np.array_equal(found[0], other) for other in found[1:]):
            return found
    return None


def _of_colours(image: Image, level: int) -> tuple[tuple[int, ...], str]:
    """The colour with most contrast in a part of a photograph."""
    colours = some_colours(image, level)
    if colours is None:
        return (0,), "The image is stored in colour, but it is grey: one channel is used."
    best = int(np.argmax([float(colour.std(dtype=np.float64)) for colour in colours]))
    return (best,), (
        f"The image is in colour and the model takes one channel: {COLOURS[best]} has most "
        "contrast and is used. --channel 0, 1 or 2 chooses another."
    )
