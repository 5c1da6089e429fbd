r"""Images and files of an OME-TIFF need not be the same: which file is whose.

::

    a_w1.tif --\                         Pos0.tif ----> image 0
    a_w2.tif ----> one image             Pos1.tif ----> image 1
    a_w3.tif --/                         Pos2.tif ----> image 2

Either way each file may describe all, or one of them does and the others name it. A file stands for
the images that have planes in it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.missing import check_beside, ome_root

__all__ = ["files_of", "named_files", "open_tiff", "own_series", "read_series"]


def open_tiff(path: str | Path) -> tifffile.TiffFile:
    """Open a TIFF, or the file that describes its planes.

    Raises
    ------
    StoreError
        If that file is not there, or others that it names lie elsewhere.
    """
    with ExitStack() as opened:
        tiff = opened.enter_context(tifffile.TiffFile(path))
        if tiff.is_ome and (name := _described_in(tiff)):
            place = os.path.join(os.path.dirname(os.path.realpath(path)), name)
            if not os.path.isfile(place):
                raise StoreError(
                    "the file that describes an OME-TIFF must lie beside it",
                    f"no {name}, for {path}",
                    "Copy all files of the image into one folder.",
                )
            opened.close()
            tiff = opened.enter_context(tifffile.TiffFile(place))
        check_beside(tiff, str(path))
        if tiff.is_ome and tiff.is_mmstack and "R" in tiff.series[0].axes:
            # Micro-Manager's own words make all positions one array, its OME-XML an image of each.
            place = tiff.filehandle.path
            opened.close()
            tiff = tifffile.TiffFile(place, is_mmstack=False)
        opened.pop_all()
    return tiff


def own_series(tiff: tifffile.TiffFile, path: str | Path) -> tuple[int, ...]:
    """Series that have planes in the file at `path`: all of them, but for sets of files.

    Of a Zeiss LSM not the small pictures that lie between its planes.

    All, too, if it has none and but describes those of other files.

    Raises
    ------
    StoreError
        If another one describes it, and not under its name.
    """
    every = tuple(range(len(tiff.series)))
    if tiff.is_lsm:
        return tuple(i for i in every if not tiff.series[i].keyframe.is_reduced) or every
    if not tiff.is_ome:
        return every
    here = os.path.realpath(path)  # as tifffile names files
    own = tuple(
        i
        for i in every
        if any(
            page is not None and page.parent.filehandle.path == here
            for page in tiff.series[i].pages
        )
    )
    if not own and tiff.filehandle.path != here:
        raise StoreError(
            "the file that describes an OME-TIFF must name it",
            f"none of its planes in {tiff.filename}, for {path}",
            "Give it the name back that it was saved under.",
        )
    return own or every


def files_of(series: tifffile.TiffPageSeries) -> tuple[str, ...]:
    """Absolute paths of the files that hold planes of a series, in order."""
    if not series.is_multifile:
        return (series.keyframe.parent.filehandle.path,)
    return tuple(sorted({page.parent.filehandle.path for page in series.pages if page is not None}))


def named_files(path: str | Path) -> tuple[str, ...]:
    """Absolute paths of the files of the image that a file stands for, by its own OME-XML.

    None of the others is opened, of which each may name hundreds. Empty if the file names none,
    or cannot be read.
    """
    here = os.path.abspath(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            root = ome_root(tiff)
    except Exception:  # told of where the image is opened; damaged files fail in many ways
        return ()
    for image in (node for node in root if node.tag.endswith("Image")):
        uuids = (node for node in image.iter() if node.tag.endswith("UUID"))
        named = {os.path.join(os.path.dirname(here), node.get("FileName", "")) for node in uuids}
        if here in named:
            return tuple(sorted(named))
    return ()


def read_series(tiff: tifffile.TiffFile, number: int) -> NDArray[Any]:
    """All pixels of a series of an open file."""
    series = tiff.series[number]
    if len(files_of(series)) > 1 or files_of(series)[0] == tiff.filehandle.path:
        return np.asarray(series.asarray())
    # tifffile would look for them in the file that was opened, where their offset leads to others.
    file = series.keyframe.parent.filehandle
    file.open()
    try:
        pages = [page.asarray() for page in series.pages if page is not None]
    finally:
        file.close()
    return np.stack(pages).reshape(series.shape)


def _described_in(tiff: tifffile.TiffFile) -> str:
    """Name of the TIFF that describes this one; empty if it does so itself."""
    for node in ome_root(tiff):
        if node.tag.endswith("BinaryOnly"):
            name = os.path.basename(node.get("MetadataFile", ""))
            # Another kind of file, of XML alone, cannot be opened as an image.
            return name if name.lower().endswith((".tif", ".tiff")) else ""
    return ""
