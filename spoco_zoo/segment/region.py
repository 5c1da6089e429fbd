"""The part of an image that is asked for, if model and settings fit the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError
from spoco_zoo.segment.blocks import Box, make_box

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.ngff import Image

__all__ = ["asked_region"]


def asked_region(image: Image, recipe: ModelRecipe, config: SegmentConfig) -> Box:
    """The part of ``config.level`` that is asked for, if model and settings fit the image.

    Raises
    ------
    ConfigError
    """
    shape = _check_image(image, recipe, config)
    if config.roi is None:
        return Box((0,) * len(shape), shape)
    region = make_box(config.roi)
    if any(not a < b <= n for a, b, n in zip(region.start, region.stop, shape, strict=True)):
        raise ConfigError(
            "a region must lie inside the volume and not be empty",
            f"{region} in {' x '.join(map(str, shape))}",
            "Mend --roi.",
        )
    return region


def _check_image(image: Image, recipe: ModelRecipe, config: SegmentConfig) -> tuple[int, ...]:
    """Spatial shape of the level, if model and settings fit the image."""
    if config.level >= len(image.levels):
        raise ConfigError(
            "the level must exist",
            f"level {config.level} of {len(image.levels)} in {image.uri}",
            f"Use --level 0 to {len(image.levels) - 1}.",
        )
    shape = image.spatial_shape(config.level)
    _check_volume(recipe, image)
    for name in ("block", "overlap", "patch", "halo", "roi"):
        value = getattr(config, name)
        if value is not None and len(value) != len(shape):
            raise ConfigError(
                f"{name} must have one entry per spatial axis {','.join(image.spatial)}",
                f"{len(value)} entries",
                f"Give {len(shape)}.",
            )
    _check_planes(recipe, config, len(shape))
    return shape


def _check_planes(recipe: ModelRecipe, config: SegmentConfig, ndim: int) -> None:
    """Whether the patches that are asked for are planes if the model is 2D and the image is not."""
    lead = ndim - recipe.net.ndim
    for name, thickness in (("patch", 1), ("halo", 0)):
        asked = getattr(config, name)
        if lead and asked is not None and asked[0] != thickness:
            raise ConfigError(
                f"a 2D model takes a stack plane by plane: its {name} must be {thickness} along z",
                ",".join(map(str, asked)),
                f"Use --{name} {','.join(map(str, (thickness, *asked[1:])))}.",
            )


def _check_volume(recipe: ModelRecipe, image: Image) -> None:
    """Whether the image is a volume if the model is 3D.

    The message says what to do about slices that were saved as something else, as often happens.
    """
    if recipe.net.ndim <= len(image.spatial):
        return
    n, what = max((image.n_times, "time points (t)"), (image.n_channels, "channels (c)"))
    instead = (
        "Use a 2D model. If it is one plane of a stack, save all planes in one file (in Fiji: "
        "File > Import > Image Sequence, then File > Save As > Tiff)."
    )
    if n > 1:
        instead = (
            f"If its {n} {what} are slices, save it with axes ZYX (in Fiji: Image > Hyperstacks > "
            "Re-order Hyperstack). If they are none, use a 2D model."
        )
    raise ConfigError(
        "a 3D model needs a 3D image", f"axes {','.join(image.axes)} in {image.uri}", instead
    )
