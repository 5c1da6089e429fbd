"""Whether all of a TIFF is there: planes, and the other files of its image.

tifffile gives zeros, or fewer planes, in place of what is missing, and says so in its log alone.
"""

from __future__ import annotations

import os
import struct
from xml.etree import ElementTree

import tifffile

from spoco_zoo.errors import StoreError

__all__ = ["check_beside", "check_complete", "ome_root"]


def check_complete(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: str) -> None:
    """Refuse an image of which a part is missing.

    Parameters
    ----------
    tiff : TiffFile
    series : TiffPageSeries
        The image that is wanted.
    path : str
        Named in the error.

    Raises
    ------
    StoreError
        If files or planes are named that are not there, or the list of planes leads to a place
        behind the end of the file.
    """
    if tiff.is_ome:
        _check_files(tiff, path)
    if series.dataoffset is not None:
        return  # in one piece, of which the memory map finds out whether it is there
    stated = found = len(series.pages)
    if tiff.is_ome:  # planes may lie in other files
        found = sum(page is not None for page in series.pages)
    elif tiff.is_imagej:
        stated = max(stated, int((tiff.imagej_metadata or {}).get("images", 1)))
        found = min(found, len(tiff.pages))
    if found < stated:
        raise _cut(f"{found} of {stated} planes in {path}")
    if not tiff.is_ome and _leads_beyond(tiff):
        raise _cut(f"{len(tiff.pages)} planes and a mark that more follow in {path}")


def check_beside(tiff: tifffile.TiffFile, path: str) -> None:
    """Refuse an OME-TIFF that names files elsewhere, before these are opened.

    tifffile reads planes from whatever is named: another image of the user, or a pipe for ever.

    Raises
    ------
    StoreError
    """
    if not tiff.is_ome:
        return
    root = ome_root(tiff)
    folder = os.path.dirname(tiff.filehandle.path)
    for node in root.iter():
        name = node.get("FileName")
        if not name or not node.tag.endswith("UUID") or node.text == root.get("UUID"):
            continue  # a file that was moved names itself by where it was
        place = os.path.join(folder, name)
        within = not os.path.isabs(name) and ".." not in name.split("/")
        if os.path.lexists(place) and not (within and os.path.isfile(place)):
            raise StoreError(
                "the files that an OME-TIFF names must be files beside it",
                f"{name!r:.200} for {path}",
                "Export it again, with all its files in one folder.",
            )


def ome_root(tiff: tifffile.TiffFile) -> ElementTree.Element:
    """The OME-XML of a file; an element without children if it has none."""
    return ElementTree.fromstring(tiff.ome_metadata or "<OME/>")


def _cut(found: str) -> StoreError:
    return StoreError(
        "all planes that a TIFF names must be in it", found, "Copy or export it again."
    )


def _leads_beyond(tiff: tifffile.TiffFile) -> bool:
    """Whether the last plane's entry names a next one that would lie behind the file's end."""
    file, form, last = tiff.filehandle, tiff.tiff, tiff.pages[-1]
    file.seek(last.offset)
    tags = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
    file.seek(last.offset + form.tagnosize + tags * form.tagsize)
    following = struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]
    return bool(following >= file.size)


def _check_files(tiff: tifffile.TiffFile, path: str) -> None:
    """Refuse an image some of whose files, which its OME-XML names, are not beside it."""
    uuids = (node for node in ome_root(tiff).iter() if node.tag.endswith("UUID"))
    named = {name for node in uuids if (name := node.get("FileName"))}
    if len(named) < 2:
        return  # a single file that was renamed names itself by what it was called
    folder = os.path.dirname(tiff.filehandle.path)
    absent = sorted(name for name in named if not os.path.exists(os.path.join(folder, name)))
    if absent:
        raise StoreError(
            "the files that an OME-TIFF names must lie beside it",
            f"{len(absent)} are not there, the first is {absent[0]}, for {path}",
            "Copy all files of the image into one folder.",
        )
