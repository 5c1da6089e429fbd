"""What there is to see at a path: an image, its labels, and parts in colours of their own."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.ngff import Image

__all__ = ["Coloured", "Scene", "find_scene", "is_served", "look_commands"]

ALIKE = 0.02
"""Part of an image by which its labels may be longer."""
TIFF_VOXELS = 2**28
"""A TIFF is shown from memory, up to this size."""


@dataclass(frozen=True)
class Coloured:
    """A part of a volume in colours of its own, such as those of embeddings.

    Attributes
    ----------
    name : str
    rgb : ndarray
        uint8 ([Z,] Y, X, 3).
    start : tuple of int
        Its first voxel ([Z,] Y, X).
    voxel_size : tuple of float or None
        Micrometres per axis; None where it is unknown.
    """

    name: str
    rgb: np.ndarray
    start: tuple[int, ...]
    voxel_size: tuple[float, ...] | None


@dataclass(frozen=True)
class Scene:
    """What is shown: an image, labels, or both, and parts in colours."""

    image: Image | None
    labels: tuple[Image, ...]
    coloured: tuple[Coloured, ...] = ()

    @property
    def first(self) -> Image:
        """The image, or else the first label."""
        return self.image or self.labels[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for granted, and which labels may not belong to the image."""
        image = self.image
        odd = [label for label in self.labels if image and not _cover_alike(image, label)]
        return self.first.notes + tuple(
            f"{os.path.basename(label.uri)} covers {_extent_text(label)}, "
            f"{os.path.basename(self.first.uri)} {_extent_text(self.first)}: "
            "they may not belong together."
            for label in odd
        )


def find_scene(path: str, labels: Sequence[str] = ()) -> Scene:
    """Find out what there is to see.

    Parameters
    ----------
    path : str
        An OME-Zarr image, shown with all labels that it lists; a label image,
        shown over its image where it says which that is; or a TIFF.
    labels : sequence of str
        Further label images.

    Raises
    ------
    StoreError
        If something is not there, or a TIFF is too large to be shown from memory.
    """
    image = ngff.open_image(path)
    found = [ngff.find_labels(label) for label in labels]
    if image.is_label:
        origin = ngff.labelled_image(image)
        scene = Scene(origin, (image, *found))
    else:
        own = [ngff.find_labels(image.uri, name) for name in ngff.label_names(image)]
        image = ngff.as_labelled(image, found[0]) if found else image
        scene = Scene(image, (*own, *(_sized(image, label) for label in found)))
    for shown in (scene.image, *scene.labels):
        if shown is None or is_served(shown):
            continue
        if prod(shown.levels[0].shape) > TIFF_VOXELS:
            zarr = shown.kind == "ome-zarr"
            raise StoreError(
                f"an image of more than {TIFF_VOXELS:,} values must be an OME-Zarr of integers "
                "or float32 to be shown",
                f"{shown.dtype}, {shown.levels[0].shape} in {shown.uri}",
                "Save it with such a type."
                if zarr
                else "Convert it first: spoco-zoo convert IN.tif OUT.ome.zarr",
            )
    return scene


def _sized(image: Image, label: Image) -> Image:
    """Labels that state no voxel size as large as the image whose shape they have."""
    shape = label.spatial_shape()
    if label.voxel_size() or not image.voxel_size() or shape != image.spatial_shape():
        return label
    lead = len(label.axes) - len(shape)
    level = label.levels[0]
    level = replace(level, scale=(*level.scale[:lead], *image.spatial_scale()))
    units = (*label.units[:lead], *image.units[-len(shape) :])
    return replace(label, levels=(level,), units=units)


def _extent(image: Image) -> tuple[tuple[float, ...], str]:
    """Length of each axis that is longer than a voxel, and in what."""
    size = image.voxel_size()
    sizes = size or (1.0,) * len(image.spatial)
    lengths = zip(image.spatial_shape(), sizes, strict=True)
    return tuple(n * s for n, s in lengths if n > 1), "um" if size else "voxels"


def _cover_alike(image: Image, label: Image) -> bool:
    """Whether labels are as large as their image, but for the rounding of a coarser level."""
    if label.kind == "ome-zarr":
        return True  # it says where it lies, which may be in a part
    (one, unit), (other, other_unit) = _extent(image), _extent(label)
    near = len(one) == len(other) and np.allclose(one, other, rtol=ALIKE, atol=0)
    return near and unit == other_unit


def _extent_text(image: Image) -> str:
    lengths, unit = _extent(image)
    return f"{' x '.join(f'{n:.6g}' for n in lengths)} {unit}"


def look_commands(source: str, output: str) -> tuple[str, str]:
    """Commands that show a result: in the browser, and in napari.

    Parameters
    ----------
    source : str
        The image.
    output : str
        Its labels: inside of it, or anywhere else.
    """
    inside = output.startswith(os.path.join(os.path.abspath(source), ""))
    inside = inside or f"{os.path.basename(source.rstrip('/'))}/labels/" in output
    image, labels = shlex.quote(source), shlex.quote(output)
    tiff = ngff.is_tiff_name(output)
    napari = "napari" if tiff else "napari --plugin napari-ome-zarr"
    if inside:
        return f"spoco-zoo view {image}", f"{napari} {image}"
    return f"spoco-zoo view {image} --labels {labels}", f"{napari} {image} {labels}"


def is_served(image: Image) -> bool:
    """Whether the page reads an image from its store; others are shown from memory."""
    return image.kind == "ome-zarr" and image.dtype.name not in ("float16", "float64", "bool")
