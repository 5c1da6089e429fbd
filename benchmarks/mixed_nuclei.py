"""Data for a model of nuclei in 3D: one annotated volume to train on, and made-up ones.

::

    python -m benchmarks.mixed_nuclei images/1135.tif labels/1135.tif OUT --seed 0

Writes ``OUT/{train,val}/{images,labels}``. The real volume (Z, Y, X) is cut along Z: planes
before 80 are for training, the rest for validation. Made-up volumes have the noise, contrast,
blur and nuclear size that were measured in the real one, and what a network must learn not to
take for nuclei: haze, and bright walls between cells. The real part is written once per made-up
volume, so that it is half of what is seen. One line of JSON says what was written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from benchmarks.mixed_tissue import write

SHAPE = (64, 112, 112)
DEPTH = 0.284 / 0.127  # of a voxel, in units of its width
RADIUS = 13.5  # of a typical nucleus, in voxel widths
MARGIN = 20  # voxel widths around the window in which nuclei lie, too: its faces cut some
TRAIN_END = 80
GAIN = 8.0  # grey values per photon: the variance of the real noise is 8 times its mean


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Normal field of unit variance that changes over `sigma` voxel widths, float32 (Z, Y, X)."""
    field = rng.normal(size=shape).astype(np.float32)
    field = ndimage.gaussian_filter(field, (sigma / DEPTH, sigma, sigma), mode="wrap")
    return np.asarray(field / field.std(), np.float32)


def nuclei(rng: np.random.Generator, rim: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 of bent ellipsoids that do not overlap, and their light, both (Z, Y, X)."""
    extent = np.array(SHAPE) * (DEPTH, 1, 1)
    wanted = int(rng.uniform(0.12, 0.3) * np.prod(extent + 2 * MARGIN) / (4.2 * RADIUS**3))
    at = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) * (DEPTH, 1, 1)
    bend = np.stack([smooth_noise(rng, SHAPE, 8) for _ in range(3)], -1) * 1.2
    depth = np.zeros(SHAPE, np.float32)
    labels, brightness = np.zeros(SHAPE, np.int32), [0.0]
    placed = np.zeros((0, 4))
    for _ in range(20 * wanted):
        centre = rng.uniform(-MARGIN, extent + MARGIN)
        radii = RADIUS * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.12, 3))
        room = np.linalg.norm(placed[:, :3] - centre, axis=1) - placed[:, 3] - radii.mean()
        if len(placed) == wanted or (room < rng.uniform(-2, 6)).any():
            continue
        placed = np.vstack([placed, [*centre, radii.mean()]])
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        inside = 1 - np.linalg.norm((at + bend - centre) @ turn / radii, axis=-1)
        mine = inside > np.maximum(depth, 0)
        if mine.any():
            brightness.append(rng.uniform(14, 50))
            labels[mine], depth[mine] = len(brightness) - 1, inside[mine]
    return labels, np.array(brightness)[labels] * (depth > rim)


def walls(rng: np.random.Generator) -> np.ndarray:
    """Brightness of thin sheets, here strong and there faint, float32 (Z, Y, X)."""
    sheet = np.abs(smooth_noise(rng, SHAPE, 30)) < 0.035
    strength = np.clip(smooth_noise(rng, SHAPE, 15) - rng.uniform(-0.5, 1), 0, None)
    return np.asarray(sheet * strength * rng.uniform(50, 250), np.float32)


def made_up(seed: int, rim: float) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 and labels uint16, both (Z, Y, X)."""
    rng = np.random.default_rng(seed)
    labels, light = nuclei(rng, rim)
    texture = 1 + 0.13 * smooth_noise(rng, SHAPE, 3)
    body = light.astype(np.float32) * texture
    free = ndimage.binary_erosion(labels == 0, iterations=1)
    haze = np.clip(23 + 6 * smooth_noise(rng, SHAPE, 10) + 3 * smooth_noise(rng, SHAPE, 3), 4, None)
    signal = ndimage.gaussian_filter(body + walls(rng) * free, (0.7, 1.6, 1.6)) + haze
    signal *= rng.uniform(0.7, 1.3)
    noisy = GAIN * rng.poisson(np.clip(signal, 0, None) / GAIN)
    noisy = noisy + rng.uniform(0, GAIN, SHAPE) - GAIN / 2
    return np.clip(noisy, 0, 255).astype(np.uint8), labels.astype(np.uint16)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, help="the real volume, a TIFF")
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--volumes", type=int, default=8, help="made-up volumes for training")
    help = "of a radius: so far outside of where nuclei are half as bright people draw outlines"
    parser.add_argument("--rim", type=float, default=0.1, help=help)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    image, labels = (tifffile.imread(path) for path in (asked.image, asked.labels))
    write(asked.out / "val", "real", image[TRAIN_END:], labels[TRAIN_END:])
    counts = []
    for number in range(asked.volumes + 2):
        part = "train" if number < asked.volumes else "val"
        made, truth = made_up(asked.seed * 1000 + number, asked.rim)
        write(asked.out / part, f"made-{number}", made, truth)
        counts.append(int(truth.max()))
        if part == "train":
            write(asked.out / part, f"real-{number}", image[:TRAIN_END], labels[:TRAIN_END])
    print(json.dumps({"volumes": asked.volumes, "seed": asked.seed, "nuclei_made_up": counts}))


if __name__ == "__main__":
    main()
