"""A mosaic of held-out nuclei, segmented in blocks, against each image segmented alone.

    python -m benchmarks.nuclei_mosaic RUN IMAGES LABELS [--side 4096] [--workers 2] [--raw]

RUN is a training run on IMAGES and LABELS; only images that its ``split.json``
lists as test images are used. Prints one line of JSON: AP of the stitched
labels, cut to the images, and AP of the images segmented alone, both as means
over images; and which share of the objects of the mosaic in blocks and of the
mosaic in one block are the same (one to one, IoU at least `SAME`).

A volume has one intensity normalisation, and these images come from many
microscopes. So each image is first brought to one mean and standard deviation,
as one instrument would deliver them; ``--raw`` leaves them as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.metrics import Contingency, best_ious, mean, score
from spoco_zoo.segment import open_labels, segment

SAME = 0.9
GUTTER = 16  # mirrored pixels around each image: without them nuclei of two images would touch


@dataclass(frozen=True)
class Tile:
    """A part of the mosaic that shows one image."""

    image: np.ndarray
    labels: np.ndarray
    where: tuple[slice, slice]


def read_test_images(run: Path, images: Path, labels: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The run's test images, highest first."""
    names = json.loads((run / "split.json").read_text())["test"]
    pairs = [
        (tifffile.imread(images / f"{n}.tif"), tifffile.imread(labels / f"{n}.tif")) for n in names
    ]
    return sorted(pairs, key=lambda pair: -pair[0].shape[0])


def levelled(image: np.ndarray) -> np.ndarray:
    """The image at mean 8,000 and standard deviation 3,000, 16 bit."""
    scaled = (image - image.mean()) / max(image.std(), 1e-6)
    return np.asarray(np.clip(scaled * 3000 + 8000, 0, 65535), np.uint16)


def lay_out(pairs: list[tuple[np.ndarray, np.ndarray]], side: int, seed: int) -> list[Tile]:
    """Fill a square with rows of images of one height, each time flipped anew, with gutters."""
    rng = np.random.default_rng(seed)
    tiles: list[Tile] = []
    by_height: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for pair in pairs:
        by_height.setdefault(pair[0].shape[0], []).append(pair)
    rows = [height for height, group in by_height.items() for _ in range(max(1, len(group) // 6))]
    used = dict.fromkeys(by_height, 0)
    top, turn = 0, 0
    while top < side:
        height = rows[turn % len(rows)]
        left = 0
        while left < side:
            group = by_height[height]
            image, labels = group[used[height] % len(group)]
            used[height] += 1
            flip = tuple(slice(None, None, int(rng.choice([-1, 1]))) for _ in range(2))
            keep = (slice(0, side - top), slice(0, side - left))
            image, labels = image[flip][keep], labels[flip][keep]
            where = (slice(top, top + image.shape[0]), slice(left, left + image.shape[1]))
            tiles.append(Tile(image, labels, where))
            left += image.shape[1] + 2 * GUTTER
        top += height + 2 * GUTTER
        turn += 1
    return tiles


def assemble(tiles: list[Tile], side: int) -> np.ndarray:
    """The mosaic; each image goes on into its gutter as its own mirror image."""
    mosaic = np.zeros((side + 2 * GUTTER,) * 2, tiles[0].image.dtype)
    for tile in tiles:
        where = tuple(slice(w.start, w.stop + 2 * GUTTER) for w in tile.where)
        mosaic[where] = np.pad(tile.image, GUTTER, mode="symmetric")
    return mosaic[GUTTER : side + GUTTER, GUTTER : side + GUTTER]


def same_objects(labels: np.ndarray, other: np.ndarray) -> int:
    """How many objects are in both, one to one."""
    pairs = Contingency()
    pairs.update(labels, other)
    return int((best_ious(pairs) >= SAME).sum())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--keep", type=Path, help="keep the mosaic here")
    options = parser.parse_args()
    pairs = read_test_images(options.run, options.images, options.labels)
    if not options.raw:
        pairs = [(levelled(image), labels) for image, labels in pairs]
    tiles = lay_out(pairs, options.side, seed=0)
    mosaic = assemble(tiles, options.side)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        if options.keep:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        tifffile.imwrite(work / "mosaic.tif", mosaic)
        ngff.convert(work / "mosaic.tif", work / "mosaic.ome.zarr")
        began = time.monotonic()
        result = segment(
            work / "mosaic.ome.zarr",
            options.run,
            SegmentConfig(block=(options.block,) * 2),
            workers=options.workers,
            dashboard=False,
        )
        seconds = time.monotonic() - began
        stitched = np.asarray(open_labels(result.output).values)
        one_block = segment(
            work / "mosaic.ome.zarr",
            options.run,
            SegmentConfig(block=(options.side,) * 2),
            label_name="one-block",
        )
        same = same_objects(stitched, np.asarray(open_labels(one_block.output).values))
        levels = len(ngff.open_image(work / "mosaic.ome.zarr").levels)
        together = [score(stitched[tile.where], tile.labels) for tile in tiles]
        alone = []
        for tile in tiles:
            tifffile.imwrite(work / "tile.tif", tile.image)
            one = segment(
                work / "tile.tif", options.run, output=work / "tile-labels.tif", overwrite=True
            )
            alone.append(score(tifffile.imread(one.output), tile.labels))
    print(
        json.dumps(
            {
                "benchmark": "nuclei_mosaic",
                "side": options.side,
                "levels": levels,
                "images": len(tiles),
                "blocks": result.blocks,
                "workers": options.workers,
                "raw": options.raw,
                "objects": result.objects,
                "objects_one_block": one_block.objects,
                "same": same,
                "same_share": round(same / max(result.objects, one_block.objects), 5),
                "ap50_stitched": round(mean(together).ap50, 4),
                "ap50_alone": round(mean(alone).ap50, 4),
                "ap75_stitched": round(mean(together).ap75, 4),
                "ap75_alone": round(mean(alone).ap75, 4),
                "seconds": round(seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
