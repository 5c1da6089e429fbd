"""What lies in a folder of images: OME-Zarr, TIFF, PNG and JPEG, and labels that do not count."""

from __future__ import annotations

import os
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo.errors import DataError, InputError
from spoco_zoo.naming import by_name, is_named_labels, stem, visible
from spoco_zoo.ngff import is_label_tiff, open_image
from spoco_zoo.ngff.collections import images_of
from spoco_zoo.ngff.opening import holds_zarr, is_plain_folder
from spoco_zoo.ngff.picture import PICTURE_SUFFIXES
from spoco_zoo.ngff.store import TIFF_INPUTS
from spoco_zoo.ngff.tiff_set import named_files
from spoco_zoo.run_folder import RUN_ENDING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_images", "is_folder_of_images"]


def is_folder_of_images(place: str) -> bool:
    """Whether a local folder holds what is an image by name, or is a plate and the like."""
    if is_plain_folder(place):
        return any(_candidates(Path(place)))
    return os.path.isdir(place) and images_of(place) is not None


def find_images(folder: Path, only: str | None = None) -> tuple[dict[str, Path], str]:
    """The images of a folder, or of a plate, and what to tell of the rest of it.

    Labels are left out: those of this package, and what is named as Cellpose names masks.

    Parameters
    ----------
    folder : Path
    only : str, optional
        Pattern of their names, with * for any letters, ? for one and [12] for some.

    Returns
    -------
    images : dict of str to Path
        By name, in order. Those of a plate, well or collection are called by their path in it, as
        ``A/1/0``, with its own name before if it lies in the folder.
    note : str

    Raises
    ------
    DataError
        If there is none, or two differ in their ending alone.
    """
    if holds_zarr(folder):
        images, absent = _inside(folder, "")
        return _chosen(images, only, folder), _note_absent(absent)
    found = sorted(_candidates(folder))
    alone = [path for path in found if not _holds_labels(path)]
    if not alone:
        raise DataError(
            "a folder to be segmented must hold images",
            f"labels alone in {folder}",
            "Check the path.",
        )
    labels = len(found) - len(alone)
    alone, parts = _whole(alone)
    images, absent = {}, 0
    for path in alone:
        several, lost = _inside(path, f"{path.name}/") if path.is_dir() else ({}, 0)
        images |= several or {path.name: path}
        absent += lost
    images = _chosen(images, only, folder)
    files = (path for name, path in images.items() if "/" not in name)
    by_name(((stem(path), path) for path in files), "images of a folder")
    deeper = sum(path.is_dir() and not _is_known(path) for path in visible(folder.iterdir()))
    notes = [f"Labels among the images are left out: {labels}."] if labels else []
    if parts:
        notes.append(
            f"Files that are parts of an image, which is read with another of its files: {parts}."
        )
    if deeper:
        notes.append(f"Folders in {folder} are left out: {deeper}. Give each by itself.")
    return images, " ".join([*notes, _note_absent(absent)]).strip()


def _chosen(images: dict[str, Path], only: str | None, folder: Path) -> dict[str, Path]:
    """Images whose names match a pattern, if there is one."""
    if only is None:
        return images
    found = {name: path for name, path in images.items() if fnmatchcase(name, only)}
    if not found:
        raise DataError(
            "--only must match the name of an image",
            f"{only!r} for {len(images)} in {folder}, such as {next(iter(images))}",
            "Mend the pattern, in quotes: * stands for any letters.",
        )
    return found


def _inside(place: Path, before: str) -> tuple[dict[str, Path], int]:
    """Images of a plate, well or collection by name, and how many it lists that are not there."""
    try:
        found = images_of(str(place))
    except InputError:
        if not before:
            raise
        found = None  # told of when its turn comes
    if found is None:
        return {}, 0
    names, absent = found
    if not names and not before:
        raise DataError(
            "a plate, well or collection must hold images",
            f"none of {absent} that are listed in {place}",
            "Copy it again from its origin.",
        )
    return {before + name: place / name for name in names}, absent


def _note_absent(count: int) -> str:
    return f"Listed in the metadata, but not there: {count} wells or fields." if count else ""


def _whole(paths: list[Path]) -> tuple[list[Path], int]:
    """One file for each image that lies in several, and how many others these are."""
    others: dict[str, Path] = {}
    for path in paths:
        if path.is_file() and os.path.abspath(path) not in others:
            others |= {file: path for file in named_files(path) if file not in others}
    kept = [path for path in paths if others.get(os.path.abspath(path), path) == path]
    return kept, len(paths) - len(kept)


def _is_known(folder: Path) -> bool:
    """Whether a folder is an image, or belongs to a run."""
    return holds_zarr(folder) or folder.suffix == RUN_ENDING


def _candidates(folder: Path) -> Iterator[Path]:
    """What is an image by its name, or a Zarr."""
    for path in visible(folder.iterdir()):
        if path.is_dir():
            if holds_zarr(path):
                yield path
        elif path.suffix.lower() in (*TIFF_INPUTS, *PICTURE_SUFFIXES):
            yield path


def _holds_labels(path: Path) -> bool:
    """Whether an image of a folder is none."""
    if is_named_labels(path):
        return True
    if path.is_file():
        return is_label_tiff(path)
    with suppress(InputError):  # what cannot be read is told of when its turn comes
        return open_image(path).is_label
    return False
