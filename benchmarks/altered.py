"""How a 2D model takes images that are worse than, or other than, those it was trained on.

::

    python -m benchmarks.altered MODEL IMAGES LABELS SPLIT.json [--part val] [--every 2] \
        [--zoom 1] [--only "half the size,twice the size"]

Takes every second image of a part of a split, of at most `MOST` pixels, changes all of them in
one way after the other, segments each with `spoco_zoo.segment` as a user would, and prints one
line of JSON: mean AP at IoU 0.5 and 0.75 per change, and of how many images the scale was changed
by `segment` itself (none with ``--zoom 1``). Noise is drawn with seed 0.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from scipy import ndimage
from skimage.transform import resize

from spoco_zoo.config import SegmentConfig
from spoco_zoo.metrics import mean, score
from spoco_zoo.segment import segment
from spoco_zoo.segment.scale.resize import Stretch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pair = tuple[NDArray[Any], NDArray[Any]]

MOST = 300_000
FRAME = 200


def noisy(image: NDArray[Any]) -> NDArray[Any]:
    """Normal noise of 8 % of the range."""
    spread = 0.08 * (np.percentile(image, 99.8) - image.min() + 1)
    return image + np.random.default_rng(0).normal(0, spread, image.shape)


def shaded(image: NDArray[Any]) -> NDArray[Any]:
    """A third of the light at one side, and a veil that fades from the top."""
    height, width = image.shape
    return image * np.linspace(0.3, 1, width) + np.linspace(20, 0, height)[:, None]


def hot(image: NDArray[Any]) -> NDArray[Any]:
    """One pixel of absurd value."""
    spoilt = image.astype(np.uint16)
    spoilt[3, 9] = 60000
    return spoilt


def spiked(share: float, *values: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Single pixels here and there of one of some values."""

    def change(image: NDArray[Any]) -> NDArray[Any]:
        rng = np.random.default_rng(0)
        return np.where(rng.random(image.shape) < share, rng.choice(values, image.shape), image)

    return change


def zoomed(factor: float) -> Callable[[NDArray[Any], NDArray[Any]], Pair]:
    """Both at another size."""

    def change(image: NDArray[Any], labels: NDArray[Any]) -> Pair:
        shape = [round(n * factor) for n in image.shape]
        larger = resize(image, shape, order=1, preserve_range=True, anti_aliasing=factor < 1)
        # As `segment` takes labels back: always the same of two voxels would move all objects.
        rows = [
            Stretch(n, m, None, whole=m, whole_fine=n).picks(0, m)
            for n, m in zip(labels.shape, shape, strict=True)
        ]
        return larger, labels[np.ix_(*rows)].astype(np.int32)

    return change


def alone(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[..., Pair]:
    """A change of the image that leaves its labels where they are."""
    return lambda image, labels: (change(image), labels)


CHANGES: dict[str, Callable[[NDArray[Any], NDArray[Any]], Pair]] = {
    "none": lambda image, labels: (image, labels),
    "noise": alone(noisy),
    "blur of 1.5 pixels": alone(lambda image: ndimage.gaussian_filter(image, 1.5)),
    "shading": alone(shaded),
    "a third of the size": zoomed(1 / 3),
    "half the size": zoomed(0.5),
    "twice the size": zoomed(2),
    "three times the size": zoomed(3),
    "frame of zeros": lambda image, labels: (np.pad(image, FRAME), np.pad(labels, FRAME)),
    "one hot pixel": alone(hot),
    "1 % hot pixels": alone(spiked(0.01, 255)),
    "5 % salt and pepper": alone(spiked(0.05, 0, 255)),
    "inverted": alone(lambda image: 255 - image),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("--part", default="val")
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--zoom", type=float)
    parser.add_argument("--only", default=",".join(CHANGES))
    asked = parser.parse_args()
    names = sorted(json.loads(asked.split.read_text())[asked.part])[:: asked.every]
    pairs = [
        [tifffile.imread(folder / f"{n}.tif") for folder in (asked.images, asked.labels)]
        for n in names
    ]
    pairs = [pair for pair in pairs if pair[0].size <= MOST]
    found: dict[str, list[float]] = {}
    resized: dict[str, int] = {}
    config = SegmentConfig(zoom=asked.zoom)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "image.tif"), Path(folder, "labels.tif")
        for name in asked.only.split(","):
            change, scores, resized[name] = CHANGES[name], [], 0
            for image, labels in pairs:
                changed, truth = change(image.astype(np.float32), labels.astype(np.int32))
                top = 65535 if name == "one hot pixel" else 255
                tifffile.imwrite(source, changed.clip(0, top).astype(np.uint16))
                result = segment(source, asked.model, config, output=output, overwrite=True)
                resized[name] += result.summary["config"]["zoom"] not in (None, asked.zoom)
                scores.append(score(tifffile.imread(output).astype(np.int32), truth))
            both = mean(scores)
            found[name] = [round(both.ap50, 3), round(both.ap75, 3)]
    figures = {"images": len(pairs), "ap50_ap75": found, "resized": resized}
    print(json.dumps({"benchmark": "altered", **figures}))


if __name__ == "__main__":
    main()
