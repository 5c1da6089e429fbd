"""What a TIFF says that its values stand for: light, colours, or numbers of colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import tifffile

from spoco_zoo.errors import StoreError

__all__ = ["check_colours", "is_indexed", "palette_error"]

JPEGS = (
    "JPEG",
    "OJPEG",
    "JPEG_LOSSY",
    "APERIO_JP2000_YCBC",
    "APERIO_JP2000_RGB",
    "JPEG_2000_LOSSY",
)
"""Compressions whose decoders give red, green and blue for other colour spaces."""
RISING = 0.8
"""Least share of steps to a brighter entry of a palette that only tints an image."""


def check_colours(page: Any, path: str) -> None:
    """Refuse colour spaces whose samples are no red, green and blue.

    Raises
    ------
    StoreError
    """
    known = tifffile.PHOTOMETRIC
    space, packing = known(page.photometric), tifffile.COMPRESSION(page.compression)
    decoded = space == known.YCBCR and packing.name in JPEGS
    if space in (known.SEPARATED, known.CIELAB, known.ICCLAB, known.ITULAB) or (
        space == known.YCBCR and not decoded
    ):
        raise StoreError(
            "a TIFF in colours must hold red, green and blue",
            f"{'CMYK' if space == known.SEPARATED else space.name} in {path}",
            "Save it as RGB, or each stain as a channel of its own.",
        )


def is_indexed(page: Any) -> bool:
    """Whether values are numbers of colours that tell nothing of how bright a pixel is.

    Fiji stores 8-bit images with a palette that tints them: its entries become brighter.
    """
    palette = getattr(page, "colormap", None)
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or palette is None:
        return False
    steps = np.diff(np.asarray(palette, np.float64).sum(axis=0))
    steps = steps[steps != 0]  # entries that are not in use are all black
    return bool(steps.size and (steps > 0).mean() < RISING)


def palette_error(path: str) -> StoreError:
    """What to raise where intensities are needed and values are numbers of colours."""
    return StoreError(
        "values must be intensities",
        f"numbers of colours in a palette in {path}",
        "Save it as RGB, in Fiji: Image > Type > RGB Color.",
    )
