"""Label images: found by their path or inside of an image, and opened as lazy arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.image import Image, Level, planes_as_channels
from spoco_zoo.ngff.opening import open_image
from spoco_zoo.ngff.parse import ome_block
from spoco_zoo.ngff.store import is_remote, local_path, open_group

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "as_labelled",
    "find_labels",
    "label_names",
    "labelled_image",
    "laid_on",
    "names_in",
    "open_labels",
]

NAME_ONE = (
    "Name one: by --label-name in train, tune, complete and measure, elsewhere by its path, "
    "STORE/labels/NAME."
)


def find_labels(
    path: str | Path,
    name: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    unsaid: bool = False,
) -> Image:
    """Find a label image: the store itself, or one of its ``labels/``.

    Parameters
    ----------
    path : str or path
        A label image, an OME-Zarr image that holds labels, a TIFF of integers or a PNG.
    name : str, optional
        Which label of an image; needed if it holds several.
    storage_options : mapping, optional
        Options for fsspec, remote stores only.
    unsaid : bool
        Take an OME-Zarr of integers that has no labels, and does not say that it is one, as labels,
        as a TIFF is. For whoever looks whether its numbers may be those of objects.

    Raises
    ------
    StoreError
        If there is no such label, several and no name, or a name and nothing to choose from.
    """
    image = open_image(path, storage_options=storage_options, numbers=True)
    if image.kind == "ome-zarr" and not image.is_label:
        names = _listed(image)
        whole = image.dtype.kind in "ui" and image.n_channels == 1
        if names is None and name is None and whole and unsaid:
            return image
        image = _choose(image, names, name)
    elif name is not None:
        raise StoreError(
            "a label's name chooses among the labels of an OME-Zarr image",
            f"{name!r} for one label image, {image.uri}",
            "Leave the name out.",
        )
    if image.dtype.kind not in "ui":
        raise StoreError(
            "a label image must hold integers", f"{image.dtype} in {image.uri}", "Give another."
        )
    return image


def open_labels(
    path: str | Path,
    name: str | None = None,
    *,
    level: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a label image as a lazy array with physical coordinates.

    Parameters
    ----------
    path : str or path
        A label image, an OME-Zarr image that holds labels, a TIFF of integers or a PNG.
    name : str, optional
        Which label of an image; needed if it holds several.
    level : int
        Resolution level, 0 the finest.
    storage_options : mapping, optional
        Options for fsspec, remote stores only.

    Returns
    -------
    xarray.DataArray
        Dimensions as stored, e.g. ``("z", "y", "x")``; integers, 0 is
        background. Coordinates are the centres of the voxels in the image's
        units, named in each coordinate's ``units``. Pixels are read at first use:
        take a part before ``.values``.

    Raises
    ------
    StoreError
        If there is no such label or level.
    """
    image = find_labels(path, name, storage_options=storage_options)
    if not 0 <= level < len(image.levels):
        raise StoreError(
            f"the level must be 0 to {len(image.levels) - 1}",
            f"{level} for {image.uri}",
            "Choose another.",
        )
    # Importing it takes a third of a second, which commands that need it not should not wait.
    from spoco_zoo.ngff.lazy import lazy_level

    return lazy_level(image, level)


def as_labelled(image: Image, labels: Image) -> Image:
    """An image as its labels show it: planes without a name are channels if the labels are flat."""
    flat = "z" not in labels.axes and image.guessed == "z"
    return planes_as_channels(image) if flat else image


def laid_on(image: Image, labels: Image, ndim: int | None = None) -> tuple[Image, Image]:
    """An image and its labels with the same spatial axes.

    TIFF drops the z axis of the labels of one plane: they get it back if the image has one.

    Parameters
    ----------
    image, labels : Image
    ndim : int, optional
        Spatial axes of what was segmented, where that is known; else planes without a name are
        channels if the labels are flat.
    """
    if ndim != 3:
        image = as_labelled(image, labels)
    if "z" not in image.axes or "z" in labels.axes:
        return image, labels
    at = len(labels.axes) - 2
    step = image.spatial_scale()[0]

    def lifted(values: Sequence[Any], one: Any) -> tuple[Any, ...]:
        return (*values[:at], one, *values[at:])

    levels = [
        Level(
            old.path,
            lifted(old.shape, 1),
            lifted(old.scale, step),
            lifted(old.translation, 0.0),
        )
        for old in labels.levels
    ]
    unit = image.units[image.axes.index("z")] if labels.units[-1] else None
    kept = {f.name: getattr(labels, f.name) for f in fields(Image) if f.init}
    kept.update(axes=lifted(labels.axes, "z"), units=lifted(labels.units, unit))
    return image, PlaneOfStack(**{**kept, "levels": tuple(levels)}, origin=labels)


@dataclass(frozen=True)
class PlaneOfStack(Image):
    """A flat image with a z axis of one voxel."""

    origin: Image | None = None

    def read_region(self, level: int, region: Sequence[slice]) -> NDArray[Any]:
        """See `Image.read_region`."""
        assert self.origin is not None
        at = self.axes.index("z")
        values = self.origin.read_region(level, (*region[:at], *region[at + 1 :]))
        return np.expand_dims(values, at)

    def chunks(self, level: int = 0) -> tuple[int, ...]:
        """See `Image.chunks`."""
        assert self.origin is not None
        at, flat = self.axes.index("z"), self.origin.chunks(level)
        return (*flat[:at], 1, *flat[at:])


def label_names(image: Image) -> tuple[str, ...]:
    """Names of the labels that an image lists; none if it is a TIFF or has no labels.

    Raises
    ------
    RemoteError
        If the store of the image does not answer, or refuses.
    StoreError
        If there is a list of labels that cannot be read.
    """
    return (_listed(image) or ()) if image.kind == "ome-zarr" else ()


def labelled_image(label: Image) -> Image | None:
    """The image that a label image belongs to, if it says so and the image is there."""
    if label.kind != "ome-zarr" or is_remote(label.uri):
        return None
    source = label_block(label).get("source")
    place = source.get("image") if isinstance(source, dict) else None
    if not isinstance(place, str):
        return None
    path = os.path.normpath(os.path.join(label.uri, place))
    return open_image(path) if os.path.isdir(path) else None


def label_block(label: Image) -> dict[str, Any]:
    """What an OME-Zarr label says of itself: `source`, `colors`, `properties`; else nothing."""
    if label.kind != "ome-zarr":
        return {}
    group = open_group(label.uri, storage_options=label.storage_options)
    block = ome_block(dict(group.attrs), group.metadata.zarr_format, label.uri)
    found = block.get("image-label")
    return dict(found) if isinstance(found, Mapping) else {}


def _listed(image: Image) -> tuple[str, ...] | None:
    """Names of the labels of an OME-Zarr image; None if it has no group for them."""
    place = f"{image.uri}/labels"
    try:
        group = open_group(place, storage_options=image.storage_options)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    # Some writers leave the version out here.
    form = group.metadata.zarr_format
    block = ome_block(dict(group.attrs), form, place, inherited=image.version)
    return tuple(names_in(block, place))


def names_in(block: Mapping[str, Any], place: str) -> list[str]:
    """The list of labels in the attributes of their group; null is an empty one.

    Raises
    ------
    StoreError
        If it is no list.
    """
    names = block.get("labels") or []
    if not isinstance(names, (list, tuple)):
        raise StoreError(
            "labels must be listed by their names",
            f"{names!r:.40} in {place}",
            "Mend the metadata.",
        )
    return [str(name) for name in names]


def _choose(image: Image, names: tuple[str, ...] | None, name: str | None) -> Image:
    """Open the label of an image that lists some, by its name, or the only one."""
    place = f"{image.uri}/labels"
    if names is None:
        raise StoreError(
            "a label image must be named, or an image that holds labels",
            f"an image without labels at {local_path(image.uri)}",
            "Segment it first, or give the label's own store. If its numbers are labels, say so: "
            "spoco-zoo convert IN OUT --labels, and give OUT.",
        )
    if name is None and len(names) == 1:
        name = names[0]
    if name is None and len(names) > 1:
        raise StoreError(
            "one label must be chosen where an image holds several",
            f"several: {', '.join(names)} in {image.uri}",
            NAME_ONE,
        )
    if name not in names:
        asked = repr(name) if name else "no name"
        raise StoreError(
            "a label must be one that the image lists",
            f"{asked} for {image.uri}, which lists {', '.join(names) or 'none'}",
            NAME_ONE,
        )
    if ".." in name.split("/"):
        raise StoreError(
            "labels must lie inside of their image",
            f"{name!r:.80} in {image.uri}",
            "Mend the list.",
        )
    return open_image(f"{place}/{name}", storage_options=image.storage_options)
