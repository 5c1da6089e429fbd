"""From what the user asked for and the data at hand to every number of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spoco_zoo.config import NetConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.nets.device import has_bfloat16
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.nets.widen import can_widen
from spoco_zoo.sizes import equivalent_diameter
from spoco_zoo.train.augment import Photometry
from spoco_zoo.train.crops import Geometry
from spoco_zoo.train.data import object_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.train.data import Sample

__all__ = [
    "CROP",
    "Setup",
    "check_network",
    "check_statistics",
    "choose_precision",
    "fitting_crop",
    "relative_voxel_size",
    "resolve",
]

FEATURES = {2: (16, 32, 64, 128), 3: (16, 32, 64, 128)}
CROP = {2: (128, 128), 3: (32, 64, 64)}
BATCH = {2: 8, 3: 2}
# Single voxels of confocal volumes are about as noisy as their objects are bright, and
# volumes to train on are few: the next one may well be noisier.
NOISE = {2: 0.15, 3: 0.5}
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Of an object's diameter. Neighbours then lie nearly half a turn apart; from 1.5 to 3 it makes
# no difference that could be told from chance (docs/experiments.md).
PERIOD = 2.25
MAX_ANISOTROPY = 1.5  # a pooling skips an axis that is coarser than the finest by more than this


@dataclass(frozen=True)
class Setup:
    """The resolved numbers of a run.

    Attributes
    ----------
    net : NetConfig
    crop : tuple of int
        Training crop ([Z,] Y, X), a multiple of the pooling factor.
    batch_size, validate_every : int
    geometry : Geometry
    photometry : Photometry
    anisotropy : tuple of float
        Voxel size relative to the finest axis.
    precision : torch.dtype
        Of the network's forward and backward pass.
    """

    net: NetConfig
    crop: tuple[int, ...]
    batch_size: int
    validate_every: int
    geometry: Geometry
    photometry: Photometry
    anisotropy: tuple[float, ...]
    precision: torch.dtype

    def to_dict(self) -> dict[str, Any]:
        """What a resumed run must have again, in plain lists and numbers."""
        net = {k: v for k, v in self.net.model_dump(mode="json").items() if k != "architecture"}
        return {**net, "crop": list(self.crop)}


def relative_voxel_size(config: TrainConfig) -> tuple[float, ...]:
    """Voxel size per axis divided by the smallest; all ones if it is not known."""
    size = config.voxel_size or (1.0,) * config.ndim
    if len(size) != config.ndim or min(size) <= 0:
        raise ConfigError(
            f"voxel size must be {config.ndim} positive numbers",
            f"{size}",
            "Give micrometres per voxel in the order of the axes, as in --voxel-size 0.3,0.1,0.1.",
        )
    return tuple(s / min(size) for s in size)


def default_pooling(anisotropy: Sequence[float], levels: int) -> tuple[tuple[int, ...], ...]:
    """Pool each axis only while its voxels are not much coarser than the finest."""
    size = np.array(anisotropy, float)
    pooling = []
    for _ in range(levels - 1):
        level = np.where(size <= size.min() * MAX_ANISOTROPY, 2, 1)
        size = size * level
        pooling.append(tuple(int(p) for p in level))
    return tuple(pooling)


def default_rotary(
    factor: Sequence[int], embedding_dim: int, area: float, anisotropy: Sequence[float]
) -> tuple[tuple[float, ...], ...]:
    """One period of rotary position embedding per axis in 2D, for objects of a size.

    In 3D there is none: six of eight channels would turn, and it brought nothing there.

    Parameters
    ----------
    factor : sequence of int
        Pooling factor per axis. Periods are multiples of it, so that programs which know
        nothing of periods may lay tiles at common multiples.
    embedding_dim : int
        Each axis needs two channels; with fewer there is no period.
    area : float
        Pixels of a usual object.
    anisotropy : sequence of float
        Pixel size per axis relative to the finest.

    Examples
    --------
    >>> default_rotary((8, 8), 8, 366, (1.0, 1.0))
    ((48.0, 48.0),)
    >>> default_rotary((4, 8), 8, 366, (2.0, 1.0))
    ((36.0, 72.0),)
    >>> default_rotary((8, 8), 3, 366, (1.0, 1.0)), default_rotary((8,) * 3, 8, 4000, (1.0,) * 3)
    ((), ())
    """
    if len(factor) == 3 or embedding_dim < 4:
        return ()
    # Of the disc with as many pixels of the finest axis.
    diameter = equivalent_diameter(area * float(np.prod(anisotropy)), 2)
    periods = (PERIOD * diameter / a / f for a, f in zip(anisotropy, factor, strict=True))
    return (tuple(float(max(round(p), 1) * f) for p, f in zip(periods, factor, strict=True)),)


def choose_crop(
    config: TrainConfig, factor: Sequence[int], samples: Sequence[Sample]
) -> tuple[int, ...]:
    """The crop asked for, or the default within the smallest image; multiples of the factor."""
    smallest = np.min([sample.labels.shape for sample in samples], axis=0)
    if config.crop is not None:
        wrong = len(config.crop) != config.ndim or any(
            c % f for c, f in zip(config.crop, factor, strict=False)
        )
        if wrong or any(c > s for c, s in zip(config.crop, smallest, strict=True)):
            raise ConfigError(
                f"a crop must have multiples of {tuple(factor)} and fit into every image",
                f"{config.crop}, smallest image {tuple(int(s) for s in smallest)}",
                "Choose a smaller --crop, or remove the smallest images.",
            )
        return config.crop
    return fitting_crop(smallest, factor)


def fitting_crop(shape: Sequence[float], factor: Sequence[int]) -> tuple[int, ...]:
    """The default crop within a shape, a multiple of the pooling factor."""
    return tuple(
        max(f, min(c, int(s)) // f * f)
        for c, s, f in zip(CROP[len(shape)], shape, factor, strict=True)
    )


def resolve(config: TrainConfig, samples: Sequence[Sample], device: torch.device) -> Setup:
    """Fill in everything that the configuration left open, for the training samples.

    Raises
    ------
    ConfigError
        If settings contradict each other or the data.
    """
    anisotropy = relative_voxel_size(config)
    features = config.features or FEATURES[config.ndim]
    net = NetConfig.checked(
        {
            "ndim": config.ndim,
            "in_channels": samples[0].image.shape[0],
            "embedding_dim": config.embedding_dim,
            "features": features,
            "pooling": config.pooling or default_pooling(anisotropy, len(features)),
            "rotary": config.rotary or (),
        }
    )
    if config.rotary is None:
        size = object_sizes(samples)[1]
        rotary = default_rotary(pooling_factor(net), net.embedding_dim, size, anisotropy)
        net = net.model_copy(update={"rotary": rotary})
    return Setup(
        net=net,
        crop=choose_crop(config, pooling_factor(net), samples),
        batch_size=config.batch_size or BATCH[config.ndim],
        validate_every=config.validate_every or max(1, config.iterations // 10),
        geometry=Geometry(anisotropy=anisotropy).scaled(config.augmentation),
        photometry=Photometry(
            noise=NOISE[config.ndim], grain=config.grain, shading=config.shading
        ).scaled(config.augmentation),
        anisotropy=anisotropy,
        precision=choose_precision(config.precision, device),
    )


def check_statistics(setup: Setup, crops: int) -> None:
    """Refuse steps in which the coarsest level holds a single voxel, which has no variance.

    Parameters
    ----------
    setup : Setup
    crops : int
        Per step of one process.

    Raises
    ------
    ConfigError
        If there is one such crop per step.
    """
    factor = pooling_factor(setup.net)
    if crops == 1 and tuple(setup.crop) == tuple(factor):
        raise ConfigError(
            "a step must have more than one voxel in the coarsest level of the network",
            f"one crop of {setup.crop}, pooled by {factor}",
            "Choose a larger --crop or --batch-size, or fewer levels (features and pooling).",
        )


def check_network(wanted: NetConfig, given: NetConfig) -> None:
    """Refuse a model to start from whose network cannot become that of the run.

    Raises
    ------
    ConfigError
        That names what differs.
    """
    if can_widen(given, wanted):
        return
    mine, theirs = wanted.model_dump(), given.model_dump()
    odd = [
        f"{name} {theirs[name]} instead of {mine[name]}"
        for name in mine
        if mine[name] != theirs[name]
    ]
    if odd:
        raise ConfigError(
            "a model to start from (--init) must have the network of this run, or fewer channels "
            "in its levels (features), or embeddings that do not turn (rotary)",
            "; ".join(odd),
            "Choose another model, or settings and images that fit it.",
        )


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the processor computes it in hardware, float32 elsewhere."""
    if name != "auto":
        return PRECISIONS[name]
    return torch.bfloat16 if has_bfloat16(device) else torch.float32
