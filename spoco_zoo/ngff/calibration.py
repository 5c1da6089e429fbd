"""Voxel sizes and channel names that a TIFF states: in OME-XML, ImageJ headers or tags."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import tifffile

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.metadata import UNITS, micrometres

__all__ = ["calibration", "check_files", "incomplete"]

PRINTED = 25.0
"""Micrometres: larger pixels are those of a page, of 1,000 per inch, not of a microscope."""


def calibration(tiff: tifffile.TiffFile, series: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Voxel size by axis in micrometres and channel names, from OME, ImageJ or TIFF tags."""
    if tiff.is_ome and tiff.ome_metadata:
        return _from_ome(tiff.ome_metadata, series)
    if tiff.is_imagej:
        return _from_imagej(tiff)
    # Pixels per inch are a screen or printer setting; per centimetre a calibration, if they are
    # no such setting in other words.
    tag = tiff.pages.first.tags.get("ResolutionUnit")
    sizes = _resolution(tiff, 1e4) if tag is not None and int(tag.value) == 3 else {}
    return ({} if any(size > PRINTED for size in sizes.values()) else sizes), ()


def check_files(tiff: tifffile.TiffFile, path: str) -> None:
    """Refuse an image some of whose files, which its OME-XML names, are not beside it.

    Raises
    ------
    StoreError
        If so: tifffile would give zeros in place of their planes.
    """
    if not (tiff.is_ome and tiff.ome_metadata):
        return
    root = ElementTree.fromstring(tiff.ome_metadata)
    uuids = (node for node in root.iter() if node.tag.endswith("UUID"))
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


def incomplete(sizes: Mapping[str, float], axes: Sequence[str]) -> str:
    """What is known of a voxel size, in words; empty if nothing is."""
    known = [axis for axis in axes if sizes.get(axis)]
    if not known:
        return ""
    stated = ", ".join(f"{axis} {sizes[axis]:.4g} um" for axis in known)
    return f"{stated}, but no {' or '.join(axis for axis in axes if axis not in known)}"


def _from_ome(xml: str, series: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Voxel size and channel names from OME-XML."""
    root = ElementTree.fromstring(xml)
    pixels = [node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"]
    if series >= len(pixels):
        return {}, ()
    chosen, sizes = pixels[series], {}
    for axis in "zyx":
        value = chosen.get(f"PhysicalSize{axis.upper()}")
        unit = micrometres(UNITS.get(chosen.get(f"PhysicalSize{axis.upper()}Unit", "µm").lower()))
        if value is not None and unit is not None and float(value) > 0:
            sizes[axis] = float(value) * unit
    names = [node.get("Name") for node in chosen if node.tag.rpartition("}")[2] == "Channel"]
    return sizes, tuple(name for name in names if name)


def _from_imagej(tiff: tifffile.TiffFile) -> tuple[dict[str, float], tuple[str, ...]]:
    """Voxel size and channel labels from an ImageJ header and the resolution tags."""
    header: Mapping[str, Any] = tiff.imagej_metadata or {}
    unit = micrometres(UNITS.get(str(header.get("unit", "")).lower()))
    if unit is None:
        return {}, ()
    sizes = _resolution(tiff, unit)
    # ImageJ leaves a spacing of 1 out.
    spacing = header.get("spacing", 1.0)
    if isinstance(spacing, (int, float)) and spacing > 0:
        sizes["z"] = float(spacing) * unit
    labels = header.get("Labels")
    return sizes, tuple(str(label) for label in labels) if isinstance(labels, list) else ()


def _resolution(tiff: tifffile.TiffFile, unit: float) -> dict[str, float]:
    """Pixel size in micrometres from the resolution tags, given in pixels per `unit`."""
    sizes = {}
    for axis, name in (("x", "XResolution"), ("y", "YResolution")):
        tag = tiff.pages.first.tags.get(name)
        if tag is not None and tag.value[0] > 0:
            sizes[axis] = tag.value[1] / tag.value[0] * unit
    return sizes
