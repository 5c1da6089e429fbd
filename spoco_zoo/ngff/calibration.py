"""Voxel sizes, time steps and channel names that a TIFF states: in OME-XML, ImageJ, LSM or tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import tifffile

from spoco_zoo.ngff.metadata import TIMES, UNITS, micrometres, seconds

__all__ = ["calibration", "incomplete"]

SMALLEST, LARGEST = 1e-6, 1e6
"""Micrometres, or seconds, of a step: beyond, the file states none that is worth knowing."""
PRINTED = 25.0
"""Micrometres: larger pixels are those of a page, of 1,000 per inch, not of a microscope."""


def calibration(tiff: tifffile.TiffFile, series: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Sizes by axis and channel names, from OME, ImageJ, Zeiss LSM or TIFF tags.

    Sizes are micrometres along z, y and x, and seconds along t.
    """
    if tiff.is_ome and tiff.ome_metadata:
        return _from_ome(tiff.ome_metadata, series)
    if tiff.is_imagej:
        return _from_imagej(tiff)
    if tiff.is_lsm:
        return _from_lsm(tiff.lsm_metadata)
    # Pixels per inch are a screen or printer setting; per centimetre a calibration, if they are
    # no such setting in other words.
    tag = tiff.pages.first.tags.get("ResolutionUnit")
    sizes = _resolution(tiff, 1e4, 1e4) if tag is not None and int(tag.value) == 3 else {}
    return ({} if any(size > PRINTED for size in sizes.values()) else sizes), ()


def incomplete(sizes: Mapping[str, float], axes: Sequence[str]) -> str:
    """What is known of a voxel size, in words; empty if nothing is."""
    known = [axis for axis in axes if sizes.get(axis)]
    if not known:
        return ""
    stated = ", ".join(f"{axis} {sizes[axis]:.4g} um" for axis in known)
    return f"{stated}, but no {' or '.join(axis for axis in axes if axis not in known)}"


def _from_ome(xml: str, series: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Sizes and channel names from OME-XML."""
    root = ElementTree.fromstring(xml)
    pixels = [node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"]
    if series >= len(pixels):
        return {}, ()
    chosen, sizes = pixels[series], dict[str, float]()
    for axis in "zyx":
        unit = _unit(chosen.get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        _set(sizes, axis, chosen.get(f"PhysicalSize{axis.upper()}"), unit)
    _set(sizes, "t", chosen.get("TimeIncrement"), _time_unit(chosen.get("TimeIncrementUnit", "s")))
    names = [node.get("Name") for node in chosen if node.tag.rpartition("}")[2] == "Channel"]
    return sizes, tuple(name or "" for name in names)


def _from_imagej(tiff: tifffile.TiffFile) -> tuple[dict[str, float], tuple[str, ...]]:
    """Sizes and channel labels from an ImageJ header and the resolution tags."""
    header: Mapping[str, Any] = tiff.imagej_metadata or {}
    sizes = dict[str, float]()
    _set(sizes, "t", header.get("finterval"), _time_unit(header.get("tunit", "s")))
    unit = _unit(header.get("unit"))
    if unit is None:
        return sizes, ()
    # Axes may have units of their own.
    sizes |= _resolution(tiff, unit, _unit(header.get("yunit")) or unit)
    # ImageJ leaves a spacing of 1 out, and some microscopes count planes downwards, below 0.
    step = str(header.get("spacing", 1.0)).removeprefix("-")
    _set(sizes, "z", step, _unit(header.get("zunit")) or unit)
    labels = header.get("Labels")
    return sizes, tuple(str(label) for label in labels) if isinstance(labels, list) else ()


def _from_lsm(header: object) -> tuple[dict[str, float], tuple[str, ...]]:
    """Sizes and channel names from a Zeiss LSM's header, which has metres and seconds."""
    sizes = dict[str, float]()
    if not isinstance(header, Mapping):  # a damaged one is bytes
        return sizes, ()
    for axis in "zyx":
        _set(sizes, axis, header.get(f"VoxelSize{axis.upper()}"), 1e6)
    _set(sizes, "t", header.get("TimeIntervall"), 1.0)
    colours = header.get("ChannelColors")
    names = colours.get("ColorNames", ()) if isinstance(colours, Mapping) else ()
    return sizes, tuple(str(name) for name in names)


def _resolution(tiff: tifffile.TiffFile, x: float, y: float) -> dict[str, float]:
    """Pixel size in micrometres from the resolution tags, in pixels per `x` and `y` micrometres."""
    sizes = dict[str, float]()
    for axis, name, unit in (("x", "XResolution", x), ("y", "YResolution", y)):
        tag = tiff.pages.first.tags.get(name)
        if tag is not None and tag.value[0] > 0:
            _set(sizes, axis, tag.value[1] / tag.value[0], unit)
    return sizes


def _unit(name: object) -> float | None:
    """Micrometres of a unit; None if it is unknown or no length."""
    return micrometres(UNITS.get(str(name).lower()))


def _time_unit(name: object) -> float | None:
    """Seconds of a unit; None if it is unknown or no time."""
    return seconds(TIMES.get(str(name).lower()))


def _set(sizes: dict[str, float], axis: str, stated: object, unit: float | None) -> None:
    """Note what is stated of an axis, if it is a size that an image can have."""
    try:
        size = float(str(stated)) * (unit or 0)
    except ValueError:
        return
    if SMALLEST <= size <= LARGEST:
        sizes[axis] = size
