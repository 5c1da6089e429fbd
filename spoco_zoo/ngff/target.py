"""Where the labels of an image go, in which version and with which levels: decided, not done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zarr

from spoco_zoo.errors import RemoteError, StoreError
from spoco_zoo.ngff.image import Image, Level
from spoco_zoo.ngff.metadata import SPATIAL, VERSIONS
from spoco_zoo.ngff.reduce import pyramid_factors
from spoco_zoo.ngff.remote import ask, is_remote, meet, place_of
from spoco_zoo.ngff.store import local_path

__all__ = [
    "MARK",
    "LabelTarget",
    "check_label_name",
    "check_outside",
    "check_suffix",
    "check_vacant",
    "coarser_level",
    "plan_label",
    "state_of",
]

MARK = "spoco_zoo"
"""Attribute of a label that is begun and not yet published."""

OTHERS = (
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".svg"),
    *(".h5", ".hdf5", ".n5", ".npy", ".npz", ".mat", ".zip"),
    *(".nd2", ".czi", ".lif", ".oib", ".vsi", ".svs", ".ndpi", ".mrc", ".nii", ".nrrd", ".ims"),
    *(".csv", ".tsv", ".txt", ".json", ".xml", ".yaml", ".pdf", ".parquet", ".xlsx"),
)
"""Suffixes that promise a file of a kind that is not written here."""

State = Literal["absent", "unfinished", "label", "foreign"]


@dataclass(frozen=True)
class LabelTarget:
    """Where a label image goes and what shape it has there."""

    store: str
    """Absolute path or remote address of the store."""
    group: str
    """Path of the label inside the store; empty for a label at the root."""
    name: str
    version: str
    axes: tuple[str, ...]
    """Axes of the image without c."""
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]
    """In the order of `axes`."""
    source: str | None
    """The labelled image, relative to the label; None if not beside it in the same version."""
    overwrite: bool
    run: str = ""
    """What tells the run that writes it from others, where drivers elsewhere may write as well."""

    @property
    def path(self) -> str:
        """Absolute path of the label's group."""
        return os.path.join(self.store, self.group) if self.group else self.store

    @property
    def in_place(self) -> bool:
        """Whether the label goes into the store of its image."""
        return bool(self.group)

    def spatial_shape(self, level: int = 0) -> tuple[int, ...]:
        """``([Z,] Y, X)`` of a level in voxels."""
        return self.levels[level].shape[-sum(axis in SPATIAL for axis in self.axes) :]


def plan_label(
    image: Image,
    *,
    name: str,
    output: Path | str | None = None,
    level: int = 0,
    roi: Sequence[tuple[int, int]] | None = None,
    version: str | None = None,
    overwrite: bool = False,
) -> LabelTarget:
    """Decide where the labels of an image go; nothing is written.

    Parameters
    ----------
    image : Image
        The image to be segmented.
    name : str
        Name of the label.
    output : path, optional
        A new store. By default the label goes into the image's own ``labels/``.
    level : int
        Level of the image that is segmented: the label's finest.
    roi : sequence of (int, int), optional
        Start and stop per spatial axis, in voxels of `level`.
    version : {"0.4", "0.5"}, optional
        OME-Zarr version of a new store; 0.5, or the image's own, by default.
    overwrite : bool
        Replace a label that is there.

    Returns
    -------
    LabelTarget
        In place, with as many levels as the image; in a new store, with the
        image's levels from `level` on, or with a pyramid of its own where the
        image has none.

    Raises
    ------
    StoreError
        If the label cannot go there, or something is there that is not to be
        replaced.
    """
    check_label_name(name)
    if version not in (None, *VERSIONS):
        raise StoreError("the OME-Zarr version must be 0.4 or 0.5", repr(version), "Choose one.")
    cropped = level != 0 or roi is not None
    if output is None:
        target = _in_place(image, name, cropped, version, overwrite)
    else:
        target = _new_store(image, name, output, level, roi, version, overwrite)
    check_vacant(target)
    return target


def check_label_name(name: str) -> None:
    """Raise unless a label's name can be a folder's, a file's, and a part of an address."""
    form = r"(?!zarr\.json$)[A-Za-z0-9][A-Za-z0-9._-]*"
    if not isinstance(name, str) or not re.fullmatch(form, name):
        raise StoreError(
            "a label's name must be letters (A to Z), digits, '.', '-' and '_', and begin with a "
            "letter or digit, other than 'zarr.json'",
            repr(name),
            "Choose another with --label-name.",
        )


def check_suffix(place: str) -> None:
    """Raise if a path promises a file that is neither a TIFF nor an OME-Zarr."""
    suffix = os.path.splitext(place)[1].lower()
    if suffix in OTHERS:
        raise StoreError(
            "the output must be an OME-Zarr or a TIFF",
            f"a name that ends in {suffix}: {place}",
            "Choose one that ends in .ome.zarr or .tif.",
        )


def _in_place(
    image: Image, name: str, cropped: bool, version: str | None, overwrite: bool
) -> LabelTarget:
    """Plan a label inside the store of its image."""
    if image.kind != "ome-zarr" or is_remote(image.uri) or not os.access(image.uri, os.W_OK):
        stored = image.kind == "ome-zarr"
        kind = "a remote or read-only store" if stored else "a file"
        raise StoreError(
            "labels go into their image only if it is a local, writable OME-Zarr store",
            f"{kind} at {image.uri}",
            "Name a new store with --output.",
        )
    if cropped:
        raise StoreError(
            "labels inside an image must cover the whole of its finest level",
            "a region or a coarser level",
            "Name a new store with --output.",
        )
    if version not in (None, image.version):
        raise StoreError(
            "labels inside an image must have its OME-Zarr version",
            f"{version} for an image of version {image.version}",
            "Leave --ome-zarr-version out, or name a new store with --output.",
        )
    keep = [i for i, axis in enumerate(image.axes) if axis != "c"]
    return LabelTarget(
        store=image.uri,
        group=f"labels/{name}",
        name=name,
        version=str(image.version),
        axes=tuple(image.axes[i] for i in keep),
        units=tuple(image.units[i] for i in keep),
        levels=tuple(_kept(level, keep, str(i)) for i, level in enumerate(image.levels)),
        source="../../",
        overwrite=overwrite,
    )


def _new_store(
    image: Image,
    name: str,
    output: Path | str,
    level: int,
    roi: Sequence[tuple[int, int]] | None,
    version: str | None,
    overwrite: bool,
) -> LabelTarget:
    """Plan a label at the root of a store of its own."""
    store = local_path(output)
    if store.startswith(("http://", "https://")):
        raise StoreError(
            "the output must be a local folder or an object store that takes writes, as s3://",
            store,
            "Choose another --output.",
        )
    check_suffix(store)
    check_outside(image, store)
    keep = [i for i, axis in enumerate(image.axes) if axis != "c"]
    levels = [_kept(one, keep, str(i)) for i, one in enumerate(image.levels[level:])]
    if roi is not None:
        levels = _crop(levels, roi)
    if len(levels) == 1:
        # Units may differ from axis to axis.
        size = image.voxel_size(level) or image.spatial_scale(level)
        levels = _own_pyramid(levels[0], size)
    version = version or image.version or "0.5"
    # Other software follows the link only within one version.
    linked = image.version == version and os.path.dirname(image.uri) == os.path.dirname(store)
    return LabelTarget(
        store=store,
        group="",
        name=name,
        version=version,
        axes=tuple(image.axes[i] for i in keep),
        units=tuple(image.units[i] for i in keep),
        levels=tuple(levels),
        source=f"../{os.path.basename(image.uri)}" if linked else None,
        overwrite=overwrite,
    )


def check_outside(image: Image, place: str) -> None:
    """Raise if an output is its input, in it, or around it, by whatever name."""
    own, new = (p if is_remote(p) else os.path.realpath(p) for p in (image.uri, place))
    same = os.path.exists(own) and os.path.exists(new) and os.path.samefile(own, new)
    if same or f"{new}/".startswith(f"{own}/") or f"{own}/".startswith(f"{new}/"):
        raise StoreError(
            "the output must lie outside its input",
            f"{place} for {image.uri}",
            "Choose another output.",
        )


def _kept(level: Level, keep: Sequence[int], path: str) -> Level:
    """Return the level with only the axes at the positions `keep`."""
    return Level(
        path,
        tuple(level.shape[i] for i in keep),
        tuple(level.scale[i] for i in keep),
        tuple(level.translation[i] for i in keep),
    )


def _crop(levels: Sequence[Level], roi: Sequence[tuple[int, int]]) -> list[Level]:
    """Levels of a region of the first level, with the ratios between levels kept.

    The region's pyramid starts at its own corner, so all levels shift alike.
    """
    base = levels[0]
    lead = len(base.shape) - len(roi)
    start = (0,) * lead + tuple(a for a, _ in roi)
    shape = base.shape[:lead] + tuple(b - a for a, b in roi)
    shift = tuple(a * s for a, s in zip(start, base.scale, strict=True))
    cropped: list[Level] = []
    for i, level in enumerate(levels):
        if i:
            finer = levels[i - 1].shape
            shape = tuple(map(_shrunk, shape, finer, level.shape))
            if shape == cropped[-1].shape:
                break
        moved = tuple(a + b for a, b in zip(level.translation, shift, strict=True))
        cropped.append(Level(level.path, shape, level.scale, moved))
    return cropped


def _shrunk(length: int, fine: int, coarse: int) -> int:
    """Length of a piece of an axis that goes from `fine` to `coarse` voxels."""
    factor = max(1, round(fine / coarse))
    if coarse in (fine // factor, -(-fine // factor)):
        return -(-length // factor)
    return max(1, round(length * coarse / fine))


def _own_pyramid(base: Level, size: Sequence[float]) -> list[Level]:
    """Coarser levels for an image that has none; `size` is that of voxels in one unit."""
    levels, n_space = [base], len(size)
    for step in pyramid_factors(base.shape[-n_space:], size):
        finer = levels[-1]
        factors = (1,) * (len(base.shape) - n_space) + step
        levels.append(coarser_level(finer, factors))
    return levels


def coarser_level(finer: Level, factors: Sequence[int]) -> Level:
    """Return the level whose voxels are cells of `factors` finer voxels."""
    rows = list(zip(finer.shape, finer.scale, finer.translation, factors, strict=True))
    return Level(
        path=str(int(finer.path) + 1),
        shape=tuple(-(-n // f) for n, _, _, f in rows),
        scale=tuple(s * f for _, s, _, f in rows),
        translation=tuple(t + s * (f - 1) / 2 for _, s, t, f in rows),
    )


def state_of(path: str) -> State:
    """Tell what is at a path, or remote address, where a label is to go."""
    if is_remote(path):
        return _state_of_remote(path)
    if not os.path.lexists(path):
        return "absent"
    if not os.path.isdir(path):
        return "foreign"
    # A write that was cut short leaves a `.partial` file and nothing else.
    entries = [entry for entry in os.listdir(path) if not entry.endswith(".partial")]
    return _state_of_store(path, entries)


def _state_of_remote(uri: str) -> State:
    """Tell what an object store holds under an address."""
    meet(uri)
    try:
        listed = ask(uri, lambda files, path: files.ls(path, detail=False))
    except FileNotFoundError:
        return "absent"
    return _state_of_store(uri, [name.rstrip("/").rsplit("/", 1)[-1] for name in listed])


def _state_of_store(address: str, entries: Sequence[str]) -> State:
    """Tell what a folder, or its remote counterpart, is by its group and what lies in it."""
    if not entries:
        return "absent"
    if set(entries) == {".zattrs"}:
        return "unfinished"  # killed while the two files of a group were written
    try:
        group = zarr.open_group(place_of(address), mode="r", use_consolidated=False)
    except RemoteError:
        raise
    except (OSError, ValueError, KeyError):
        return "foreign"
    return _state_of_group(dict(group.attrs), entries)


def _state_of_group(attributes: dict[str, object], entries: Sequence[str]) -> State:
    """Tell what a group is by its attributes and what lies in it."""
    # A kill between making the group and marking it leaves metadata files alone.
    bare = not attributes and set(entries) <= {"zarr.json", ".zgroup", ".zattrs"}
    if MARK in attributes or bare:
        return "unfinished"
    block = attributes.get("ome", attributes)
    return "label" if isinstance(block, dict) and "image-label" in block else "foreign"


def check_vacant(target: LabelTarget) -> None:
    """Raise unless the target is free, or holds a label that may be replaced."""
    state = state_of(target.path)
    if state == "foreign":
        raise StoreError(
            "only labels are ever replaced", f"something else at {target.path}", "Move it away."
        )
    if state == "label" and not target.overwrite:
        raise StoreError(
            "an existing label is not replaced",
            f"label at {target.path}",
            "Choose another --label-name or --output, or add --overwrite.",
        )
