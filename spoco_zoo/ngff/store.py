"""Zarr stores, local and remote: opened, created and checked with one-line errors."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from spoco_zoo.errors import RemoteError, StoreError, described, one_line
from spoco_zoo.ngff.remote import is_remote, meet, place_of

__all__ = [
    "TIFF_INPUTS",
    "TIFF_SUFFIXES",
    "absent_blocks",
    "create_array",
    "discard_blocks",
    "emptied_blocks",
    "is_gone",
    "is_remote",
    "is_tiff_name",
    "local_path",
    "open_group",
    "open_scratch",
    "scratch_array",
    "tiles",
    "whole_chunks",
    "write_blocks",
]

TIFF_SUFFIXES = (".tif", ".tiff")
TIFF_INPUTS = (*TIFF_SUFFIXES, ".lsm")
"""Endings of files that are read as TIFF: those of Zeiss LSMs are, too."""


def is_tiff_name(place: str | Path) -> bool:
    """Whether a path or address ends like one of a TIFF."""
    return str(place).lower().endswith(TIFF_SUFFIXES)


def local_path(uri: str | Path) -> str:
    """Absolute path of a local `uri`, ``~/`` for home; a remote one without its last slash."""
    if not isinstance(uri, str | os.PathLike):
        remedy = (
            "Give its path" if hasattr(uri, "output") else "Save it as a TIFF, and give its path"
        )
        raise StoreError("an image must be given by its path", described(uri), f"{remedy}.")
    text = str(uri)
    if is_remote(text):
        return text.rstrip("/")
    # Absolute, because workers may run in another directory.
    if text.startswith("file://"):
        # Addresses write a space as %20.
        text = unquote(text.removeprefix("file://").removeprefix("localhost"))
    return os.path.abspath(os.path.expanduser(text) if text.startswith("~/") else text)


def open_group(uri: str, *, storage_options: Mapping[str, Any] | None = None) -> zarr.Group:
    """Open an existing Zarr group for reading.

    Parameters
    ----------
    uri : str
        Path or address of the group.
    storage_options : mapping, optional
        Options for fsspec, remote stores only.

    Raises
    ------
    StoreError
        If there is no group, or its metadata cannot be parsed.
    """
    meet(uri)
    try:
        # Consolidated metadata may be older than the groups that they describe.
        place = place_of(uri, storage_options)
        return zarr.open_group(place, mode="r", use_consolidated=False)
    except StoreError:
        raise
    except json.JSONDecodeError as error:
        raise StoreError(
            "Zarr metadata must be valid JSON",
            f"{error} in {uri}",
            "Restore the store's metadata files from the original.",
        ) from error
    except zarr.errors.ContainsArrayError as error:
        raise StoreError(
            "OME-Zarr input must be a group",
            f"a bare array at {uri}",
            "Give its parent folder if that is an OME-Zarr image, else save it as TIFF.",
        ) from error
    except FileNotFoundError as error:
        raise StoreError(
            "the input must be an OME-Zarr store",
            f"no Zarr group at {uri}",
            "Check the path, and for remote stores the bucket and the credentials.",
        ) from error
    # Remote file systems raise their own kinds: botocore, aiohttp, gcsfs.
    except Exception as error:
        reason = one_line(error)
        raise StoreError(
            "the store must be readable", f"{reason} at {uri}", "Check address and access."
        ) from error


def create_array(
    path: str | Path,
    *,
    shape: Sequence[int],
    dtype: Any,
    chunk: Sequence[int],
    shard: Sequence[int] | None = None,
    version: str = "0.5",
    axes: Sequence[str] | None = None,
) -> zarr.Array[Any]:
    """Create an array of zeros whose chunks carry a checksum, or keep the one that fits.

    Parameters
    ----------
    path : path
        Folder of the array.
    shape, chunk, shard : sequence of int
        Same length; a shard is a multiple of the chunk. Version 0.4 has no
        shards and ignores them.
    dtype : dtype
        Element type.
    version : {"0.4", "0.5"}
        OME-Zarr version: Zarr format 2 or 3.
    axes : sequence of str, optional
        Dimension names, written for 0.5.

    Returns
    -------
    zarr.Array
        Opened for reading and writing; picklable. An array of the same shape,
        dtype, chunk and shard that is already there is returned with its content.

    Raises
    ------
    StoreError
        If something else is there, or the place cannot be written.
    """
    path = str(path)
    shards = tuple(shard) if shard is not None and version == "0.5" else None
    wanted = (tuple(shape), np.dtype(dtype), tuple(chunk), shards)
    try:
        existing = _open_array(path, "r+")
    except (FileNotFoundError, zarr.errors.NodeNotFoundError):
        pass
    else:
        found = (existing.shape, existing.dtype, existing.chunks, existing.shards)
        if found != wanted:
            raise StoreError(
                "an array from an earlier run must have the same shape, dtype and chunks",
                f"{found} instead of {wanted} in {path}",
                "Delete it or start again with --overwrite.",
            )
        return existing
    layout: dict[str, Any]
    if version == "0.5":
        layout = {
            "zarr_format": 3,
            "shards": shards,
            "compressors": ZstdCodec(level=3, checksum=True),
            "dimension_names": list(axes) if axes is not None else None,
        }
    else:
        layout = {
            "zarr_format": 2,
            # Of the codecs with a checksum the one that every reader of this format knows.
            # TensorStore refuses Zstandard's `checksum`, and JZarr (Bio-Formats) Zstandard.
            "compressors": {"id": "zlib", "level": 1},
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    try:
        return zarr.create_array(
            place_of(path),
            shape=tuple(shape),
            dtype=dtype,
            chunks=tuple(chunk),
            fill_value=0,
            **layout,
        )
    except OSError as error:
        raise StoreError(
            "the output must be writable", f"{error} ({path})", "Choose another place."
        ) from error


def scratch_array(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    chunk: Sequence[int],
    shard: Sequence[int] | None = None,
) -> zarr.Array[Any]:
    """Create a staging array for intermediate results, or keep the one that fits.

    Parameters are those of `create_array`; parents are created.

    Raises
    ------
    StoreError
        If an array of another shape, dtype, chunk or shard is there.
    """
    return create_array(path, shape=shape, dtype=dtype, chunk=chunk, shard=shard)


def open_scratch(path: str | Path, mode: Literal["r", "r+"] = "r+") -> zarr.Array[Any]:
    """Open a staging array that `scratch_array` made.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    try:
        return _open_array(str(path), mode)
    except RemoteError:
        raise
    except OSError as error:
        raise StoreError(
            "the staging array of a run must exist", f"{error} ({path})", "Start the run again."
        ) from error


def _open_array(path: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open an array; whatever zarr makes of damaged metadata becomes one line."""
    try:
        return zarr.open_array(place_of(path), mode=mode)
    except (OSError, RemoteError):
        raise
    except Exception as error:  # zarr passes what it reads on to constructors: any kind may come
        reason = one_line(error)[:200]
        raise StoreError(
            "an array must have readable metadata",
            f"{reason} in {path}",
            "Delete it, or start again with --overwrite.",
        ) from error


def write_blocks(array: zarr.Array[Any]) -> Iterator[tuple[slice, ...]]:
    """Yield the region of every write unit: the shard, or the chunk where there are none.

    Two tasks may write at the same time if and only if no unit is touched by both.
    """
    return tiles(array.shape, array.shards or array.chunks)


def tiles(shape: Sequence[int], step: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Yield the boxes of `step` that tile `shape`, the last ones cut, last axis fastest."""
    for start in product(*(range(0, n, s) for n, s in zip(shape, step, strict=True))):
        yield tuple(slice(i, min(i + s, n)) for i, s, n in zip(start, step, shape, strict=True))


def whole_chunks(
    shape: Sequence[int], chunk: Sequence[int], voxels: int
) -> Iterator[tuple[slice, ...]]:
    """Yield boxes of whole chunks that tile `shape`, as wide along the last axes as `voxels` allow.

    One chunk, where that is more.
    """
    step = [min(c, n) for c, n in zip(chunk, shape, strict=True)]
    for axis in reversed(range(len(step))):
        step[axis] = min(step[axis] * max(voxels // prod(step), 1), shape[axis])
    return tiles(shape, step)


def emptied_blocks(array: zarr.Array[Any], where: Sequence[slice]) -> list[str]:
    """Files of local write units that exist but are empty: damage that Zarr reads as zeros."""
    return [path for path in _units(array, where) if _stored_size(path) == 0]


def absent_blocks(array: zarr.Array[Any], where: Sequence[slice]) -> str:
    """The first file of a local write unit that does not exist; empty if all do."""
    return next((path for path in _units(array, where) if _stored_size(path) is None), "")


def is_gone(array: zarr.Array[Any]) -> bool:
    """Whether a local array is no longer where it was opened: Zarr reads all of it as zeros then.

    It was moved or deleted, or the disk that it is on is no longer there.
    """
    root = getattr(array.store, "root", None)
    name = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    return root is not None and not os.path.exists(os.path.join(root, array.path, name))


def discard_blocks(array: zarr.Array[Any], where: Sequence[Any]) -> None:
    """Delete every local write unit in a region, which must cover them whole.

    Zarr reads a shard before it writes into it, so a damaged one could never be replaced.
    """
    region = [w if isinstance(w, slice) else slice(w, w + 1) for w in where]
    for path in _units(array, region):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _units(array: zarr.Array[Any], where: Sequence[slice]) -> Iterator[str]:
    """Paths of the write units that a region of a local array touches."""
    root = getattr(array.store, "root", None)
    if root is None:
        return
    step = array.shards or array.chunks
    spans = [range(w.start // s, -(-w.stop // s)) for w, s in zip(where, step, strict=True)]
    for index in product(*spans):
        yield os.path.join(root, array.path, array.metadata.encode_chunk_key(index))


def _stored_size(path: str) -> int | None:
    """Size of a file in bytes, None if it is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
