"""A folder of images, or a plate, segmented one after another.

One command, files of each image and of all of them::

    images/a.tif          labels/a.tif           labels.spoco-run/images.csv
           b.tif   ---->         b.tif     and                    images.html, images.png
           c.ome.zarr            c.ome.zarr                       objects.csv (with tables)

    plate.ome.zarr/A/1/0         labels/A_1_0.ome.zarr
                  /B/1/0                B_1_0.ome.zarr

Each image is segmented as it would be alone, with files of its own beside its labels. What is done
is left as it is, so the same command goes on after a stop; one image that cannot be used does not
keep the others from their labels. Without a folder for the labels each lie where they would for
the image alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo.beside import OBJECTS, is_of, lacks_page, measure_result, write_beside
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import (
    BlocksFailed,
    ConfigError,
    GoneError,
    InputError,
    Interrupted,
    RemoteError,
    lacks_room,
)
from spoco_zoo.folder_rows import FolderResult, Overwriting, Row, find_place
from spoco_zoo.image_folder import find_images
from spoco_zoo.ngff import is_remote, is_tiff_name
from spoco_zoo.run_folder import RUN_ENDING
from spoco_zoo.segment import check_machines
from spoco_zoo.segment.network.models import ModelRef, read_model
from spoco_zoo.workflow import segment_with_pictures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.folder_rows import Place
    from spoco_zoo.report.progress import Display
    from spoco_zoo.segment import SegmentResult

__all__ = [
    "PICTURE",
    "done_before",
    "folder_for",
    "folder_of",
    "segment_folder",
]

PICTURE = "segment.png"
PLACE = ("channel", "level", "roi", "voxel_size")
"""Settings that say what of an image was segmented."""


def segment_folder(
    source: str,
    model: str,
    config: SegmentConfig,
    display: Display,
    *,
    only: str | None = None,
    output: str | None = None,
    label_name: str = "spoco",
    overwrite: bool = False,
    report: bool = True,
    measure: bool = False,
    workers: int = 0,
    gpus: Sequence[str | int] = (),
    scheduler: str | None = None,
    device: str = "auto",
    **options: Any,
) -> FolderResult:
    """Segment every image of a folder.

    Parameters
    ----------
    source : str
        A local folder of OME-Zarr, TIFF, PNG and JPEG, or an OME-Zarr plate, well or collection.
    model, config, display, report
        See `spoco_zoo.workflow.segment_with_pictures`, as for further `options`.
    only : str, optional
        Pattern of the names of images; see `spoco_zoo.image_folder.find_images`.
    output : str, optional
        Folder for the labels: TIFF, or OME-Zarr for an image that is one or is large.
    label_name : str
    overwrite : bool
        Segment images anew that have labels, but for those that the same command has done before
        it was stopped.
    measure : bool
        Measure the objects of every image.
    workers, gpus, scheduler, device
        See `spoco_zoo.segment.segment`; workers start anew for every image.

    Returns
    -------
    FolderResult
        With a row for every image; `FolderResult.check` raises if any lacks labels.

    Raises
    ------
    InputError
        If folder, model or settings cannot be used.
    SpocoError
        If the work itself fails, for want of room above all, or is interrupted. Called again, it
        goes on.
    """
    images, note = find_images(Path(source), only)
    target = folder_for(output)
    # Faults of these are none of an image, and told of once.
    check_machines(workers, gpus, scheduler, device)
    loaded = read_model(model, config.clustering)
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    if note:
        display.note(note)
    asked: list[bool] = []
    options |= dict(workers=workers, gpus=gpus, scheduler=scheduler, device=device)
    options |= dict(on_stop=lambda: asked.append(True))
    known = ModelRef(model, loaded.fingerprint, model=loaded)
    before = Overwriting(folder_of(source, output), wanted=overwrite)
    work = _Work(
        known, config, target, label_name, overwrite, before.names, report, measure, options
    )
    rows, failures = [], []
    for done, (name, image) in enumerate(images.items()):
        if asked:  # while the last phases of the image before were at work
            raise Interrupted("stopped; the same command goes on with the other images")
        shown = _OfOne(display, name, done, len(images))
        try:
            rows.append(work.row(name, image, shown))
            before.add(name)
        except (InputError, BlocksFailed) as error:
            if isinstance(error, RemoteError) and not isinstance(error, GoneError):
                raise
            if lacks_room(error):
                raise
            failures.append(error)
            rows.append(Row(name, note=str(error)))
            shown.note(str(error))
    display.update("images", len(images), len(images))
    before.end()
    if left := [row for row in rows if row.left]:
        display.note(_of_left(left, loaded.fingerprint, overwrite=overwrite))
    return FolderResult(folder_of(source, output), tuple(rows), tuple(failures))


def _of_left(left: Sequence[Row], model: str, *, overwrite: bool) -> str:
    """What to tell of images that had their labels."""
    if overwrite:
        return f"Images that the same command had done before it was stopped: {len(left)}."
    others = sum(row.model != model for row in left)
    made = f"; made by another model or version: {others}" if others else ""
    return f"Images that had labels are left as they are: {len(left)}{made} (--overwrite)."


def folder_of(source: str, output: str | None) -> Path:
    """Where table and page of all images are; for one run at a time.

    Raises
    ------
    ConfigError
        If labels cannot go to `output`.
    """
    return Path(f"{os.path.realpath(folder_for(output) or source)}{RUN_ENDING}")


def folder_for(output: str | None) -> Path | None:
    """The folder of the labels, which need not be there.

    Raises
    ------
    ConfigError
        If it is no local folder.
    """
    if output is None:
        return None
    folder = Path(output)
    if is_remote(output) or is_tiff_name(output) or output.rstrip("/").endswith(".zarr"):
        raise ConfigError(
            "labels of a folder of images need a local folder", output, "Name one with --output."
        )
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(
            "labels of a folder of images need a folder", f"a file at {output}", "Name another."
        )
    return folder


def done_before(
    name: str,
    image: Path,
    folder: Path | None,
    model: ModelRef,
    config: SegmentConfig,
    label_name: str,
    version: str | None,
) -> Place | None:
    """Where an image has the labels that this command makes of it; None if it has others."""
    place = find_place(name, image, folder, label_name, overwrite=False)
    where = dict(output=place.output, label_name=label_name, version=version)
    same = place.done is not None and is_of(place.done, str(image), model, config, where)
    return place if same else None


def _what_was_seen(summary: dict[str, Any]) -> SegmentConfig:
    """Settings that say so; the others may be called otherwise by the version that wrote them."""
    settings = dict(summary.get("config") or {})
    return SegmentConfig.checked({name: settings[name] for name in PLACE if name in settings})


@dataclass(frozen=True)
class _Work:
    """What is asked for of every image; see `segment_folder`."""

    model: ModelRef
    config: SegmentConfig
    folder: Path | None
    label_name: str
    overwrite: bool
    overwritten: set[str]
    """Images that were done with `overwrite` before."""
    report: bool
    measure: bool
    options: dict[str, Any]

    def row(self, name: str, image: Path, shown: _OfOne) -> Row:
        """Segment an image, or fill in what is missing beside labels that are there."""
        place = find_place(name, image, self.folder, self.label_name, overwrite=self.overwrite)
        if name in self.overwritten:
            asked = self.label_name, self.options.get("version")
            place = done_before(name, image, self.folder, self.model, self.config, *asked) or place
        if not place.labels:
            return self._segmented(name, image, place.output, shown)
        had = place.row(name)
        if place.done:
            # The region is that of their run, whatever is asked for now.
            config = _what_was_seen(place.done.summary)
            if lacks_page(place.done.report, page=self.report):  # it was stopped before
                write_beside(str(image), place.done, config, shown, report=self.report)
            if self.measure and had.beside(OBJECTS) is None:
                self._measure(image, place.done, config, shown)
        return had

    @staticmethod
    def _measure(image: Path, done: SegmentResult, config: SegmentConfig, shown: _OfOne) -> None:
        """A table that cannot be made is told of, and costs no image its labels."""
        try:
            measure_result(str(image), done.output, done.report, config, shown)
        except RemoteError:
            raise
        except InputError as error:
            shown.note(f"no table of its objects: {error}")

    def _segmented(self, name: str, image: Path, output: str | None, shown: _OfOne) -> Row:
        result = segment_with_pictures(
            str(image),
            self.model,
            self.config,
            shown,
            report=self.report,
            output=output,
            label_name=self.label_name,
            overwrite=self.overwrite,
            **self.options,
        )
        if self.measure:
            self._measure(image, result, self.config, shown)
        told = " ".join(shown.notes)
        return Row(name, result.output, result.objects, told, report=result.report)


class _OfOne:
    """The display of one image among others: its phases are details of one."""

    def __init__(self, display: Display, name: str, done: int, total: int) -> None:
        self._display, self._name = display, name
        self._done, self._total = done, total
        self.notes: list[str] = []
        display.update("images", done, total, name)

    def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
        parts = f"{self._name}: {phase} {done}/{total}", detail
        self._display.update(
            "images", self._done, self._total, ", ".join(part for part in parts if part)
        )

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._display.note(f"{self._name}: {text}")
