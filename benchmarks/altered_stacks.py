"""How a 3D model takes volumes that are worse than, or other than, those it was trained on.

::

    python -m benchmarks.altered_stacks MODEL IMAGE.tif LABELS.tif --voxel-size 0.284,0.127,0.127 \
        [--rows 0:80] [--only "2 black planes;inverted"] [--told]
    python -m benchmarks.altered_stacks cells-synthetic-3d --drawn 77

Changes a volume (Z, Y, X), or rows of it, in one way after the other, segments each with
`spoco_zoo.segment` as a user would, and prints one line of JSON: AP at IoU 0.5 and 0.75 and how
many objects were found per change, of how many; with ``--told`` also what the user is told after
the run. ``--drawn`` takes cells that are drawn as the demo draws them, with that seed. Noise is
drawn with seed 0. Voxel sizes are stated where a change says so, and unknown elsewhere.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile
from scipy import ndimage

from benchmarks.altered import noisy, spiked, zoomed
from spoco_zoo.config import SegmentConfig
from spoco_zoo.demo.synth import Tissue, draw
from spoco_zoo.metrics import score
from spoco_zoo.segment import segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

SIDE, DIAMETER, TOP = 80, 20.0, 20000.0


class Altered(NamedTuple):
    """A volume (Z, Y, X) that was changed, its labels, and what its file and the user say."""

    image: NDArray[Any]
    labels: NDArray[Any]
    coarser: tuple[float, float, float] | None = None
    """Voxel size that the file states, over the one of the volume; None if it states none."""
    invert: bool | None = None


def alone(change: Callable[[Array], Array], top: int = 255) -> Callable[[Array, Array], Altered]:
    """A change of the image that leaves its labels where they are; integers from 0 to `top`."""
    kind = np.uint8 if top < 256 else np.uint16
    return lambda image, labels: Altered(change(image).clip(0, top).round().astype(kind), labels)


def as_type(change: Callable[[Array], Array], kind: type) -> Callable[[Array, Array], Altered]:
    """Values that are counted otherwise."""
    return lambda image, labels: Altered(change(image).astype(kind), labels)


def dimmed(image: Array) -> Array:
    """A quarter of the light in the last plane."""
    return image * np.linspace(1, 0.25, len(image))[:, None, None]


def photons(image: Array) -> Array:
    """As counts of at most 20 photons."""
    return np.random.default_rng(0).poisson(image / 255 * 20).astype(float)


def planes(*which: float, value: int) -> Callable[[Array], Array]:
    """Some planes, by their parts of the way through the stack, are of one value."""

    def change(image: Array) -> Array:
        spoilt = image.copy()
        spoilt[[int(part * len(image)) + k for k, part in enumerate(which)]] = value
        return spoilt

    return change


def lit(sigma: tuple[float, float, float], *, sharp: bool) -> Callable[[Array], Array]:
    """A speck 80 times as bright as all else, with a halo or without."""

    def change(image: Array) -> Array:
        steps = [n // 2 for n in image.shape]
        grid = np.ogrid[tuple(slice(-s, n - s) for s, n in zip(steps, image.shape, strict=True))]
        far = sum((axis / s) ** 2 for axis, s in zip(grid, sigma, strict=True))
        return np.asarray(image + TOP * ((far < 1) if sharp else np.exp(-far / 2)))

    return change


def every(step: int, *, stated: bool) -> Callable[[Array, Array], Altered]:
    """Every second plane, or fewer."""
    size = (float(step), 1.0, 1.0) if stated else None
    return lambda image, labels: Altered(image[::step].astype(np.uint8), labels[::step], size)


def sized(factor: float, *, stated: bool) -> Callable[[Array, Array], Altered]:
    """At another size; enlarged is the middle alone, which has as many voxels."""

    def change(image: Array, labels: Array) -> Altered:
        if factor > 1:
            image, labels = (middle(a, *(n / factor for n in a.shape)) for a in (image, labels))
        larger, truth = zoomed(factor)(image, labels)
        size = (1 / factor,) * 3 if stated else None
        return Altered(larger.round().astype(np.uint8), truth, size)

    return change


def middle(values: Array, *shape: float) -> Array:
    """The middle of a volume, of a shape."""
    sides = [round(min(side, n)) for side, n in zip(shape, values.shape, strict=True)]
    where = tuple(
        slice((n - s) // 2, (n + s) // 2) for n, s in zip(values.shape, sides, strict=True)
    )
    return values[where]


def part(*shape: float) -> Callable[[Array, Array], Altered]:
    """The middle alone, of a shape."""
    return lambda image, labels: Altered(
        middle(image, *shape).astype(np.uint8), middle(labels, *shape)
    )


def lonely(image: Array, labels: Array) -> Altered:
    """A part of the volume in a hundred times its volume of noise."""
    ground, rng = np.percentile(image, 5), np.random.default_rng(0)
    wide = np.abs(rng.normal(ground, max(0.2 * ground, 1), (64, 160, 160)))
    truth = np.zeros(wide.shape, labels.dtype)
    small, its = middle(image, 30, 40, 40), middle(labels, 30, 40, 40)
    where = tuple(slice(10, 10 + n) for n in small.shape)
    wide[where], truth[where] = small, its
    return Altered(wide.clip(0, 255).astype(np.uint8), truth)


def within(times: float) -> Callable[[Array, Array], Altered]:
    """The volume in the middle of one of so many times its volume, which is ground and noise."""

    def change(image: Array, labels: Array) -> Altered:
        ground, rng = np.percentile(image, 5), np.random.default_rng(0)
        sides = [round(n * times ** (1 / 3)) for n in image.shape]
        wide = np.abs(rng.normal(ground, max(0.2 * ground, 1), sides))
        truth = np.zeros(wide.shape, labels.dtype)
        middle(wide, *image.shape)[...], middle(truth, *image.shape)[...] = image, labels
        return Altered(wide.clip(0, 255).astype(np.uint8), truth)

    return change


def nothing(image: Array, labels: Array) -> Altered:
    """Noise alone."""
    noise = np.random.default_rng(0).normal(100, 10, (32, 64, 64))
    return Altered(noise.astype(np.uint8), np.zeros(noise.shape, labels.dtype))


def turned(image: Array, labels: Array) -> Altered:
    """Rows for planes, and planes for columns."""
    return Altered(image.transpose(2, 1, 0).astype(np.uint8), labels.transpose(2, 1, 0))


CHANGES: dict[str, Callable[[Array, Array], Altered]] = {
    "none": alone(lambda image: image),
    "16 bits, offset of 1000": alone(lambda image: 100 * image + 1000, 65535),
    "float from 0 to 1": as_type(lambda image: image / 255, np.float32),
    "signed": as_type(lambda image: image - 128, np.int8),
    "noise": alone(noisy, 65535),
    "20 photons at most": alone(photons),
    "blur of 2 planes": alone(lambda image: ndimage.gaussian_filter1d(image, 2, axis=0)),
    "a quarter of the light at the end": alone(dimmed),
    "1 % hot voxels": alone(spiked(0.01, 255)),
    "5 % salt and pepper": alone(spiked(0.05, 0, 255)),
    "2 black planes": alone(planes(0.5, 0.5, value=0)),
    "3 black planes here and there": alone(planes(0.4, 0.5, 0.57, value=0)),
    "2 planes of 65535": alone(planes(0.5, 0.5, value=65535), 65535),
    "a bright speck": alone(lit((2, 4, 4), sharp=True), 65535),
    "a bright speck with a halo": alone(lit((3, 5, 5), sharp=False), 65535),
    "inverted": alone(lambda image: 255 - image),
    "inverted, --invert": lambda image, labels: Altered(
        (255 - image).astype(np.uint8), labels, None, True
    ),
    "every second plane": every(2, stated=False),
    "every second plane, size stated": every(2, stated=True),
    "half the size": sized(0.5, stated=False),
    "half the size, size stated": sized(0.5, stated=True),
    "twice the size": sized(2, stated=False),
    "twice the size, size stated": sized(2, stated=True),
    "z and x changed places": turned,
    "5 planes": part(5, np.inf, np.inf),
    "2 planes": part(2, np.inf, np.inf),
    "8 x 8 x 8 voxels": part(8, 8, 8),
    "10 voxels wide": part(np.inf, 10, 10),
    "in twice its volume of noise": within(2),
    "in four times its volume": within(4),
    "in ten times its volume": within(10),
    "lonely objects in noise": lonely,
    "noise alone": nothing,
}


def written(path: Path, altered: Altered, size: Sequence[float] | None) -> None:
    """An OME-TIFF that states a voxel size where it is known and is to be stated."""
    metadata: dict[str, Any] = {"axes": "ZYX"}
    if altered.coarser is not None and size is not None:
        for axis, step, factor in zip("ZYX", size, altered.coarser, strict=True):
            metadata |= {f"PhysicalSize{axis}": step * factor, f"PhysicalSize{axis}Unit": "µm"}
    image = np.ascontiguousarray(altered.image)
    tifffile.imwrite(path, image, ome=True, photometric="minisblack", metadata=metadata)


def volume_of(asked: argparse.Namespace) -> tuple[Array, Array]:
    """The volume and its labels, float32 and int32."""
    if asked.drawn is not None:
        whole = Tissue((2 * SIDE + 32,) * 3, asked.drawn, DIAMETER)
        image, labels = draw(whole, (slice(SIDE // 2 + 16, 3 * SIDE // 2 + 16),) * 3)
    else:
        rows = slice(*(int(n) for n in asked.rows.split(":"))) if asked.rows else slice(None)
        image, labels = (tifffile.imread(p)[:, rows] for p in (asked.image, asked.labels))
    return image.astype(np.float32), labels.astype(np.int32)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--drawn", type=int)
    parser.add_argument("--voxel-size")
    parser.add_argument("--rows")
    parser.add_argument("--only", default=";".join(CHANGES), help="separated by ;")
    parser.add_argument("--told", action="store_true")
    asked = parser.parse_args()
    image, labels = volume_of(asked)
    size = [float(n) for n in asked.voxel_size.split(",")] if asked.voxel_size else None
    found: dict[str, tuple[float, float, int, int]] = {}
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "image.ome.tif"), Path(folder, "labels.tif")
        for name in asked.only.split(";"):
            altered = CHANGES[name](image, labels)
            if size is None and altered.coarser is not None:
                continue  # a model that knows no voxel size takes no notice
            written(source, altered, size)
            config = SegmentConfig(invert=altered.invert)
            result = segment(source, asked.model, config, output=output, overwrite=True)
            got = tifffile.imread(output).astype(np.int32)
            scores = score(got, altered.labels)
            true = np.setdiff1d(altered.labels, [0]).size
            found[name] = (round(scores.ap50, 3), round(scores.ap75, 3), result.objects, true)
            told[name] = result.summary["hint"]
    figures = {"ap50_ap75_found_true": found, **({"told": told} if asked.told else {})}
    print(json.dumps({"benchmark": "altered_stacks", **figures}))


if __name__ == "__main__":
    main()
