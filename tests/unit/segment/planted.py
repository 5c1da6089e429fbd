"""Volumes with known objects, and a model that reads them from the image without error.

The image holds the objects' ids as intensities; a 1x1 "network" turns an id into
its own point of the embedding space. What comes out wrong is the pipeline's fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from scipy import ndimage
from skimage.segmentation import watershed
from torch import Tensor

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig
from spoco_zoo.nets.model import Model
from spoco_zoo.segment import Event

CODE = 3
"""Length of an embedding."""


@dataclass(frozen=True)
class CodeNetwork:
    """Maps an image of normalised ids (N, 1, ...) to codes (N, CODE, ...)."""

    mean: float
    std: float
    base: int = 16

    def __call__(self, x: Tensor, /) -> Tensor:
        ids = torch.round(x[:, 0] * (self.std + 1e-6) + self.mean).long()
        digits = [ids // self.base**k % self.base for k in range(CODE)]
        return 4.0 * torch.stack(digits, dim=1).float()


def code_model(
    image: np.ndarray, *, ndim: int | None = None, delta_dist: float = 2.0, base: int = 16
) -> Model:
    """The model that reads `image`, whose every voxel is an object's id below base**CODE."""
    ndim = ndim or image.ndim
    recipe = ModelRecipe(
        net=NetConfig(ndim=ndim, embedding_dim=CODE, features=(2, 2), pooling=((2,) * ndim,)),
        delta_var=0.5,
        delta_dist=delta_dist,
        kernel_threshold=0.5,
        background=(0.0,) * CODE,
        clustering=ClusteringConfig(min_size=0),
        channel_names=("ids",),
        patch=(64,) * ndim,
    )
    mean, std = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    network = CodeNetwork(mean, std, base)
    return Model(recipe, network, None, f"codes-{network}-{ndim}")


def exact_cluster(
    embeddings: Tensor,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
    /,
    *,
    momentum: Tensor | None = None,
    base: int = 16,
) -> np.ndarray:
    """Connected parts of equal code; code 0 is background."""
    digits = torch.round(embeddings / 4.0).long().numpy()
    ids = sum(d * base**k for k, d in enumerate(digits))
    return split_connected(ids)


def split_connected(ids: np.ndarray) -> np.ndarray:
    """Number the face-connected parts of every id, 0 = background."""
    out = np.zeros(ids.shape, np.int32)
    total = 0
    for one, where in enumerate(ndimage.find_objects(ids), 1):
        if where is not None:
            parts, n = ndimage.label(ids[where] == one)
            out[where][parts > 0] = parts[parts > 0] + total
            total += n
    return out


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label images are equal up to names."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
    return all(len(np.unique(side)) == pairs.shape[1] for side in pairs) and bool(
        np.array_equal(a == 0, b == 0)
    )


def tissue(shape: tuple[int, ...], cells: int, seed: int) -> np.ndarray:
    """Gap-free connected cells with ids 1..cells that fill the volume."""
    rng = np.random.default_rng(seed)
    places = rng.choice(np.prod(shape), cells, replace=False)
    markers = np.zeros(shape, np.int32)
    markers.flat[places] = np.arange(1, cells + 1)
    return np.asarray(watershed(np.zeros(shape, np.uint8), markers), np.int32)


def store_bytes(path: Path) -> dict[str, str]:
    """Hash of every file of a store, by its place in it."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): sha256(p.read_bytes()).hexdigest() for p in files}


def read_labels(path: Path, time: int = 0, level: int = 0) -> np.ndarray:
    """A level of a label store, ([Z,] Y, X)."""
    image = ngff.open_image(path)
    everything = tuple(slice(0, n) for n in image.spatial_shape(level))
    return image.read(level, time, None, everything)[0]


def after(phase: str, act: Callable[[], Any], done: int | None = None) -> Callable[[Event], None]:
    """An `on_event` that does something once: when a phase is over, or so many of its items."""
    waiting = [act]

    def told(event: Event) -> None:
        if event.phase == phase and event.done == (done or event.total) and waiting:
            waiting.pop()()

    return told


def write_image(path: Path, values: np.ndarray, axes: str, version: str = "0.5") -> Path:
    """An OME-Zarr whose voxels are `values`."""
    tiff = path.with_suffix(".tif")
    tifffile.imwrite(tiff, values.astype(np.uint16), ome=True, metadata={"axes": axes})
    ngff.convert(tiff, path, version=version)
    tiff.unlink()
    return path
