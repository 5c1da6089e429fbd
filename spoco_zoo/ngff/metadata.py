"""Terms of OME-Zarr 0.4 and 0.5, and metadata as they are written.

No file is touched here. The two versions differ in where things sit::

    0.4  .zattrs    {"multiscales": [{"version": "0.4", ...}], "omero": ...}
    0.5  zarr.json  {"attributes": {"ome": {"version": "0.5", "multiscales": [...], ...}}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AXES",
    "AXIS_KIND",
    "SPATIAL",
    "UNITS",
    "VERSIONS",
    "Dataset",
    "axis_objects",
    "micrometres",
    "multiscale_attributes",
    "seconds",
]

AXES = ("t", "c", "z", "y", "x")
SPATIAL = ("z", "y", "x")
VERSIONS = ("0.4", "0.5")

AXIS_KIND = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
UNITS = {
    "um": "micrometer",
    "µm": "micrometer",
    "μm": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "å": "angstrom",
}
"""Names of the specification by others that files use, in small letters."""
_MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
TIMES = {
    "s": "second",
    "sec": "second",
    "seconds": "second",
    "ms": "millisecond",
    "msec": "millisecond",
    "min": "minute",
    "minutes": "minute",
    "h": "hour",
    "hours": "hour",
    "d": "day",
}
"""Names of the specification by others that files use, in small letters."""
_SECONDS = {
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}


@dataclass(frozen=True)
class Dataset:
    """One resolution level as its metadata describe it, in physical units."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


def micrometres(unit: str | None) -> float | None:
    """Micrometres in one `unit` of the specification's names; None if unknown."""
    return _MICROMETRES.get(unit) if unit is not None else None


def seconds(unit: str | None) -> float | None:
    """Seconds in one `unit` of the specification's names; None if unknown."""
    return _SECONDS.get(unit) if unit is not None else None


def axis_objects(axes: Sequence[str], units: Sequence[str | None]) -> list[dict[str, str]]:
    """Axis entries of a multiscale, e.g. ``{"name": "z", "type": "space", "unit": ...}``."""
    entries = []
    for name, unit in zip(axes, units, strict=True):
        entry = {"name": name, "type": AXIS_KIND[name]}
        if unit is not None:
            entry["unit"] = unit
        entries.append(entry)
    return entries


def multiscale_attributes(
    version: str,
    *,
    name: str,
    axes: Sequence[str],
    units: Sequence[str | None],
    datasets: Sequence[Dataset],
    method: str,
    description: str,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Group attributes of a multiscale image, ready to be written.

    Parameters
    ----------
    version : {"0.4", "0.5"}
        Where the metadata go and which version keys they carry.
    name : str
        Name of the multiscale.
    axes, units : sequences
        One entry per dimension.
    datasets : sequence of Dataset
        Levels, finest first.
    method, description : str
        The multiscale's ``type`` and its ``metadata``: how a level is made of
        the finer one.
    extra : mapping
        Further OME entries: ``omero`` or ``image-label``.
    """
    multiscale: dict[str, Any] = {
        "name": name,
        "axes": axis_objects(axes, units),
        "datasets": [
            {
                "path": level.path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(level.scale)},
                    {"type": "translation", "translation": list(level.translation)},
                ],
            }
            for level in datasets
        ],
        "type": method,
        "metadata": {"description": description},
    }
    if version == "0.4":
        return {"multiscales": [{"version": version, **multiscale}], **extra}
    return {"ome": {"version": version, "multiscales": [multiscale], **extra}}
