"""Table, page and pictures of a folder of images that were segmented."""

from __future__ import annotations

import csv
import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from spoco_zoo.beside import OBJECTS
from spoco_zoo.folders import PICTURE
from spoco_zoo.replacing import replacing
from spoco_zoo.report.figures import contact_sheet
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.report.progress import printable
from spoco_zoo.report.sections import provenance
from spoco_zoo.tables import FORMULA, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from spoco_zoo.folder_rows import FolderResult, Row

__all__ = ["TABLE", "remark_zoom", "write_object_table", "write_overview"]

TABLE, PAGE, SHEET = "images.csv", "images.html", "images.png"
COLUMNS = ("image", "objects", "labels", "note")
MOST_SHOWN = 40
"""Pictures on the page; of more images some are shown, evenly spread."""
LONGEST = 42
"""Letters of a name above a picture; more run into the next one."""


def write_overview(result: FolderResult, title: str, remark: str = "") -> Path:
    """Write ``images.csv``, and ``images.html`` with the pictures that there are.

    Parameters
    ----------
    result : FolderResult
    title : str
    remark : str
        What is to be said of all images; see `remark_zoom`.

    Returns
    -------
    Path
        The page.
    """
    result.folder.mkdir(exist_ok=True)
    if any(row.labels and row.beside(OBJECTS) is None for row in result.rows):
        (result.folder / OBJECTS).unlink(missing_ok=True)  # of labels that were replaced
    rows = [
        (_named(row), str(row.objects), printable(row.labels), printable(row.note))
        for row in result.rows
    ]
    table = result.folder / TABLE
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    page = result.folder / PAGE
    html_page(
        page,
        title,
        [
            Section(
                "Images",
                tuple(filter(None, (_counted(result), remark))),
                (COLUMNS, *rows),
            ),
            provenance(),
        ],
        _pictures(result),
    )
    return page


def write_object_table(result: FolderResult) -> tuple[Path, int]:
    """Write ``objects.csv``: the tables of all images, the name of the image before each row.

    Returns
    -------
    path : Path
    lacking : int
        Images that have labels and no table.
    """
    import pandas as pd

    tables, lacking = [], 0
    for row in result.rows:
        if (path := row.beside(OBJECTS)) is None:
            lacking += bool(row.labels)
            continue
        table = pd.read_csv(path)
        table.insert(0, "image", _named(row))
        tables.append(table)
    result.folder.mkdir(exist_ok=True)
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["image"])
    write_table(whole, result.folder / OBJECTS)
    return result.folder / OBJECTS, lacking


def remark_zoom(result: FolderResult) -> str:
    """What to tell of images that the network saw at different sizes; empty if it did not.

    Each is looked at by itself, and fields of one plate may differ by what happens to lie in them.
    Images without objects do not count.
    """
    zooms: Counter[float] = Counter()
    for row in result.rows:
        if row.objects and row.report is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                zooms[float(json.loads(row.report.read_text())["config"]["zoom"] or 1)] += 1
    if len(zooms) < 2:
        return ""
    shown = [
        f"{count} as they are" if zoom == 1 else f"{count} at {zoom:g} times their size"
        for zoom, count in sorted(zooms.items())
    ]
    usual = zooms.most_common(1)[0][0]
    return (
        f"The network saw images at different sizes, by the look of their objects: "
        f"{', '.join(shown)}. If all were taken alike, --zoom {usual:g} --overwrite treats them "
        "alike."
    )


def _named(row: Row) -> str:
    """The image's name in a table: text, though a file's need not be, and no formula."""
    name = printable(row.image)
    return f"./{name}" if name.startswith(FORMULA) else name


def _counted(result: FolderResult) -> str:
    """How many there are, in one sentence."""
    with_labels = sum(bool(row.labels) for row in result.rows)
    return f"{result.objects:,} objects in {with_labels} of {len(result.rows)} images."


def _pictures(result: FolderResult) -> list[Figure]:
    """One picture with the middle of every image, or of some of them; none without reports."""
    shown = [(row, path) for row in result.rows if (path := row.beside(PICTURE))]
    if not shown:
        return []
    step = -(-len(shown) // MOST_SHOWN)
    chosen = shown[::step]
    path = result.folder / SHEET
    contact_sheet([(_title(row), picture) for row, picture in chosen], path)
    some = f" ({len(chosen)} of {len(result.rows)})" if len(chosen) < len(result.rows) else ""
    return [Figure(path, f"The middle of each image{some}, and the outlines of its labels.")]


def _title(row: Row) -> str:
    """Name and count in one line, that of a long name without its middle."""
    name = printable(row.image)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}...{name[-LONGEST // 3 :]}"
    return f"{name}: {row.objects:,}"
