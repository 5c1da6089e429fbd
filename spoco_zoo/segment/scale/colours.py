"""Which colour of a picture a network of one channel is shown: the one with clear objects in it.

In a merge of stains the brightest one has most contrast, whatever it shows. Each colour is
segmented in the middle of the picture, and what counts is how much of the foreground becomes
objects: of nuclei nearly all, of fibres, borders, spots and texture less. Where blue is about as
clear as any it is taken, as nuclear stains are shown in it as a rule, unless it shows what another
one shows with more contrast; else the one with most contrast of those that are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import RemoteError, StoreError
from spoco_zoo.segment.channels import COLOURS, some_colours
from spoco_zoo.segment.region import asked_region
from spoco_zoo.segment.scale.looking import EDGE, middle_part, shown_channel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.nets.model import Model
    from spoco_zoo.ngff import Image

__all__ = ["choose_colour", "find_colour", "with_colour"]

ZOOMS = (1 / 2, 1.0)
"""At which colours are looked at; the better one counts."""
AS_CLEAR = 0.93
"""Of the clearest colour, what others must have at least."""
FAINT = 0.05
"""Colours of less than this part of the highest contrast are none."""
BLUE = 2
BLUE_CLEAR = 0.8
"""The same for blue: small or dim nuclei are less clear than the cells around them."""
ALIKE = 0.93
"""Correlation from which two colours show the same, as those of a tinted picture do."""


def with_colour(
    image: Image, model: Model, config: SegmentConfig, earlier: str | None = None
) -> tuple[SegmentConfig, str]:
    """Settings with the channel of a picture in colour, if the user has left it open.

    Parameters
    ----------
    image : Image
    model : Model
    config : SegmentConfig
    earlier : str, optional
        The channel of a run that goes on, as its ledger has it.

    Returns
    -------
    config : SegmentConfig
    note : str
        What to tell the user.
    """
    if config.channel is not None or not image.colour:
        return config, ""
    if earlier is not None:
        known = {"channel": int(earlier)} if earlier.isdecimal() else {}
        return config.model_copy(update=known), ""
    channel, note = find_colour(image, model, config)
    return config.model_copy(update={} if channel is None else {"channel": channel}), note


def find_colour(image: Image, model: Model, config: SegmentConfig) -> tuple[int | None, str]:
    """Look at the colours of a picture, on the CPU.

    Parameters
    ----------
    image : Image
    model : Model
    config : SegmentConfig
        Level and region.

    Returns
    -------
    channel : int or None
        None if the question is not open, or nothing clear is in any of them.
    note : str
        What to tell the user.
    """
    recipe = model.recipe
    if (
        (recipe.net.in_channels, recipe.net.ndim) != (1, 2)
        or recipe.background is None
        or recipe.clustering.method != "instance"
    ):
        return None, ""
    try:
        region = asked_region(image, recipe, config)
        colours = some_colours(image, config.level, region.slices)
        if colours is None:
            return None, ""
        contrast = [float(colour.std(dtype=np.float64)) for colour in colours]
        part = middle_part(region, EDGE)
        shown = [shown_channel(image, model, config, c) for c in range(len(colours))]
        clear = [max(one.look(z, part, scored=True).kept for z in ZOOMS) for one in shown]
    except RemoteError:
        raise
    except StoreError:  # the blocks that hold it will say so
        return None, ""
    best = choose_colour(contrast, clear, likeness(colours))
    if best is None:
        return None, ""
    return best, (
        f"The image is in colour and the model takes one channel: {COLOURS[best]}, in which it "
        "finds clear objects, is used. --channel 0, 1 or 2 chooses another."
    )


def likeness(colours: NDArray[np.generic]) -> list[float]:
    """Correlation of each colour with blue; 0 where one of them is even, or there is no blue."""
    flat = colours.reshape(len(colours), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1)
    if len(flat) <= BLUE or not lengths[BLUE]:
        return [0.0] * len(flat)
    products = flat @ flat[BLUE]
    scale = lengths * lengths[BLUE]
    return [float(p / s) if s else 0.0 for p, s in zip(products, scale, strict=True)]


def choose_colour(
    contrast: list[float], clear: list[float], alike: list[float] | None = None
) -> int | None:
    """Decide between colours.

    Parameters
    ----------
    contrast : list of float
        Standard deviation of each.
    clear : list of float
        Share of its foreground that becomes objects.
    alike : list of float, optional
        Correlation with blue.

    Returns
    -------
    int or None
        None if nothing does.

    Examples
    --------
    >>> choose_colour([0.0, 9.0, 3.0], [0.0, 0.85, 0.98])  # texture in green, nuclei in blue
    2
    >>> choose_colour([5.0, 9.0, 0.1], [0.97, 0.96, 0.99])  # next to nothing in blue
    1
    >>> choose_colour([9.0, 9.5, 5.0], [0.97, 0.96, 0.99], [0.99, 0.99, 1.0])  # tinted
    1
    >>> choose_colour([0.0, 9.0, 5.0], [0.0, 0.99, 0.85], [0.0, 0.88, 1.0])  # small nuclei in cells
    2
    """
    strong = [c for c, size in enumerate(contrast) if size > FAINT * max(contrast)]
    clearest = max((clear[c] for c in strong), default=0.0)
    good = [c for c in strong if clear[c] >= AS_CLEAR * clearest > 0]
    best = max(good, key=contrast.__getitem__, default=None)
    blue = BLUE in strong and clear[BLUE] >= BLUE_CLEAR * clearest > 0
    if blue and not (alike and best != BLUE and alike[best or 0] > ALIKE):
        return BLUE
    return best
