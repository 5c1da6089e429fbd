"""Where the labels of a run go, and where its own files lie."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo import ngff
from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import is_remote
from spoco_zoo.ngff.picture import PICTURE_SUFFIXES
from spoco_zoo.ngff.store import TIFF_INPUTS, local_path
from spoco_zoo.run_folder import RUN_ENDING
from spoco_zoo.segment.ledger import REPORT, was_published

if TYPE_CHECKING:
    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.ngff import Image, LabelTarget
    from spoco_zoo.segment.blocks import Box

__all__ = ["TiffTarget", "choose_target", "default_output", "run_folder"]

TIFF_VOXELS = 2**28
"""A TIFF has neither blocks nor levels: above this, OME-Zarr is the default output."""


@dataclass(frozen=True)
class TiffTarget:
    """A label TIFF, written in one piece at the end."""

    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]


def default_output(
    image: Image, label_name: str, folder: Path | None = None, name: str = ""
) -> str | None:
    """Where the label goes if the user does not say: a new file beside a file.

    Parameters
    ----------
    image : Image
    label_name : str
    folder : Path, optional
        Where the labels of several images go: each has the name of its image there.
    name : str, optional
        Of the image among these, if it is not that of its file.

    Returns
    -------
    str or None
        None: into the image itself.
    """
    inside = image.kind == "ome-zarr"
    if inside and folder is None:
        return None
    stem = image.uri.rstrip("/")
    for suffix in (*TIFF_INPUTS, *PICTURE_SUFFIXES, ".zarr", ".ome"):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    small = image.n_times * prod(image.spatial_shape()) <= TIFF_VOXELS
    ending = ".tif" if small and not inside else ".ome.zarr"
    if folder is None:
        return f"{stem}.{label_name}{ending}"
    return str(folder / f"{name or Path(stem).name}{ending}")


def run_folder(image: Image, output: str | Path | None, label_name: str) -> Path:
    """Folder of a run's ledger and scratch data: beside its output, or here if that is remote.

    Links are followed, so that a store has one folder, and one lock, whatever it is called.
    """
    if output is not None and is_remote(str(output)):
        address = str(output).rstrip("/")
        mark = hashlib.sha256(address.encode()).hexdigest()[:8]
        return Path.cwd() / f"{address.rsplit('/', 1)[-1]}-{mark}{RUN_ENDING}"
    if output is None:
        return Path(f"{os.path.realpath(image.uri)}.{label_name}{RUN_ENDING}")
    return Path(f"{os.path.realpath(local_path(output))}{RUN_ENDING}")


def choose_target(
    image: Image,
    config: SegmentConfig,
    output: str | Path | None,
    label_name: str,
    version: str | None,
    overwrite: bool,
    region: Box,
) -> LabelTarget | TiffTarget:
    """Where the label goes.

    Raises
    ------
    StoreError
        If the name or version cannot be had there, or the place is taken, remote where it must be
        local, or not fit for labels.
    """
    ngff.check_label_name(label_name)
    if output is None or not ngff.is_tiff_name(output):
        return ngff.plan_label(
            image,
            name=label_name,
            output=output,
            level=config.level,
            roi=config.roi,
            version=version,
            overwrite=overwrite,
        )
    if is_remote(str(output)):
        raise StoreError(
            "a label TIFF must be written to a local file", str(output), "Choose another --output."
        )
    if version is not None:
        raise StoreError(
            "a label TIFF has no OME-Zarr version",
            f"--ome-zarr-version {version} for {output}",
            "Leave it out, or name an --output that ends in .ome.zarr.",
        )
    path = local_path(output)
    ngff.check_outside(image, path)
    _check_free(Path(path), run_folder(image, output, label_name), overwrite)
    axes = tuple(a for a in image.axes if a != "c")
    lead = (image.n_times,) if "t" in axes else ()
    return TiffTarget(path, axes, (*lead, *region.shape))


def _check_free(path: Path, folder: Path, overwrite: bool) -> None:
    """Raise unless nothing is at the path of a label TIFF, or labels that may be replaced."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise StoreError(
            "an existing file is not replaced",
            str(path),
            "Choose another --output, or add --overwrite.",
        )
    if not (ngff.is_label_tiff(path) or _has_labels_of(folder, path)):
        raise StoreError(
            "only labels are ever replaced",
            f"something else at {path}",
            "Move it away, or choose another --output.",
        )


def _has_labels_of(folder: Path, path: Path) -> bool:
    """Whether a run ended here, and its file may be: other software drops the writer's mark."""
    if not ((folder / REPORT).is_file() or was_published(folder)):
        return False
    try:
        found = ngff.open_image(path)
    except StoreError:
        return False
    return found.kind == "tiff" and found.n_channels == 1 and found.dtype.kind in "iu"
