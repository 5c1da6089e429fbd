"""Label images: created empty, filled by others, published when complete.

::

    in place    image.ome.zarr/labels/NAME        listed in labels/ by the last write
    new store   OUTPUT                            a label image at the root

Until `publish_label`, the group carries a mark of this package and no OME metadata:
no viewer shows a half-written label, and a later run knows it may go on. In an
object store a shard is one PUT, which is done whole or not at all, and the metadata
come last there too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import zarr

from spoco_zoo.errors import RemoteError, StoreError
from spoco_zoo.ngff.claim import check_claim, make_group
from spoco_zoo.ngff.image import dataset_of
from spoco_zoo.ngff.labels import names_in
from spoco_zoo.ngff.metadata import multiscale_attributes
from spoco_zoo.ngff.remote import ask, is_remote, place_of
from spoco_zoo.ngff.store import create_array, open_scratch
from spoco_zoo.ngff.target import MARK, LabelTarget, check_vacant, state_of

__all__ = [
    "create_label",
    "open_label_array",
    "publish_label",
    "remove_label",
]

_METHOD = "Every voxel holds the most frequent label of its cell in the finer level."

_REMOVED = ".spoco-removed"
"""End of the name of a label that is being removed."""


def create_label(
    target: LabelTarget,
    *,
    dtype: Any,
    shard: Sequence[int],
    chunk: Sequence[int],
    keep: bool = True,
) -> None:
    """Create the arrays of a label, not yet visible to viewers.

    A label that an earlier run began is kept with its content if dtype and
    chunks are the same. With `overwrite`, anything else that is a label is removed.

    Parameters
    ----------
    target : LabelTarget
        From `plan_label`.
    dtype : dtype
        Unsigned integer.
    shard, chunk : sequence of int
        One entry per spatial axis; a shard is a multiple of the chunk. Version
        0.4 knows no shards and ignores them.
    keep : bool
        Whether an unfinished label is this run's own. Otherwise it is removed:
        what another run wrote would show wherever this one has no objects.

    Raises
    ------
    StoreError
        If something else is there, the label of another run at work in an object store, or the
        place cannot be written.
    """
    _remove_leftovers(target.path)
    state = state_of(target.path)
    if state in ("label", "foreign"):
        check_vacant(target)
    elif state == "unfinished" and not target.overwrite:
        check_claim(target, "Wait for it; if it is gone for good, add --overwrite.")
    if state in ("label", "foreign") or (state == "unfinished" and not keep):
        remove_label(target)
    try:
        _create_arrays(target, dtype, shard, chunk)
    except RemoteError:
        raise
    except StoreError:
        if not target.overwrite or state_of(target.path) != "unfinished":
            raise
        remove_label(target)
        _create_arrays(target, dtype, shard, chunk)


def open_label_array(
    target: LabelTarget, level: int, mode: Literal["r", "r+"] = "r+"
) -> zarr.Array[Any]:
    """Open one level of a label that `create_label` made; picklable.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    return open_scratch(os.path.join(target.path, target.levels[level].path), mode)


def label_is_whole(target: LabelTarget) -> bool:
    """Whether all arrays of a label that was made are still there."""
    try:
        for level in range(len(target.levels)):
            open_label_array(target, level, "r")
    except RemoteError:
        raise
    except StoreError:
        return False
    return True


def publish_label(target: LabelTarget) -> None:
    """Write the label's metadata, then list it in ``labels/``: the last two writes.

    Temporary files that writers left which were killed are removed before.

    Parameters
    ----------
    target : LabelTarget

    Raises
    ------
    StoreError
        If the place cannot be written, or another run has begun it anew.
    """
    check_claim(target, "Wait for it, or run again with another --output.")
    label: dict[str, Any] = {"version": target.version}
    if target.source is not None:
        label["source"] = {"image": target.source}
    attributes = multiscale_attributes(
        target.version,
        name=target.name,
        axes=target.axes,
        units=target.units,
        datasets=[dataset_of(level) for level in target.levels],
        method="mode",
        description=_METHOD,
        extra={"image-label": label},
    )
    try:
        if target.version == "0.4":
            # Attributes of a level have a file of their own, which no reader misses if it is lost.
            for level in range(len(target.levels)):
                open_label_array(target, level).update_attributes({})
        for stray in Path(target.path).rglob("*.partial"):
            stray.unlink(missing_ok=True)
        group = zarr.open_group(place_of(target.path), mode="r+", use_consolidated=False)
        group.attrs.put(attributes)
        if target.in_place:
            with _list_held(target):
                names = _listed(target)
                if target.name not in names:
                    _write_list(target, [*names, target.name])
            for store in _enclosing(target.store):
                _refresh_consolidated(store)
    except OSError as error:
        raise StoreError("the output must be writable", str(error), "Run again.") from error


def remove_label(target: LabelTarget) -> None:
    """Remove a label that is unfinished, or, with `overwrite`, a finished one.

    Raises
    ------
    StoreError
        If what is there may not be removed.
    """
    state = state_of(target.path)
    if state == "absent":
        return
    if state != "unfinished":
        check_vacant(target)
    if target.in_place:
        with _list_held(target):
            _write_list(target, [name for name in _listed(target) if name != target.name])
    if is_remote(target.path):
        _remove_remote(target.path)
        return
    # Renamed first, so that an interrupted removal leaves no half label behind.
    place = os.path.realpath(target.path)
    doomed = f"{place}.{uuid4().hex}{_REMOVED}"
    os.rename(place, doomed)
    if os.path.islink(target.path):
        os.mkdir(place)  # a link stays, and what it names is written anew
    shutil.rmtree(doomed)


def _remove_leftovers(path: str) -> None:
    """Remove what removals left that were interrupted: by a name that nobody else gives."""
    if is_remote(path):
        return
    folder, name = os.path.split(os.path.realpath(path))
    with contextlib.suppress(OSError):  # whatever is wrong there is said when it is written to
        for entry in os.listdir(folder):
            if re.fullmatch(rf"{re.escape(name)}\.[0-9a-f]{{32}}{re.escape(_REMOVED)}", entry):
                shutil.rmtree(os.path.join(folder, entry), ignore_errors=True)


def _remove_remote(uri: str) -> None:
    """Remove a label from an object store: made unfinished first, its metadata last."""
    group = zarr.open_group(place_of(uri), mode="r+", use_consolidated=False)
    # No rename there. From here on no viewer shows it, and a kill leaves it removable.
    group.attrs.put({MARK: {"state": "unfinished"}})
    ask(uri, _remove_entries)


def _remove_entries(files: Any, path: str) -> None:
    """Remove what lies in a group, its metadata last; what is gone already is no matter."""
    files.invalidate_cache()
    metadata = {"zarr.json", ".zgroup", ".zattrs"}
    entries = sorted(
        files.ls(path, detail=False), key=lambda name: name.rsplit("/", 1)[-1] in metadata
    )
    for entry in entries:
        files.rm(entry, recursive=True)
    files.invalidate_cache()


def _create_arrays(
    target: LabelTarget, dtype: Any, shard: Sequence[int], chunk: Sequence[int]
) -> None:
    """Make the group with its mark and one array per level."""
    try:
        if target.in_place:
            _ensure_labels_group(target)
        if not is_remote(target.path):
            os.makedirs(os.path.dirname(target.path), exist_ok=True)
        make_group(target)
    except OSError as error:
        raise StoreError("the output must be writable", str(error), "Choose another.") from error
    lead = (1,) * (len(target.axes) - len(chunk))
    for level in target.levels:
        create_array(
            os.path.join(target.path, level.path),
            shape=level.shape,
            dtype=dtype,
            chunk=(*lead, *chunk),
            shard=(*lead, *shard),
            version=target.version,
            axes=target.axes,
        )


def _ensure_labels_group(target: LabelTarget) -> None:
    """Make ``labels/`` with an empty, valid list if it is not there."""
    zarr_format: Literal[2, 3] = 2 if target.version == "0.4" else 3
    place = Path(target.store, "labels")
    place.mkdir(parents=True, exist_ok=True)
    with _list_held(target):
        parent = zarr.open_group(place, mode="a", zarr_format=zarr_format)
        if "labels" not in parent.attrs and "ome" not in parent.attrs:
            _write_list(target, [])


def _list_held(target: LabelTarget) -> contextlib.AbstractContextManager[None]:
    """Keep other runs on the same image from writing the list in ``labels/`` meanwhile."""
    return _held(os.path.join(target.store, "labels"))


@contextlib.contextmanager
def _held(path: str) -> Iterator[None]:
    """Keep other runs that ask for the same folder waiting."""
    folder = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems have no locks: there two runs must not end at one moment.
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _listed(target: LabelTarget) -> list[str]:
    """Names that ``labels/`` lists."""
    parent = zarr.open_group(Path(target.store, "labels"), mode="r", use_consolidated=False)
    attributes: Any = parent.attrs if target.version == "0.4" else parent.attrs.get("ome", {})
    return names_in(attributes, target.store)


def _write_list(target: LabelTarget, names: list[str]) -> None:
    """Replace the list in ``labels/``, keeping its other attributes."""
    parent = zarr.open_group(Path(target.store, "labels"), mode="r+", use_consolidated=False)
    if target.version == "0.4":
        parent.attrs["labels"] = names
    else:
        ome: Any = parent.attrs.get("ome", {})
        parent.attrs["ome"] = {**ome, "version": "0.5", "labels": names}


def _enclosing(store: str) -> Iterator[str]:
    """The group of an image and those above it: a well and its plate, or a conversion's root."""
    folder = Path(os.path.realpath(store))
    while any((folder / name).is_file() for name in ("zarr.json", ".zgroup")):
        yield str(folder)
        folder = folder.parent


def _refresh_consolidated(store: str) -> None:
    """Renew consolidated metadata where the store has them, else they hide the label."""
    with _held(store):
        try:
            root = zarr.open_group(Path(store), mode="r")
        except Exception:  # damaged ones, which fail in many ways and hide the image as well
            return
        if root.metadata.consolidated_metadata is not None:
            with warnings.catch_warnings():
                # Consolidation is no part of the Zarr 3 specification, as this store accepted.
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(Path(store))
