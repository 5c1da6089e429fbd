"""Data for a model of dense tissue: the one real volume there is, and tissue made up around it.

::

    python -m benchmarks.mixed_tissue ovule-cells-3d OUT --seed 0

Writes ``OUT/{train,val,test}/{images,labels}``. The real volume (Z, Y, X) is cut along Y:
rows before 80 are for training, 80 to 96 for nothing (cells reach across the cuts), the
rest for the test. Made-up volumes have the real one's voxels, no gaps and no background, and each
has a look of its own (size and shape of cells, blur, saturation, noise); four of them are for
validation, on which the clustering is tuned. The real part is written once per two made-up
volumes, so that it is a third of what is seen.
One line of JSON says what was written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from spoco_zoo.demo.synth import Tissue, draw

SHAPE = (32, 96, 96)
ANISOTROPY = 0.235 / 0.15
TRAIN_END, TEST_BEGIN = 80, 96
VALIDATION = 4  # made-up volumes


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels cut out of the middle of an endless tissue without gaps.

    Cells of 14 to 34 pixels, stretched by up to 1.6 along Y and X.
    """
    rng = np.random.default_rng(seed)
    diameter, stretch = float(rng.uniform(14, 34)), rng.uniform(1, 1.6, 2)
    shape = (SHAPE[0], *(int(np.ceil(n / f)) for n, f in zip(SHAPE[1:], stretch, strict=True)))
    whole, drawn = tuple(3 * n for n in shape), int(rng.integers(1 << 30))
    tissue = Tissue(whole, drawn, diameter, ANISOTROPY, gaps=0, coverage=1)
    image, labels = draw(tissue, tuple(slice(n, 2 * n) for n in shape))
    # Some corners between cells belong to none; in the real volume there is no such voxel.
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    zoom = tuple(n / m for n, m in zip(SHAPE, shape, strict=True))
    how = {"grid_mode": True, "mode": "nearest"}
    labels = ndimage.zoom(labels[tuple(nearest)], zoom, order=0, **how)
    image = ndimage.zoom(image.astype(np.float32), zoom, order=1, **how)
    return photographed(image, labels, rng), labels


def photographed(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another look: bright cells, blur of up to 3.2 pixels, walls that saturate, gamma, noise."""
    low, high = np.percentile(image, (1, 99.9))
    image = (image - low) / (high - low)
    image = image + (0.5 * rng.uniform(size=labels.max() + 1) ** 4)[labels]
    blur = rng.uniform(0, 3.2)
    image = ndimage.gaussian_filter(image, (blur / ANISOTROPY, blur, blur))
    low = np.percentile(image, rng.uniform(0.1, 8))
    high = np.percentile(image, rng.uniform(65, 99.9))
    image = np.clip((image - low) / (high - low), 0, 1) ** np.exp(rng.uniform(-0.4, 0.6))
    image = image + rng.normal(size=image.shape) * rng.choice([0, 0.02, 0.06, 0.12])
    return np.asarray(np.clip(20 + 225 * image, 0, 255), np.uint8)


def write(folder: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    """One pair of TIFFs."""
    for kind, values in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / kind / f"{name}.tif", values, compression="zlib")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with images/ and labels/ of one volume")
    parser.add_argument("out", type=Path)
    parser.add_argument("--volumes", type=int, default=28, help="made-up volumes for training")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    image, labels = (
        tifffile.imread(next((asked.data / kind).glob("*.tif"))) for kind in ("images", "labels")
    )
    for copy in range(max(1, asked.volumes // 2)):
        write(asked.out / "train", f"real-{copy}", image[:, :TRAIN_END], labels[:, :TRAIN_END])
    write(asked.out / "test", "real", image[:, TEST_BEGIN:], labels[:, TEST_BEGIN:])
    for number in range(asked.volumes + VALIDATION):
        part = "train" if number < asked.volumes else "val"
        write(asked.out / part, f"made-{number}", *made_up(asked.seed * 1000 + number))
    test = int(np.unique(labels[:, TEST_BEGIN:]).size)
    print(json.dumps({"volumes": asked.volumes, "seed": asked.seed, "cells_in_test": test}))


if __name__ == "__main__":
    main()
