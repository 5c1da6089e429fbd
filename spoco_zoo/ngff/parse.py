"""OME-Zarr 0.4 and 0.5 metadata as they are found: plain mappings in, checked values out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.metadata import AXES, AXIS_KIND, UNITS, Dataset

__all__ = ["Multiscale", "ome_block", "parse_multiscale"]

LARGEST = 1e100
"""Scale or translation; products of a few must stay finite."""
MOST_LEVELS = 100
"""Each halves what can be counted; every one is opened."""

_OR_ALL = "; `spoco-zoo segment` takes a local one whole."
_OPEN_A_LEAF = {
    "plate": f"Give one field of the plate, e.g. STORE/A/1/0{_OR_ALL}",
    "well": f"Give one field of the well, e.g. STORE/0{_OR_ALL}",
    "labels": "Give one label of the group, e.g. STORE/NAME.",
    "bioformats2raw.layout": f"Give one image of the collection, e.g. STORE/0{_OR_ALL}",
}


@dataclass(frozen=True)
class Multiscale:
    """A checked multiscale image: what the metadata say, before any array is opened."""

    version: str
    name: str
    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    datasets: tuple[Dataset, ...]
    channel_names: tuple[str, ...]
    channel_display: tuple[Mapping[str, Any], ...]
    is_label: bool
    others: int = 0
    """Multiscales that the group holds beside this one, its first."""


def ome_block(
    attributes: Mapping[str, Any], zarr_format: int, where: str, *, inherited: str | None = None
) -> dict[str, Any]:
    """Return the OME metadata of a group, wherever its version keeps them.

    Parameters
    ----------
    attributes : mapping
        All attributes of the group.
    zarr_format : int
        2 or 3.
    where : str
        The group's address, for messages.
    inherited : str, optional
        Version of the image that the group lies in, which holds where none is stated.

    Raises
    ------
    StoreError
        If the group holds no OME metadata of a supported version.
    """
    if zarr_format == 2:
        return dict(attributes)
    block = attributes.get("ome")
    if not isinstance(block, Mapping):
        raise StoreError(
            "a Zarr group must hold OME-Zarr metadata",
            f"no `ome` attribute in {where}",
            "Give the folder of an OME-Zarr image, or make one of a TIFF with `spoco-zoo convert`.",
        )
    version = block.get("version", inherited)
    if str(version) != "0.5":  # a few writers give a number
        raise StoreError(
            "OME-Zarr must be of version 0.4 or 0.5",
            f"version {version!r} in {where}",
            "Convert the image to version 0.5.",
        )
    return dict(block)


def parse_multiscale(attributes: Mapping[str, Any], zarr_format: int, where: str) -> Multiscale:
    """Check a group's attributes and combine its transformations.

    Parameters
    ----------
    attributes : mapping
        All attributes of the group.
    zarr_format : int
        2 or 3.
    where : str
        The group's address, for messages.

    Returns
    -------
    Multiscale
        The first multiscale of the group; per-level and multiscale
        transformations are combined into one scale and translation per level.

    Raises
    ------
    StoreError
        If the group is no OME-Zarr image of a supported version, or its axes
        or transformations break the specification.
    """
    block = ome_block(attributes, zarr_format, where)
    multiscales = block.get("multiscales")
    if not isinstance(multiscales, Sequence) or not multiscales:
        remedy = next(
            (text for key, text in _OPEN_A_LEAF.items() if key in block or key in attributes),
            "Give the folder of an OME-Zarr image, or make one of a TIFF with `spoco-zoo convert`.",
        )
        raise StoreError("an OME-Zarr image must list `multiscales`", f"none in {where}", remedy)
    first = _mapping(multiscales[0], "an entry of `multiscales`", where)
    version = _version(first, block, zarr_format, where)
    axes, units = _axes(first.get("axes"), where)
    outer = _transform(first.get("coordinateTransformations", []), len(axes), where, False)
    entries = first.get("datasets")
    if not isinstance(entries, Sequence) or not entries:
        raise StoreError(
            "a multiscale must list its `datasets`", f"none in {where}", "Rebuild the image."
        )
    if len(entries) > MOST_LEVELS:
        raise StoreError(
            f"a multiscale must not list over {MOST_LEVELS} `datasets`",
            f"{len(entries):,} in {where}",
            "Mend the metadata.",
        )
    datasets = tuple(_dataset(entry, outer, len(axes), where) for entry in entries)
    channels = _channels(block.get("omero"))
    return Multiscale(
        version=version,
        name=_text(first.get("name")),
        axes=axes,
        units=units,
        datasets=datasets,
        channel_names=tuple(_text(entry.get("label")) for entry in channels),
        channel_display=tuple(map(_display, channels)),
        is_label="image-label" in block,
        others=len(multiscales) - 1,
    )


def _mapping(value: Any, what: str, where: str) -> Mapping[str, Any]:
    """Return `value` if it is a JSON object, else raise."""
    if not isinstance(value, Mapping):
        raise StoreError(f"{what} must be a JSON object", f"{value!r:.60} in {where}", "Mend it.")
    return value


def _version(
    first: Mapping[str, Any], block: Mapping[str, Any], zarr_format: int, where: str
) -> str:
    """Version of the metadata; a 0.4 group may omit it but is told by its axes."""
    if zarr_format == 3:
        return str(block["version"])
    axes = first.get("axes")
    modern = isinstance(axes, Sequence) and all(isinstance(axis, Mapping) for axis in axes)
    version = str(first.get("version", "0.4" if modern else "of 0.3 or older"))
    if version != "0.4":
        raise StoreError(
            "OME-Zarr must be of version 0.4 or 0.5",
            f"version {version} in {where}",
            "Convert the image to version 0.5.",
        )
    return "0.4"


def _axes(entries: Any, where: str) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Names and units, checked to be an ordered subset of t, c, z, y, x with y and x."""
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise StoreError(
            "a multiscale must list its `axes`", f"{entries!r:.60} in {where}", "Mend it."
        )
    objects = [_mapping(entry, "an axis", where) for entry in entries]
    names = tuple(str(entry.get("name", "")).lower() for entry in objects)
    if names != tuple(axis for axis in AXES if axis in names) or names[-2:] != ("y", "x"):
        raise StoreError(
            "axes must be y, x with z, c, t before them, in the order t, c, z, y, x",
            f"({', '.join(names)}) in {where}",
            "Reorder the axes and write the image again.",
        )
    for name, entry in zip(names, objects, strict=True):
        if (entry.get("type") or AXIS_KIND[name]) != AXIS_KIND[name]:
            raise StoreError(
                f"axis {name} must be of type {AXIS_KIND[name]}",
                f"{entry.get('type')!r} in {where}",
                "Mend the metadata.",
            )
    given = [str(entry["unit"]) if entry.get("unit") else None for entry in objects]
    return names, tuple(unit and UNITS.get(unit.lower(), unit) for unit in given)


def _dataset(entry: Any, outer: Dataset, ndim: int, where: str) -> Dataset:
    """One level, its own transformation followed by the multiscale's."""
    mapping = _mapping(entry, "a dataset", where)
    path = mapping.get("path")
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in path.split("/"):
        raise StoreError(
            "the path of a level must lie inside its image", f"{path!r} in {where}", "Mend it."
        )
    inner = _transform(mapping.get("coordinateTransformations"), ndim, f"{where}/{path}", True)
    return Dataset(
        path=path,
        scale=tuple(a * b for a, b in zip(inner.scale, outer.scale, strict=True)),
        translation=tuple(
            a * b + c
            for a, b, c in zip(inner.translation, outer.scale, outer.translation, strict=True)
        ),
    )


def _transform(entries: Any, ndim: int, where: str, required: bool) -> Dataset:
    """Fold a list of transformations into one scale and one translation."""
    scale, translation, scaled = (1.0,) * ndim, (0.0,) * ndim, False
    for entry in entries if isinstance(entries, Sequence) else []:
        kind = _mapping(entry, "a transformation", where).get("type")
        if kind == "scale":
            factors = _numbers(entry, "scale", ndim, where)
            if min(factors) < 1 / LARGEST:
                raise StoreError("scales must be positive", f"{factors} in {where}", "Mend them.")
            scale = tuple(a * b for a, b in zip(scale, factors, strict=True))
            translation = tuple(a * b for a, b in zip(translation, factors, strict=True))
            scaled = True
        elif kind == "translation":
            shift = _numbers(entry, "translation", ndim, where)
            translation = tuple(a + b for a, b in zip(translation, shift, strict=True))
        elif kind != "identity":
            raise StoreError(
                "transformations must be a scale and a translation",
                f"{kind!r} in {where}",
                "Convert the image to version 0.5.",
            )
    if required and not scaled:
        raise StoreError(
            "every level must state its scale", f"none in {where}", "Mend the metadata."
        )
    return Dataset("", scale, translation)


def _numbers(entry: Mapping[str, Any], key: str, ndim: int, where: str) -> tuple[float, ...]:
    """Return the finite numbers of a transformation, one per axis."""
    values = entry.get(key)
    good = isinstance(values, Sequence) and len(values) == ndim
    if not good or not all(
        isinstance(value, (int, float)) and abs(value) <= LARGEST for value in values or ()
    ):
        raise StoreError(
            f"a {key} must hold one finite number per axis, {ndim} here",
            f"{values!r:.60} in {where}",
            "Mend the metadata.",
        )
    return tuple(float(value) for value in values or ())


def _channels(omero: Any) -> list[Mapping[str, Any]]:
    """What `omero` says of each channel; viewers write it, and not always well."""
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, Sequence):
        return []
    return [entry if isinstance(entry, Mapping) else {} for entry in channels]


def _display(channel: Mapping[str, Any]) -> dict[str, Any]:
    """How a channel is to be shown, as far as that is stated and makes sense."""
    shown: dict[str, Any] = {}
    if re.fullmatch("[0-9A-Fa-f]{6}", _text(channel.get("color"))):
        shown["color"] = channel["color"]
    if isinstance(channel.get("active"), bool):
        shown["active"] = channel["active"]
    window = channel.get("window")
    if isinstance(window, Mapping):
        ends: dict[str, Any] = {
            # Some writers state no more than what is shown.
            "min": window.get("min", window.get("start")),
            "max": window.get("max", window.get("end")),
            **{end: window.get(end) for end in ("start", "end")},
        }
        numbers = all(type(end) in (int, float) and math.isfinite(end) for end in ends.values())
        if numbers and ends["start"] < ends["end"]:
            shown["window"] = ends
    return shown


def _text(value: Any) -> str:
    """A name as it is stated; null is none."""
    return "" if value is None else str(value)
