"""What files of images and labels are called, and which belong together by that."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SUFFIXES", "by_name", "is_named_labels", "stem", "visible"]

SUFFIXES = (".tif", ".tiff", ".lsm", ".png", ".npy", ".npz", ".h5", ".hdf5", ".zarr")
LABEL_ENDINGS = (".spoco", "_cp_masks")
"""What this program and Cellpose append to the name of an image to name its labels."""


def stem(path: Path) -> str:
    """Name of an image without its suffix, or of its labels without what that program appends."""
    # macOS takes letters and accents apart, other systems do not.
    return _without(unicodedata.normalize("NFC", path.name), SUFFIXES, (".ome",), LABEL_ENDINGS)


def _without(name: str, *kinds: Sequence[str]) -> str:
    """A name without one ending of each kind, in that order, in small letters or capitals."""
    for endings in kinds:
        ending = next((e for e in endings if name.lower().endswith(e)), "")
        name = name[: len(name) - len(ending)]
    return name


def is_named_labels(path: Path) -> bool:
    """Whether a name has what a program appends to that of an image to name its labels."""
    return _without(path.name, SUFFIXES, (".ome",)).lower().endswith(LABEL_ENDINGS)


def visible(paths: Iterable[Path]) -> Iterable[Path]:
    """Without hidden files, as macOS leaves them (``._a.tif``) beside those that it copies."""
    return (path for path in paths if not path.name.startswith("."))


def by_name(entries: Iterable[tuple[str, Path]], what: str) -> dict[str, Path]:
    """Files by name; names that two files share are refused, as one would hide the other."""
    found: dict[str, Path] = {}
    for name, path in entries:
        if name in found:
            raise DataError(
                f"{what} must have names that are unique without their suffixes",
                f"{found[name]} and {path}",
                "Rename one of them, or give images and labels a folder each.",
            )
        found[name] = path
    return found
