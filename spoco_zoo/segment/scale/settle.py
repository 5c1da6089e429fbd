"""What is found out about an image before a network is shown it: its colour, light and scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spoco_zoo.segment.channels import choose_axes
from spoco_zoo.segment.region import asked_region
from spoco_zoo.segment.scale.colours import with_colour
from spoco_zoo.segment.scale.light import with_light
from spoco_zoo.segment.scale.looking import find_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.nets.model import Model
    from spoco_zoo.ngff import Image

__all__ = ["Settled", "settle"]


class Settled(NamedTuple):
    """Settings of which nothing that can be found out is left open, and why they are what they are.

    Notes are empty where the user decided, or where an image is taken as it is.
    """

    config: SegmentConfig
    channel_note: str
    light_note: str
    zoom_note: str


def settle(
    image: Image,
    model: Model,
    config: SegmentConfig,
    earlier: Callable[[str], str | None] = lambda name: None,
) -> Settled:
    """Look at an image, on the CPU, as far as the user has left open how it is to be shown.

    Parameters
    ----------
    image : Image
    model : Model
    config : SegmentConfig
    earlier : callable, optional
        Gives a setting by name as the ledger of a run that goes on has it; None if there is none.

    Returns
    -------
    Settled

    Raises
    ------
    ConfigError
        If model and settings do not fit the image.
    """
    # Refused before anything is looked at.
    asked_region(choose_axes(image, model.recipe), model.recipe, config)
    config, channel_note = with_colour(image, model, config, earlier("channel"))
    config, light_note = with_light(image, model, config, earlier("invert"))
    config, zoom_note = _with_scale(image, model, config, earlier("zoom"))
    return Settled(config, channel_note, light_note, zoom_note)


def _with_scale(
    image: Image, model: Model, config: SegmentConfig, earlier: str | None
) -> tuple[SegmentConfig, str]:
    """Settings with the zoom of an image whose voxel size does not tell, and a note."""
    if config.zoom is not None or earlier == str(None):
        return config, ""
    if earlier is None:
        zoom, note = find_scale(image, model, config)
    else:
        zoom = float(earlier)
        note = f"The network sees the image at {zoom:g} times its size, as before."
    if zoom == 1 and not note:
        return config, ""
    return config.model_copy(update={"zoom": zoom}), note
