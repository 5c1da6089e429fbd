"""PNG and JPEG: what a picture holds, and its pixels.

A picture has no axes but y, x and colours, no physical size, and is decoded as a
whole; images that are too large for that are stored as TIFF or OME-Zarr.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image as Decoder

__all__ = ["PICTURE_SUFFIXES", "PictureArray", "is_picture", "read_picture"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")


def is_picture(magic: bytes) -> bool:
    """Whether a file that begins so is a PNG or a JPEG."""
    return magic.startswith(_MAGIC)


def read_picture(path: str | Path, *, numbers: bool = False) -> NDArray[Any]:
    """Read a PNG or a JPEG.

    Parameters
    ----------
    path : path
        The file.
    numbers : bool
        Labels: the numbers of an indexed PNG in place of their colours.

    Returns
    -------
    ndarray
        ``(Y, X)`` or, of colours, ``(Y, X, 3)``, without transparency. Numbers of 8 or
        16 bits; black and white are bool.

    Raises
    ------
    StoreError
        If the file cannot be read, is too large, or labels are stored with loss.
    """
    import imagecodecs

    with _opened(path) as picture:
        if numbers and picture.format == "JPEG":
            raise StoreError(
                "labels must be stored without loss",
                f"a JPEG at {path}",
                "Export them as TIFF or PNG.",
            )
        if picture.mode == "1" or (numbers and picture.mode == "P"):
            return np.asarray(picture)
        if picture.mode in ("P", "CMYK"):
            return np.asarray(picture.convert("RGB"))
        if picture.format == "JPEG":
            picture.load()  # the decoder below fills in what a cut file lacks
        # Pillow itself would cut colours of 16 bits down to 8.
        codec = str(picture.format).lower()
        array = np.asarray(imagecodecs.imread(str(path), codec=codec))
    # The last one of two or four is transparency.
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        array = array[..., :-1]
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array


@dataclass(frozen=True)
class PictureArray:
    """Pixels ``([C,] Y, X)`` of a picture, decoded at the first look at them."""

    path: str
    numbers: bool = False

    @cached_property
    def pixels(self) -> NDArray[Any]:
        """All of them, native byte order."""
        array = read_picture(self.path, numbers=self.numbers)
        array = array if array.ndim == 2 else np.moveaxis(array, -1, 0)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.pixels.shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """As `shape`: a picture is decoded as a whole."""
        return self.pixels.shape

    def read(self, where: Sequence[slice]) -> NDArray[Any]:
        """Return a copy of the region `where`, one slice per axis."""
        return np.array(self.pixels[tuple(where)])


@contextmanager
def _opened(path: str | Path) -> Iterator[Decoder]:
    """The picture, its header read; whatever fails inside is said to be the file's fault."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG", "JPEG"]) as picture:
                yield picture
    except (MemoryError, StoreError):
        raise
    # A small file can claim any size, so Pillow has a limit.
    except Image.DecompressionBombError as error:
        raise StoreError(
            "a picture must be of moderate size",
            f"{error} ({path})",
            "Save it as TIFF or OME-Zarr.",
        ) from error
    # Decoders raise errors of their own for damaged files.
    except Exception as error:
        reason = one_line(error)
        raise StoreError(
            "a picture must be readable", f"{reason} ({path})", "Export it again, best as TIFF."
        ) from error
