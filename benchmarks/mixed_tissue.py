"""Data for a model of dense tissue: the one real volume there is, and tissue made up around it.

::

    python -m benchmarks.mixed_tissue ovule-cells-3d OUT --seed 0 [--amid-ground]

Writes ``OUT/{train,val,test}/{images,labels}``. The real volume (Z, Y, X) is cut along Y:
rows before 80 are for training, 80 to 96 for nothing (cells reach across the cuts), the
rest for the test. Made-up volumes have the real one's voxels, no gaps and no background, and each
has a look of its own (size and shape of cells, blur, saturation, noise); four of them are for
validation, on which the clustering is tuned. The real part is written once per two made-up
volumes, so that it is a third of what is seen. With ``--amid-ground`` every second volume is
there once more with some of its cells alone amid dark ground, which is background, as are the ones
for validation; and two volumes are nothing but ground.
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


def amid_ground(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A fifth to four fifths of a tissue, with ground where its other cells were.

    What is left lies around a point, or on one side of a plane. Its outer walls are as thick as
    they were, or cut off at a distance of at least one pixel.
    """
    sizes = np.bincount(labels.ravel())
    cells = sizes.nonzero()[0]
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, cells)) * (ANISOTROPY, 1, 1)
    towards = rng.normal(size=3)
    point = rng.uniform(0, 1, 3) * labels.shape * (ANISOTROPY, 1, 1)
    near = np.linalg.norm(middles - point, axis=1) if rng.random() < 0.5 else middles @ towards
    order = cells[np.argsort(near)]
    share = np.cumsum(sizes[order]) / labels.size
    kept = order[: max(1, int(np.searchsorted(share, rng.uniform(0.2, 0.8))))]
    labels = np.where(np.isin(labels, kept), labels, 0)

    far = ndimage.distance_transform_edt(labels == 0, sampling=(ANISOTROPY, 1, 1))
    seen = 1 / (1 + np.exp((far - rng.uniform(1, 6)) / 0.7))
    level, haze = np.percentile(image, rng.uniform(0.1, 5)), rng.uniform(0, 30)
    ground = level + haze * np.exp(-far / rng.uniform(3, 20))
    ground = ground + rng.normal(0, rng.uniform(0.5, 8), image.shape)
    mixture = seen * image + (1 - seen) * ground
    return mixture.clip(0, 255).astype(np.uint8), labels


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
    parser.add_argument("--amid-ground", action="store_true")
    asked = parser.parse_args()
    image, labels = (
        tifffile.imread(next((asked.data / kind).glob("*.tif"))) for kind in ("images", "labels")
    )
    volumes = {
        f"real-{copy}": (image[:, :TRAIN_END], labels[:, :TRAIN_END])
        for copy in range(max(1, asked.volumes // 2))
    }
    for number in range(asked.volumes + VALIDATION):
        volumes[f"made-{number}"] = made_up(asked.seed * 1000 + number)
    write(asked.out / "test", "real", image[:, TEST_BEGIN:], labels[:, TEST_BEGIN:])
    for name, pair in volumes.items():
        number = int(name.split("-")[1])
        part = "train" if number < asked.volumes else "val"
        write(asked.out / part, name, *pair)
        if asked.amid_ground and (part == "val" or number % 2):
            rng = np.random.default_rng((asked.seed, *name.encode()))
            write(asked.out / part, f"{name}-amid-ground", *amid_ground(*pair, rng))
    for number in range(2 * asked.amid_ground):
        noise = np.random.default_rng((asked.seed, number)).normal(30, 4 + 8 * number, SHAPE)
        ground = noise.clip(0, 255).astype(np.uint8)
        write(asked.out / "train", f"ground-{number}", ground, np.zeros(SHAPE, labels.dtype))
    test = int(np.unique(labels[:, TEST_BEGIN:]).size)
    print(json.dumps({"volumes": asked.volumes, "seed": asked.seed, "cells_in_test": test}))


if __name__ == "__main__":
    main()
