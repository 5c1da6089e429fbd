"""How images and labels lie in their folders: pairs of files, or a benchmark's own layout.

::

    pairs        images/a.tif                        labels/a.tif
    cvppp        A1/plant001_rgb.png                 A1/plant001_label.png (one colour per leaf)
    cityscapes   leftImg8bit/train/aachen/           gtFine/train/aachen/
                   aachen_0_1_leftImg8bit.png          aachen_0_1_gtFine_instanceIds.png

In both benchmarks' layouts everything that is no object has value 0: background
in dense annotation, not annotated in sparse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.naming import by_name, visible
from spoco_zoo.train.files import check_folder, match_names, pair_files, read_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.train.files import Pair

__all__ = ["find_pairs", "read_pair"]

# What follows an image's name, in images and in labels.
ENDINGS = {
    "cvppp": ("_rgb.png", "_label.png"),
    "cityscapes": ("_leftImg8bit.png", "_gtFine_instanceIds.png"),
}
# Classes with instances; a voxel's value is 1000 times its class, plus the number of the instance.
# A value of the class alone is a group that nobody took apart, and no object.
CITYSCAPES = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "caravan": 29,
    "trailer": 30,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
INSTANCES = 1000


def find_pairs(images: Path, labels: Path, config: TrainConfig, *, prefix: str = "") -> list[Pair]:
    """Pairs of a data set in the configured layout; `prefix` is of the options that name it.

    Raises
    ------
    DataError
        If files are missing.
    ConfigError
        If settings do not go with the layout.
    """
    if config.layout == "pairs":
        return pair_files(images, labels, prefix=prefix)
    if config.background_label:
        raise ConfigError(
            f"--background-label needs --layout pairs: labels of {config.layout} have codes",
            f"{config.background_label}",
            "Leave it out, or convert the labels to TIFF.",
        )
    unknown = sorted(set(config.classes) - set(CITYSCAPES))
    if unknown:
        raise ConfigError(
            f"--classes must be among {', '.join(CITYSCAPES)}", ", ".join(unknown), "Choose others."
        )
    found = {}
    for folder, what, end in zip(
        (images, labels), ("images", "labels"), ENDINGS[config.layout], strict=True
    ):
        check_folder(folder, prefix + what)
        files = sorted(visible(folder.rglob(f"*{end}")))
        if not files:
            raise DataError(
                f"--{prefix}{what} must hold files *{end} for --layout {config.layout}",
                f"none in or below {folder}",
                "Check the path, or use --layout pairs.",
            )
        found[what] = by_name(
            ((path.name.removesuffix(end), path) for path in files), f"--{prefix}{what}"
        )
    return match_names(found["images"], found["labels"])


def read_pair(pair: Pair, config: TrainConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image as stored, and labels as integers of one value per object."""
    image = read_array(pair.image, ndim=config.ndim)
    labels = read_array(pair.labels, labels=True, label_name=config.label_name, ndim=config.ndim)
    if config.layout == "cvppp":
        return image, colours_to_ids(labels)
    if config.layout == "cityscapes":
        return image, instances_of(labels, config.classes)
    return image, labels


def colours_to_ids(labels: NDArray[Any]) -> NDArray[Any]:
    """One id per colour of (Y, X, 3), 0 for black; indexed labels (Y, X) stay as they are."""
    if labels.ndim == 2:
        return labels
    colour = labels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    values, ids = np.unique(colour, return_inverse=True)
    return np.asarray(ids.reshape(colour.shape) + (values[0] != 0))


def instances_of(labels: NDArray[Any], classes: tuple[str, ...]) -> NDArray[Any]:
    """Instance ids of the given classes, 0 elsewhere."""
    wanted = [CITYSCAPES[name] for name in classes]
    return np.where(np.isin(labels // INSTANCES, wanted), labels, 0)
