"""Images of a folder, each with its labels: a row of the table, and what is there already."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo import __version__
from spoco_zoo.errors import BlocksFailed
from spoco_zoo.naming import stem
from spoco_zoo.ngff import is_label_tiff, is_remote, is_tiff_name, open_image
from spoco_zoo.ngff.target import state_of
from spoco_zoo.segment import SegmentResult
from spoco_zoo.segment.ledger import REPORT, is_unfinished
from spoco_zoo.segment.output.target import default_output, run_folder
from spoco_zoo.segment.plan import FORMAT

if TYPE_CHECKING:
    from spoco_zoo.errors import InputError
    from spoco_zoo.ngff import Image

__all__ = ["FolderResult", "Overwriting", "Place", "Row", "find_place", "labels_at"]

OVERWRITTEN = "overwritten.jsonl"
VERSION = f"{__version__}, format {FORMAT}"
NAMED = 5
"""So many images without labels are told of at the end; all are in the table."""


@dataclass(frozen=True)
class Row:
    """An image of the folder and what became of it."""

    image: str
    """Name of its file, or its path in a plate."""
    labels: str = ""
    """Where its labels are; empty if there are none."""
    objects: int = 0
    note: str = ""
    """What the run told of it, or why it has no labels."""
    left: bool = False
    """Whether it had its labels already."""
    model: str = ""
    """Fingerprint of the model that had made these, if it was noted."""
    report: Path | None = None
    """Its ``segment.json``, beside which lie picture, page and table."""

    def beside(self, name: str) -> Path | None:
        """A file of its run, if it is there."""
        path = None if self.report is None else self.report.with_name(name)
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class FolderResult:
    """What became of a folder."""

    folder: Path
    """Of table and page of all images."""
    rows: tuple[Row, ...]
    failures: tuple[InputError | BlocksFailed, ...] = field(default=(), repr=False)

    @property
    def objects(self) -> int:
        """Of all images together."""
        return sum(row.objects for row in self.rows)

    def check(self) -> None:
        """Raise if images have no labels, or lack some.

        Raises
        ------
        InputError
            If no image has any.
        BlocksFailed
        """
        if not self.failures:
            return
        if not any(row.labels for row in self.rows):
            raise self.failures[0]
        wanting = [row for row in self.rows if not row.labels]
        named = "; ".join(f"{row.image}: {row.note.rstrip('.')}" for row in wanting[:NAMED])
        more = f"; and {len(wanting) - NAMED} more" if len(wanting) > NAMED else ""
        raise BlocksFailed(
            f"{len(wanting)} of {len(self.rows)} images lack labels: {named}{more}. The same "
            "command tries these again."
        )


@dataclass(frozen=True)
class Place:
    """Where the labels of an image go, and what is there already."""

    output: str | None
    """As `spoco_zoo.segment.segment` takes it."""
    labels: str = ""
    """Where finished labels lie that are to be left; empty if there are none."""
    done: SegmentResult | None = None
    """Their run, if its report can be read."""

    def row(self, name: str) -> Row:
        """That of the image of this name, which has its labels."""
        if self.done is None:
            note = "How many objects it has is not known: its segment.json cannot be read."
            return Row(name, self.labels, 0, note, left=True)
        summary = self.done.summary
        model = dict(summary.get("model") or {}).get("fingerprint", "")
        note = _told_before(summary)
        return Row(name, self.labels, self.done.objects, note, True, model, self.done.report)


class Overwriting:
    """Names of the images that a run with ``--overwrite`` has done, should it be stopped.

    A JSON line each, beside the table: the version that did it, and the name. Those of another
    version are done again. The file is gone once the command has come to its end.

    Parameters
    ----------
    folder : Path
        Of table and page of all images.
    wanted : bool
        Without ``--overwrite`` nothing is read or written.
    """

    def __init__(self, folder: Path, *, wanted: bool) -> None:
        self._path, self._wanted = folder / OVERWRITTEN, wanted
        self.names: set[str] = set()
        if wanted and self._path.is_file():
            for line in self._path.read_text(errors="replace").splitlines():
                with suppress(ValueError):  # a last line that was cut
                    version, name = json.loads(line)
                    if version == VERSION:
                        self.names.add(name)

    def add(self, name: str) -> None:
        """One more is done."""
        if self._wanted and name not in self.names:
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("a") as file:
                file.write(f"{json.dumps([VERSION, name])}\n")

    def end(self) -> None:
        """All were tried."""
        if self._wanted:
            self._path.unlink(missing_ok=True)


def find_place(
    name: str, path: Path, folder: Path | None, label_name: str, *, overwrite: bool
) -> Place:
    """Where the labels of an image go.

    Parameters
    ----------
    name : str
        Of the image; see `spoco_zoo.image_folder.find_images`.
    path : Path
    folder : Path, optional
        For the labels of all images.
    label_name : str
    overwrite : bool
        Labels that are there do not count.

    Raises
    ------
    InputError
        If the image cannot be opened.
    """
    image = open_image(path)
    parts = name.split("/")
    called = "_".join(stem(Path(part)) for part in parts) if len(parts) > 1 else ""
    output = default_output(image, label_name, folder, called)
    return Place(output) if overwrite else labels_at(image, output, label_name)


def labels_at(image: Image, output: str | None, label_name: str) -> Place:
    """What lies where the labels of an image go; without an output, inside the image."""
    run = run_folder(image, output, label_name)
    place = output or f"{image.uri}/labels/{label_name}"
    if is_unfinished(run) or not _are_labels(place):
        return Place(output)
    labels = place if is_remote(place) else os.path.realpath(place)
    return Place(output, labels, _read_run(labels, run / REPORT))


def _read_run(labels: str, report: Path) -> SegmentResult | None:
    """The finished run of labels that are there; None if its report cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        summary = json.loads(report.read_text())
        return SegmentResult(labels, report, int(summary["objects"]), 0, 0, summary)
    return None


def _told_before(summary: dict[str, Any]) -> str:
    """What a run told of its image, by its report."""
    said = summary.get("plan", {}).get("notes", "none"), summary.get("hint", "")
    return " ".join(text for text in said if text not in ("", "none"))


def _are_labels(place: str) -> bool:
    """Whether labels that this package wrote are at a place."""
    return is_label_tiff(place) if is_tiff_name(place) else state_of(place) == "label"
