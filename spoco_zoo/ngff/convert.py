"""Between TIFF and OME-Zarr, piece by piece, whatever the size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.ngff.convert_tiff import to_tiff
from spoco_zoo.ngff.convert_zarr import Progress, plan_pyramid, to_zarr
from spoco_zoo.ngff.image import Image
from spoco_zoo.ngff.labels import label_names
from spoco_zoo.ngff.opening import open_image
from spoco_zoo.ngff.project import project
from spoco_zoo.ngff.store import is_remote, is_tiff_name, local_path
from spoco_zoo.ngff.target import check_outside, check_suffix
from spoco_zoo.workplace import FORMER, put_in_place, workplace

__all__ = ["convert"]


def convert(
    source: str | Path,
    target: str | Path,
    *,
    chunk: Sequence[int] | None = None,
    version: str = "0.5",
    labels: bool = False,
    level: int = 0,
    series: int | None = None,
    projected: bool = False,
    overwrite: bool = False,
    on_note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Convert TIFF to OME-Zarr with a pyramid, OME-Zarr to TIFF or to its other version.

    Memory does not grow with the image. The target appears under its name
    only when complete.

    Parameters
    ----------
    source : str or path
        TIFF, OME-TIFF, BigTIFF, ImageJ hyperstack, or OME-Zarr.
    target : str or path
        ``.tif`` or ``.tiff`` for an OME-TIFF of one level, else an OME-Zarr folder.
    chunk : sequence of int, optional
        Chunk per spatial axis; a shard holds four chunks a side.
    version : {"0.5", "0.4"}
        OME-Zarr version to write.
    labels : bool
        The image holds labels: levels take the most frequent label instead of
        the mean. Implied by a source that says so.
    level : int
        Level of the source to convert.
    series : int, optional
        TIFF only: which image of a file that holds several, by default its first.
    projected : bool
        Of a stack the highest value of all planes at each pixel, an image without z.
    overwrite : bool
        Replace an existing target of the same kind.
    on_note : callable, optional
        Told, before anything is written, what is taken for granted about the source.
    progress : callable, optional
        Called with units done and units in total.

    Raises
    ------
    ConfigError
        If labels are to be projected.
    StoreError
        If the source cannot be read, is to be projected and no stack, or the target not be
        written or replaced.
    LedgerError
        If another process is making the same target.
    """
    image = open_image(source, series=series, numbers=labels)
    if projected:
        if labels:
            raise ConfigError("labels are not projected", "--labels", "Leave one of both out.")
        image = project(image)
    place = local_path(target)
    if not 0 <= level < len(image.levels):
        raise StoreError(
            f"the level must be 0 to {len(image.levels) - 1}", str(level), "Choose another."
        )
    _check_target(image, place, overwrite)
    if on_note is not None:
        for note in (*image.notes, *_left_behind(image, level, is_tiff_name(place))):
            on_note(note)
    report = progress or (lambda done, total: None)
    plan = None
    if not is_tiff_name(place):
        plan = plan_pyramid(image, level, chunk, version, labels or image.is_label)
    try:
        goal = Path(os.path.realpath(place))  # a link stays, and what it leads to is replaced
        with workplace(goal) as work:
            _check_target(image, place, overwrite)  # the workplace may have put one back
            made = work / goal.name
            if plan is None:
                to_tiff(image, made, level, report)
            else:
                to_zarr(image, level, plan, made, report)
            put_in_place(made, goal, work / FORMER)
    except OSError as error:
        raise StoreError(
            "the target must be writable", str(error), "Choose another place."
        ) from error


def _left_behind(image: Image, level: int, tiff: bool) -> Iterator[str]:
    """What to say of a place, which a TIFF does not state, and of labels within an image."""
    if tiff and any(image.levels[0].translation):
        place = ", ".join(
            f"{axis} {shift:g}{f' {unit}' if unit else ''}"
            for axis, shift, unit in zip(
                image.axes, image.levels[level].translation, image.units, strict=True
            )
            if shift
        )
        yield f"A TIFF does not say where its image lies: {place} is left out."
    names: tuple[str, ...] = ()
    with contextlib.suppress(StoreError):  # a list of labels that is damaged is none of convert's
        names = label_names(image)
    if names:
        yield (
            f"Its labels ({', '.join(names)}) are not converted with the image: convert each by "
            f"its path, {image.uri}/labels/{names[0]}."
        )


def _check_target(image: Image, place: str, overwrite: bool) -> None:
    """Raise unless the target is a free local path, or one that may be replaced."""
    if is_remote(place):
        raise StoreError("the target must be local", place, "Convert here, then upload.")
    check_suffix(place)
    check_outside(image, place)
    if not os.path.isdir(os.path.dirname(place)):
        raise StoreError("the target's folder must exist", os.path.dirname(place), "Make it.")
    if os.path.lexists(place):
        if not overwrite:
            raise StoreError(
                "an existing target is not replaced",
                place,
                "Choose another target, or add --overwrite.",
            )
        try:
            kind = open_image(place).kind
        except StoreError as error:
            raise StoreError(
                "only images are ever replaced",
                f"something else at {place}",
                "Move it away, or choose another target.",
            ) from error
        if (kind == "tiff") != is_tiff_name(place):
            raise StoreError(
                "only a target of the same kind is replaced", place, "Choose another target."
            )
