"""The example that travels in a bundle: a crop, its embeddings, its labels."""

from __future__ import annotations

import itertools
import types
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.bundle.formats import outputs
from spoco_zoo.bundle.labels import LABEL_TOLERANCE
from spoco_zoo.bundle.layout import TileGeometry
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spoco_zoo.config import ModelRecipe

__all__ = [
    "Example",
    "Sample",
    "crops",
    "embed",
    "on_grid",
    "read_sample",
    "run_cluster_script",
    "steady",
    "zscore",
]

EPS = 1e-6
ROUNDING = 1e-5
"""Some times what embeddings of different formats differ by."""
DRAWS = 3
GRID = 2.0**-14
"""Embeddings of an example are multiples of it: compressed they are half as large, and the official
test allows a thousandth."""
LARGEST = {2: 512, 3: 32}
"""Voxels per axis beyond which a test tensor would only make the bundle large."""


@dataclass(frozen=True)
class Sample:
    """An image and its true labels.

    Attributes
    ----------
    image : float32, shape (C, [Z,] Y, X)
        Raw intensities.
    labels : integer, shape ([Z,] Y, X)
    """

    image: NDArray[np.float32]
    labels: NDArray[Any]


@dataclass(frozen=True)
class Example:
    """What the bundle promises for one input.

    Attributes
    ----------
    image : float32, shape (1, C, [Z,] Y, X)
        Raw intensities of an admitted size.
    embeddings : float32, shape (1, E, [Z,] Y, X)
        The network's answer to the normalised image, computed without padding; on a fine grid
        but for networks that return labels.
    labels : int32, shape ([Z,] Y, X)
        What the travelling script makes of the embeddings.
    """

    image: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int32]


def read_sample(run: Path, recipe: ModelRecipe) -> Sample:
    """Read ``sample.npz`` of a run: ``image`` (C, [Z,] Y, X) and ``labels`` ([Z,] Y, X).

    Raises
    ------
    BundleError
        If the file is missing or damaged, or its shapes do not fit the recipe.
    """
    path = run / run_folder.SAMPLE
    remedy = "Finish the training again, which writes the file."
    try:
        with np.load(path, allow_pickle=False) as arrays:
            image = np.asarray(arrays["image"], dtype=np.float32)
            labels = np.asarray(arrays["labels"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BundleError(
            f"a run must hold {run_folder.SAMPLE} with `image` and `labels`",
            f"{reason} ({path})",
            remedy,
        ) from error
    fits = image.ndim == recipe.net.ndim + 1 and image.shape[0] == recipe.net.in_channels
    if not fits or labels.shape != image.shape[1:] or image.size == 0:
        raise BundleError(
            f"the sample must have {recipe.net.in_channels} channels and "
            f"{recipe.net.ndim} spatial axes, with labels of the same size",
            f"image {image.shape}, labels {labels.shape} in {path}",
            remedy,
        )
    if not np.isfinite(image).all():
        raise BundleError("the sample must be finite", f"NaN or infinity in {path}", remedy)
    return Sample(image, labels)


def crops(sample: Sample, geometry: TileGeometry) -> Iterator[Sample]:
    """Crops of admitted sizes, those that show most objects first: large ones, then small ones.

    Axes shorter than the minimum are mirrored at their high end first.
    """
    ndim = sample.labels.ndim
    missing = [max(0, m - n) for m, n in zip(geometry.minimum, sample.labels.shape, strict=True)]
    padding = [(0, m) for m in missing]
    image = np.pad(sample.image, [(0, 0), *padding], mode="symmetric")
    labels = np.pad(sample.labels, padding, mode="symmetric")
    limits = tuple(min(n, LARGEST[ndim]) for n in labels.shape)
    halves = tuple(n // 2 for n in limits)
    for size in dict.fromkeys(geometry.largest_within(limit) for limit in (limits, halves)):
        starts = itertools.product(
            *(sorted({0, (n - s) // 2, n - s}) for n, s in zip(labels.shape, size, strict=True))
        )
        places = [tuple(slice(a, a + n) for a, n in zip(s, size, strict=True)) for s in starts]
        for place in sorted(places, key=lambda place: -len(np.unique(labels[place]))):
            yield Sample(np.ascontiguousarray(image[:, *place]), labels[place])


def zscore(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise (N, C, [Z,] Y, X) as the description says: per item, over all other axes."""
    axes = tuple(range(1, image.ndim))
    wide = image.astype(np.float64)
    mean, std = wide.mean(axes, keepdims=True), wide.std(axes, keepdims=True)
    return np.asarray((wide - mean) / (std + EPS), dtype=np.float32)


def embed(network: nn.Module, image: NDArray[np.float32]) -> list[NDArray[Any]]:
    """What a network makes of raw intensities (N, C, [Z,] Y, X), on the CPU: embeddings first."""
    with torch.inference_mode():
        return [np.asarray(item) for item in outputs(network(torch.from_numpy(zscore(image))))]


def on_grid(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest multiples of 2^-14.

    Examples
    --------
    >>> float(on_grid(np.float32([0.3]))[0] * 2**14)
    4915.0
    """
    return np.round(embeddings / np.float32(GRID)) * np.float32(GRID)


def run_cluster_script(
    script: bytes, embeddings: NDArray[np.float32], parameters: dict[str, Any]
) -> NDArray[np.int32]:
    """Run the script that travels as a receiver of the bundle would, outside of any package.

    Parameters
    ----------
    script : bytes
        Python source with a function ``cluster``. It is executed: pass only what is trusted.
    embeddings : float32, shape (E, [Z,] Y, X)
    parameters : dict
        Keyword arguments of ``cluster``.

    Returns
    -------
    int32, shape ([Z,] Y, X)
    """
    module = types.ModuleType("spoco_cluster")
    exec(compile(script, "spoco_cluster.py", "exec"), module.__dict__)
    return np.asarray(module.cluster(embeddings, **parameters), dtype=np.int32)


def steady(
    script: bytes,
    embeddings: NDArray[np.float32],
    parameters: dict[str, Any],
    labels: NDArray[np.int32],
) -> bool:
    """Whether the script makes the same labels of embeddings that are rounded otherwise."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        noise = rng.normal(0, ROUNDING, embeddings.shape).astype(np.float32)
        found = run_cluster_script(script, embeddings + noise, parameters)
        if (found != labels).mean() > LABEL_TOLERANCE:
            return False
    return True
