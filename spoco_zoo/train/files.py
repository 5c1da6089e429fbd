"""Files on disk: pairs of image and labels by name, and one array from each kind of file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError, InputError, one_line
from spoco_zoo.naming import SUFFIXES, by_name, is_named_labels, stem, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Pair", "left_out", "match_names", "pair_files", "read_array"]


@dataclass(frozen=True)
class Pair:
    """An image file, its label file, and their common name."""

    name: str
    image: Path
    labels: Path


def pair_files(images: Path, labels: Path, *, prefix: str = "") -> list[Pair]:
    """Pair the files of two folders (or two single files) by name without suffix.

    `prefix` is of the options that name them, for messages.

    Raises
    ------
    DataError
        If a folder is missing or empty, an image has no label file or is its own, or
        two files have the same name.
    """
    if all(path.is_file() or path.suffix.lower() == ".zarr" for path in (images, labels)):
        return match_names({stem(images): images}, {stem(images): labels})
    found = {}
    shared = images.is_dir() and labels.is_dir() and images.resolve() == labels.resolve()
    for folder, what in ((images, "images"), (labels, "labels")):
        check_folder(folder, prefix + what)
        files = listed(folder)
        if shared and any(map(is_named_labels, files)):
            files = [p for p in files if is_named_labels(p) == (what == "labels")]
        if not files:
            raise DataError(
                f"--{prefix}{what} must hold files of type {', '.join(SUFFIXES)}",
                f"none in {folder}",
                "Convert the images to TIFF.",
            )
        found[what] = by_name(((stem(p), p) for p in files), f"--{prefix}{what}")
    return match_names(found["images"], found["labels"])


def listed(folder: Path) -> list[Path]:
    """The files of a folder that can be read, in order."""
    return sorted(p for p in visible(folder.iterdir()) if p.suffix.lower() in SUFFIXES)


def left_out(images: Path, labels: Path) -> str:
    """What to say of label files in a folder whose images are not in the other; empty if none."""
    if not (images.is_dir() and labels.is_dir()) or images.resolve() == labels.resolve():
        return ""
    folders = [p for p in visible(images.iterdir()) if p.is_dir() and p.suffix.lower() != ".zarr"]
    deeper = sum(len(listed(folder)) for folder in folders)
    lone = {stem(path) for path in listed(labels)} - {stem(path) for path in listed(images)}
    if deeper:
        return f"Files in folders of {images} are left out: {deeper}. Move them up to be used."
    if not lone:
        return ""
    odd = sorted(p.name for p in visible(images.iterdir()) if p.suffix and p.stem in lone)
    text = f"Label files without an image are left out: {len(lone)}, such as {min(lone)!r}."
    return text + (f" {odd[0]} is of a type that is not read: save it as TIFF." if odd else "")


def check_folder(folder: Path, what: str) -> None:
    """Refuse what is no folder."""
    if not folder.is_dir():
        raise DataError(
            f"--{what} must be a folder, or both a file", f"{folder}", "Check the path."
        )


def match_names(images: dict[str, Path], labels: dict[str, Path]) -> list[Pair]:
    """One pair per image; labels without an image are left out."""
    missing = sorted(set(images) - set(labels))
    if missing:
        raise DataError(
            "every image needs a label file of the same name",
            f"{len(missing)} of {len(images)} without, the first is {missing[0]!r}",
            "Add the label file, or move the image out of the folder.",
        )
    pairs = [Pair(name, images[name], labels[name]) for name in sorted(images)]
    for pair in pairs:
        if same_file(pair) and not (pair.image / "labels").is_dir():
            raise DataError(
                "labels must be files of their own, or lie in the OME-Zarr of their image",
                f"the image itself as its labels, {pair.image.name}",
                "Give --labels the folder, or file, of the labels.",
            )
    return pairs


def same_file(pair: Pair) -> bool:
    """Whether image and labels are one file or folder, by whatever path."""
    return pair.image.resolve() == pair.labels.resolve()


def read_array(
    path: Path, *, labels: bool = False, label_name: str | None = None, ndim: int = 3
) -> NDArray[Any]:
    """Read one array file in its stored axis order.

    With `labels` those inside an OME-Zarr are taken, of several those of `label_name`, and the
    numbers of an indexed PNG in place of their colours. A network of `ndim` axes does not see
    a stack as channels, if the file says that it is one.

    Raises
    ------
    DataError
        If the file cannot be read or holds several arrays.
    """
    from spoco_zoo.ngff.store import TIFF_INPUTS

    suffix = path.suffix.lower()
    try:
        if suffix in TIFF_INPUTS:
            return _read_tiff(path, ndim, labels=labels)
        if suffix == ".png":
            from spoco_zoo.ngff.picture import read_picture

            return read_picture(path, numbers=labels)
        if suffix in (".h5", ".hdf5"):
            return _read_hdf5(path)
        if suffix == ".zarr":
            from spoco_zoo.ngff import find_labels, open_image

            inside = labels and (path / "labels").is_dir()
            store = find_labels(path, label_name) if inside else open_image(path)
            if store.n_times > 1:
                raise DataError(
                    "a training file must hold one time point",
                    f"{store.n_times} in {path.name}",
                    "Save each time point, and its labels, as a file of its own, e.g. as TIFF.",
                )
            everything = tuple(slice(0, n) for n in store.spatial_shape(0))
            return store.read(0, 0, None, everything)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            return np.asarray(loaded[_only_one(list(loaded.files), path)])
        return np.asarray(loaded)
    except InputError:
        raise
    except Exception as error:  # each reader has its own kinds of error
        raise DataError(
            "training files must be readable",
            f"{type(error).__name__}: {one_line(error)[:120]} ({path})",
            "Open the file in an image viewer and save it again as TIFF.",
        ) from error


def _read_tiff(path: Path, ndim: int, *, labels: bool) -> NDArray[Any]:
    """The first series, named channels first; transparency that hides nothing is left out.

    Others of its shape are images too, smaller ones are thumbnails. Labels may have a palette.
    """
    from spoco_zoo.ngff.colours import check_colours, is_indexed, palette_error
    from spoco_zoo.ngff.missing import check_complete
    from spoco_zoo.ngff.tiff_set import open_tiff, own_series, read_series

    with open_tiff(path) as file:
        own = own_series(file, path)
        first = file.series[own[0]]
        check_complete(file, first, path.name)
        check_colours(first.keyframe, path.name)
        if not labels and is_indexed(first.keyframe):
            raise palette_error(path.name)
        alike = sum(file.series[i].shape == first.shape for i in own)
        if alike > 1:
            raise DataError(
                "a training file must hold one image",
                f"{alike} of shape {first.shape} in {path.name}",
                "Save each image, and its labels, as a file of its own.",
            )
        stacked = [
            f"{n} along {axis}"
            for axis, n in zip(first.axes, first.shape, strict=True)
            if n > 1 and axis in "TZ"
        ]
        # A stack may be named a film by mistake, but both at once are more than one volume.
        if len(stacked) > ndim - 2:
            raise DataError(
                f"a training file must hold one {'plane' if ndim == 2 else 'volume'}",
                f"{', '.join(stacked)} in {path.name}",
                "Save each, and its labels, as a file of its own"
                + ("; or pass --ndim 3." if ndim == 2 else "."),
            )
        array, axes = read_series(file, own[0]), first.axes
    if axes.endswith("YXS"):
        full = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
        # tifffile calls the last of any four channels transparency, so only opaque ones are left.
        if array.shape[-1] == 4 and (array[..., 3] == full).all():
            array = array[..., :3]
        return np.moveaxis(array, -1, 0)
    return np.moveaxis(array, max(axes.find("C"), 0), 0)


def _read_hdf5(path: Path) -> NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(
            lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None
        )
        return np.asarray(file[_only_one(names, path)])


def _only_one(names: Sequence[str], path: Path) -> str:
    if len(names) != 1:
        raise DataError(
            "a training file must hold one array",
            f"{len(names)} in {path.name}: {', '.join(names)[:80]}",
            "Save image and labels in files of their own.",
        )
    return names[0]
