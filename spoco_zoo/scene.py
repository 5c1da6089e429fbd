"""What there is to see at a path: an image, its labels, and parts in colours of their own."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.image import open_level
from spoco_zoo.ngff.picture import PICTURE_SUFFIXES
from spoco_zoo.ngff.store import TIFF_INPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spoco_zoo.ngff import Image
    from spoco_zoo.ngff.image import Level

__all__ = [
    "MOST_CHANNELS",
    "Coloured",
    "Frame",
    "Scene",
    "find_scene",
    "frame_of",
    "is_served",
    "look_commands",
]

ALIKE = 0.02
"""Part of an image by which its labels may be longer."""
TIFF_VOXELS = 2**28
"""A TIFF is shown from memory, up to this size."""
MOST_CHANNELS = 6
"""Of an image that are shown."""
CODECS = {
    *("bytes", "transpose", "sharding_indexed", "crc32c"),
    *("blosc", "gzip", "zlib", "zstd"),
}
"""What the page can unpack."""


@dataclass(frozen=True)
class Frame:
    """Where the voxels of an image lie in the scene, in micrometres per axis ([Z,] Y, X).

    A voxel of unknown size is drawn as one micrometre.
    """

    size: tuple[float, ...]
    """Of a voxel."""
    origin: tuple[float, ...]
    """The first voxel."""


@dataclass(frozen=True)
class Coloured:
    """A part of a volume in colours of its own, such as those of embeddings.

    Attributes
    ----------
    name : str
    rgb : ndarray
        uint8 ([Z,] Y, X, 3).
    frame : Frame
    """

    name: str
    rgb: np.ndarray
    frame: Frame


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
        image, notes = self.image, list(self.first.notes)
        if image is not None and image.n_channels > MOST_CHANNELS:
            notes.append(f"Of {image.n_channels} channels the first {MOST_CHANNELS} are shown.")
        odd = [label for label in self.labels if image and not _cover_alike(image, label)]
        notes += [
            f"{os.path.basename(label.uri)} covers {_extent_text(label)}, "
            f"{os.path.basename(self.first.uri)} {_extent_text(self.first)}: "
            "they may not belong together."
            for label in odd
        ]
        return tuple(notes)

    def frame(self, shown: Image) -> Frame:
        """Where the image or one of the labels lies.

        Labels that do not say so lie over the image: those of its shape if their voxel size or
        that of the image is unknown, and those of its extent in a TIFF, which states no place.
        """
        own = frame_of(shown)
        if self.image is None or shown is self.image:
            return own
        whole = frame_of(self.image)
        if _same_voxels(self.image, shown):
            return whole
        if shown.kind == "ome-zarr" and not (self.image.voxel_size() or shown.voxel_size()):
            # Both count in the image's own lengths, whatever these are.
            return frame_of(shown, unit=self.image.spatial_scale())
        if shown.kind != "ome-zarr" and _cover_alike(self.image, shown):
            return Frame(own.size, whole.origin)
        return own


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
        scene = Scene(image, (*own, *found))
    for shown in (scene.image, *scene.labels):
        if shown is None or is_served(shown):
            continue
        if prod(shown.levels[0].shape) > TIFF_VOXELS:
            zarr = shown.kind == "ome-zarr"
            raise StoreError(
                f"an image of more than {TIFF_VOXELS:,} values must be an OME-Zarr of integers "
                "or float32, packed with blosc, gzip, zlib or zstd, to be shown",
                f"{shown.dtype}, {shown.levels[0].shape}"
                f"{_codecs_text(shown) if zarr else ''} in {shown.uri}",
                "Save it so: spoco-zoo convert IN.ome.zarr OUT.ome.zarr does, but for the type."
                if zarr
                else "Convert it first: spoco-zoo convert IN.tif OUT.ome.zarr",
            )
    return scene


def frame_of(
    image: Image,
    level: Level | None = None,
    start: Sequence[int] = (),
    *,
    unit: Sequence[float] = (),
) -> Frame:
    """Where an image, or what was made of its voxels, lies by its own metadata.

    Parameters
    ----------
    image : Image
    level : Level, optional
        Of it or of a view with other voxels; by default its finest one.
    start : sequence of int
        The voxel ([Z,] Y, X) of that level to begin with; by default the first.
    unit : sequence of float
        Length per axis that is drawn as one micrometre, of an image without a voxel size; by
        default the step of its finest level.
    """
    ndim, own = len(image.spatial), unit or image.spatial_scale()
    level = level or image.levels[0]
    micrometres = [s / o for s, o in zip(image.voxel_size() or (1.0,) * ndim, own, strict=True)]
    steps, shift = level.scale[-ndim:], level.translation[-ndim:]
    places = zip(shift, start or (0,) * ndim, steps, micrometres, strict=True)
    return Frame(
        tuple(step * unit for step, unit in zip(steps, micrometres, strict=True)),
        tuple((at + voxel * step) * unit for at, voxel, step, unit in places),
    )


def _same_voxels(image: Image, label: Image) -> bool:
    """Whether labels have the shape of their image, and one of the two has no voxel size."""
    sized = image.voxel_size() is not None, label.voxel_size() is not None
    return label.spatial_shape() == image.spatial_shape() and not all(sized)


def _extent(image: Image) -> tuple[tuple[float, ...], str]:
    """Length of each axis that is longer than a voxel, and in what."""
    size = image.voxel_size()
    sizes = size or (1.0,) * len(image.spatial)
    lengths = zip(image.spatial_shape(), sizes, strict=True)
    return tuple(n * s for n, s in lengths if n > 1), "um" if size else "voxels"


def _cover_alike(image: Image, label: Image) -> bool:
    """Whether labels are as large as their image, but for the rounding of a coarser level."""
    if _same_voxels(image, label):
        return True
    if label.kind == "ome-zarr" and not (image.voxel_size() and not label.voxel_size()):
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
    # A name that begins with a dash would be taken for an option.
    image, labels = (shlex.quote(f"./{p}" if p.startswith("-") else p) for p in (source, output))
    # The plugin would be made to read both.
    file = source.lower().endswith((*PICTURE_SUFFIXES, *TIFF_INPUTS))
    napari = "napari" if file or ngff.is_tiff_name(output) else "napari --plugin napari-ome-zarr"
    if inside:
        return f"spoco-zoo view {image}", f"{napari} {image}"
    return f"spoco-zoo view {image} --labels {labels}", f"{napari} {image} {labels}"


def is_served(image: Image) -> bool:
    """Whether the page reads an image from its store; others are shown from memory."""
    unknown = ("float16", "float64", "bool", *(["int64"] if image.version == "0.5" else []))
    if image.kind != "ome-zarr" or image.dtype.name in unknown:
        return False
    return _codecs(image) <= CODECS


def _codecs(image: Image) -> set[str]:
    """Names of what the chunks of the finest level are packed with, filters and those in shards."""
    metadata = open_level(image.uri, image.levels[0].path, image.storage_options).metadata
    if metadata.zarr_format == 2:
        packed = {metadata.compressor.codec_id} if metadata.compressor else set[str]()
        # The page knows no filters, of whatever name.
        return packed | {f"filter {one.codec_id}" for one in metadata.filters or ()}
    return set(_names(metadata.to_dict()["codecs"]))


def _codecs_text(image: Image) -> str:
    found = _codecs(image) - CODECS
    return f", packed with {', '.join(sorted(found))}," if found else ""


def _names(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        yield codec["name"]
        yield from _names(codec.get("configuration", {}).get("codecs", ()))
