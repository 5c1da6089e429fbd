"""Data for a model of dense tissue: the one real volume there is, and tissue made up around it.

::

    python -m benchmarks.mixed_tissue ovule-cells-3d OUT --seed 0

Writes ``OUT/{train,val,test}/{images,labels}``. The real volume (Z, Y, X) is cut along Y:
rows before 80 are for training, 80 to 96 for nothing (cells reach across the cuts), the
rest for the test. Made-up volumes have the real one's voxels and cell size, no gaps and no
background; a few of them are for validation, on which the clustering is tuned. The
real part is written once per two made-up volumes, so that it is a third of what is seen.
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
DIAMETER = 32.0
TRAIN_END, TEST_BEGIN = 80, 96


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels cut out of the middle of an endless tissue without gaps."""
    shape = tuple(3 * n for n in SHAPE)
    tissue = Tissue(shape, seed, DIAMETER, ANISOTROPY, gaps=0, coverage=1)
    image, labels = draw(tissue, tuple(slice(n, 2 * n) for n in SHAPE))
    # Some corners between cells belong to none; in the real volume there is no such voxel.
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    return image, labels[tuple(nearest)]


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
    parser.add_argument("--volumes", type=int, default=8, help="made-up volumes for training")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    image, labels = (
        tifffile.imread(next((asked.data / kind).glob("*.tif"))) for kind in ("images", "labels")
    )
    for copy in range(max(1, asked.volumes // 2)):
        write(asked.out / "train", f"real-{copy}", image[:, :TRAIN_END], labels[:, :TRAIN_END])
    write(asked.out / "test", "real", image[:, TEST_BEGIN:], labels[:, TEST_BEGIN:])
    for number in range(asked.volumes + 2):
        part = "train" if number < asked.volumes else "val"
        write(asked.out / part, f"made-{number}", *made_up(asked.seed * 1000 + number))
    test = int(np.unique(labels[:, TEST_BEGIN:]).size)
    print(json.dumps({"volumes": asked.volumes, "seed": asked.seed, "cells_in_test": test}))


if __name__ == "__main__":
    main()
