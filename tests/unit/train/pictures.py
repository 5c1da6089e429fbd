"""A small image with two objects, folders of such pairs, and settings of a run of a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from spoco_zoo.config import TrainConfig
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files

TINY = TrainConfig(
    iterations=4,
    validate_every=2,
    batch_size=2,
    crop=(16, 16),
    features=(4, 8),
    embedding_dim=4,
    warmup=2,
    precision="float32",
)


def pair(folder: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    for what, array in (("images", image), ("labels", labels)):
        (folder / what).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / what / f"{name}.tif", array)


def picture(seed: int = 0, shape: tuple[int, ...] = (24, 30)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    labels[..., 2:8, 3:9], labels[..., 12:20, 11:22] = 7, 4
    return rng.integers(0, 255, shape).astype(np.uint8), labels


def load(folder: Path, **settings: object) -> list:
    config = TrainConfig.checked(settings)
    return load_samples(pair_files(folder / "images", folder / "labels"), config)
