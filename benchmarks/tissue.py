"""Dense tissue of any size, and a model that knows it: work for the other benchmarks.

The tissue is a jittered lattice of convex cells without gaps, periodic with five
cells along every axis, so a terabyte of it costs one tile to make. A cell's
intensity says which of the 5**ndim cells of the tile it is; cells within two
lattice steps of each other differ. The model is a real U-Net of the usual size,
whose output is added in traces to the code that the intensity stands for: the
forward costs what it costs in earnest and what comes out is known.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig, SegmentConfig
from spoco_zoo.nets.model import Model
from spoco_zoo.nets.registry import build_network
from spoco_zoo.segment.normalise import measure
from spoco_zoo.values import integers

PERIOD = 5  # cells of the tile along each axis
DIAMETER = {2: 24, 3: 20}
PATCH = {2: 512, 3: 128}
EMBEDDING = 8
CODE = 4.0  # distance between embeddings whose codes differ in one digit


class Call(NamedTuple):
    """One forward."""

    shape: tuple[int, ...]
    seconds: float
    cpu: float
    """Seconds of CPU of the calling thread, which is all of it where there is but one."""


SIZES = ("block", "overlap", "patch", "halo")
"""Flags of a benchmark that are settings of `segment`, each like 128,128,128."""

CALLS: list[Call] = []
"""Forwards of this process, in order."""


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Flags for the sizes of blocks and patches; by default `segment` chooses."""
    for name in SIZES:
        parser.add_argument(f"--{name}")


def read_sizes(options: argparse.Namespace) -> SegmentConfig:
    """The settings of these flags."""
    return SegmentConfig.build(
        None, **{name: integers(getattr(options, name), name) for name in SIZES}
    )


def make_tile(ndim: int, seed: int = 0) -> np.ndarray:
    """One period of the tissue, uint8: 1 + the cell's number in the tile."""
    d = DIAMETER[ndim]
    rng = np.random.default_rng(seed)
    jitter = rng.uniform(-0.3, 0.3, (PERIOD**ndim, ndim))
    side = PERIOD * d
    at = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * ndim, indexing="ij"))
    home = (at // d).astype(int)
    nearest = np.full((side,) * ndim, np.inf)
    owner = np.zeros((side,) * ndim, np.uint8)
    for step in product((-1, 0, 1), repeat=ndim):
        cell = home + np.reshape(step, (-1, *[1] * ndim))
        number = np.ravel_multi_index(tuple(cell % PERIOD), (PERIOD,) * ndim)
        centre = (cell + 0.5 + np.moveaxis(jitter[number], -1, 0)) * d
        distance = np.square(at - centre).sum(0)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        owner[closer] = number[closer]
    return owner + 1


def write_tissue(path: Path, shape: tuple[int, ...]) -> int:
    """Write the tissue as an OME-Zarr of one level, shard by shard; return its number of cells.

    Cells that only peek into the volume at its end are counted too.
    """
    import zarr

    ndim = len(shape)
    tile = make_tile(ndim)
    chunk, shard = (512, 1024) if ndim == 2 else (64, 128)
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array(
        "0",
        shape=shape,
        dtype="uint8",
        chunks=(chunk,) * ndim,
        shards=(shard,) * ndim,
        dimension_names=list("zyx"[-ndim:]),
    )
    for where in ngff.write_blocks(array):
        index = np.ix_(*(np.arange(w.start, w.stop) % len(tile) for w in where))
        array[where] = tile[index]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"[-ndim:]]
    scale = [{"type": "scale", "scale": [1.0] * ndim}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscale: dict[str, Any] = {"name": "tissue", "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return round(np.prod([n / DIAMETER[ndim] for n in shape]))


class TissueNet(nn.Module):
    """The code of each voxel's cell, plus a trace of a U-Net's output; forwards are timed."""

    def __init__(self, net: NetConfig, mean: float, std: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.unet = build_network(net)
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        began, cpu = time.perf_counter(), time.thread_time()
        number = torch.round(x[:, 0].float() * (self.std + 1e-6) + self.mean).long() - 1
        digits = torch.stack([number // PERIOD**k % PERIOD for k in range(3)], dim=1)
        embeddings: Tensor = 0.05 * self.unet(x)
        embeddings[:, :3] += CODE * digits
        if x.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        CALLS.append(Call(tuple(x.shape), seconds, time.thread_time() - cpu))
        return embeddings


def tissue_model(
    path: Path, features: tuple[int, ...] = (16, 32, 64, 128), channels: int = EMBEDDING
) -> Model:
    """The model that knows the tissue at `path`, with so many channels of embedding, 3 at least."""
    image = ngff.open_image(path)
    ndim: Literal[2, 3] = 2 if len(image.spatial) == 2 else 3
    statistics = measure(image, 0, 0, (0,), by_parts=ndim > 2)
    net = NetConfig(
        ndim=ndim,
        embedding_dim=channels,
        features=features,
        pooling=((2,) * ndim,) * (len(features) - 1),
    )
    size = float(DIAMETER[ndim] ** ndim)
    recipe = ModelRecipe(
        net=net,
        delta_var=0.5,
        delta_dist=2.0,
        kernel_threshold=0.5,
        background=None,
        clustering=ClusteringConfig(bandwidth=1.0, smoothness=0.5, min_size=1),
        channel_names=("code",),
        object_size=(size / 2, size, 1.5 * size),
        patch=(PATCH[ndim],) * ndim,
    )
    network = TissueNet(net, statistics.mean, statistics.std).eval()
    return Model(recipe, network, None, f"tissue-{ndim}-{features}-{statistics}")
