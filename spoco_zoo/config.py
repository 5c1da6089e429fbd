"""Settings of training and of segmentation, and those that a model brings with it.

`TrainConfig` and `SegmentConfig` are what a user asks for. `ModelRecipe` is what a trained model
needs beside its weights to turn an image into labels; it is written by training, carried by the
bundle as ``config.spoco`` and obeyed by `segment`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from spoco_zoo.settings import Config

__all__ = [
    "REPLACED_BY_SCORES",
    "ClusteringConfig",
    "LossConfig",
    "ModelRecipe",
    "NetConfig",
    "Scoring",
    "SegmentConfig",
    "TrainConfig",
]

ClusteringMethod = Literal["instance", "meanshift", "hdbscan", "consistency"]
Blend = Literal["crop", "linear", "gaussian"]
Precision = Literal["auto", "float32", "bfloat16"]
Positive = Annotated[int, Field(gt=0)]
Unsigned = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Extent = Annotated[float, Field(ge=1e-30, le=1e30)]
"""Of a voxel or an object; bounded so that volumes and their quotients are numbers."""
Place = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)]
FARTHEST = 1e6  # in embedding space, whose squares float32 must hold
Fraction = Annotated[float, Field(gt=0, le=1)]


class NetConfig(Config):
    """The network: everything `nets.registry.build_network` needs."""

    architecture: str = "spoco-unet"
    ndim: Literal[2, 3] = 2
    in_channels: Positive = 1
    embedding_dim: Positive = 8
    features: tuple[Positive, ...] = (16, 32, 64, 128)
    pooling: tuple[tuple[Positive, ...], ...] = ((2, 2), (2, 2), (2, 2))
    rotary: tuple[tuple[Extent, ...], ...] = ()
    """Periods per axis in voxels; each entry turns a pair of channels per axis with position."""

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        if len(self.pooling) != len(self.features) - 1:
            raise ValueError("pooling needs one entry less than features")
        if any(len(level) != self.ndim for level in self.pooling):
            raise ValueError("each pooling entry needs one factor per spatial axis")
        if any(len(periods) != self.ndim for periods in self.rotary):
            raise ValueError("each rotary entry needs one period per spatial axis")
        if self.turning > self.embedding_dim:
            raise ValueError("each rotary entry needs two channels of embedding per spatial axis")
        return self

    @property
    def turning(self) -> int:
        """How many channels, the first ones, turn with position."""
        return 2 * self.ndim * len(self.rotary)


class Scoring(Config):
    """How touching regions become objects by their scores (`segment.cluster.scores`)."""

    smoothness: float = Field(gt=0)
    """In place of that of the clustering, and smaller, so that there is more to choose from."""
    reach: float = Field(gt=0)
    """Distance of mean embeddings up to which touching regions may be one object."""
    smallest: Positive = 8
    """Objects of fewer voxels are dropped."""
    least: Fraction = 0.25
    """Objects with a lower score are dropped, if they are small."""
    large: Positive = 2**62
    """Objects of at least so many voxels are kept whatever their score."""
    centre: tuple[float, ...] = Field(min_length=8, max_length=8)
    scale: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=8, max_length=8)
    """Mean and standard deviation of the properties of objects."""
    weights: tuple[float, ...] = Field(min_length=45, max_length=45)
    """Of 1, the standardised properties, and their products."""


REPLACED_BY_SCORES = frozenset({"bandwidth", "smoothness", "min_size"})
"""Entries of a clustering that scores do without: who asks for one has to be given it."""


class ClusteringConfig(Config):
    """How embeddings become labels. Distances are in units of the embedding space."""

    method: ClusteringMethod = "instance"
    bandwidth: float = Field(default=0.5, gt=0, le=FARTHEST)
    """Radius around a mode or anchor within which a voxel belongs to it."""
    foreground: float = Field(default=3.0, ge=0, le=FARTHEST)
    """Voxels nearer to the background prototype are background; unused without a prototype."""
    smoothness: float = Field(default=0.3, gt=0, le=FARTHEST)
    """Root-mean-square spread of the embeddings around a voxel below which it can be a seed."""
    min_size: Unsigned = 20
    """Objects of fewer voxels are dropped, or given to a neighbour where there is no background."""
    fill_holes: bool = False
    """Whether background that one object alone encloses becomes part of that object."""
    scoring: Scoring | None = None
    """For `instance` and with a background; chooses objects instead of bandwidth and min_size."""
    min_samples: Positive = 5
    """For `hdbscan`, the neighbour on the grid whose distance is a voxel's core distance."""
    sample: Positive = 4096
    """For `meanshift`, how many voxels make the density in which points first climb to modes."""
    iou: float = Field(default=0.6, ge=0, le=1)
    """For `consistency`, the median overlap with the momentum network that confirms a cluster."""
    seed: Seed = 0

    def overridden(self, asked: ClusteringConfig | None) -> ClusteringConfig:
        """These settings with those of `asked` that were given to it; its defaults do not count.

        >>> tuned = ClusteringConfig(bandwidth=0.8, min_size=50)
        >>> asked = ClusteringConfig(method="meanshift", min_size=9)
        >>> tuned.overridden(asked).model_dump(include={"method", "bandwidth", "min_size"})
        {'method': 'meanshift', 'bandwidth': 0.8, 'min_size': 9}

        A value that scores take the place of makes an end of them. Where scores are given as well,
        as in the settings of a run, it does so if it is another one and they are the same.
        """
        given = asked.model_fields_set if asked is not None else set()
        update = {name: getattr(asked, name) for name in given}
        replaced = given & REPLACED_BY_SCORES
        if replaced and "scoring" not in given:
            update["scoring"] = None
        elif replaced and update["scoring"] == self.scoring:
            changed = any(update[name] != getattr(self, name) for name in replaced)
            update["scoring"] = None if changed else self.scoring
        return self.model_copy(update=update)


class ModelRecipe(Config):
    """What a trained network needs beside its weights to turn an image into labels."""

    version: Literal[1] = 1
    net: NetConfig
    delta_var: float = Field(gt=0)
    delta_dist: float = Field(gt=0)
    kernel_threshold: float = Field(gt=0, lt=1)
    background: tuple[float, ...] | None
    """Prototype embedding of the background, length E; None if the model knows no background."""
    clustering: ClusteringConfig
    normalisation: Literal["zscore"] = "zscore"
    """``(x - mean) / (std + 1e-6)`` over all channels and voxels of the whole image, or of the
    parts of a volume that hold something."""
    channel_names: tuple[str, ...]
    voxel_size: tuple[Extent, ...] | None = None
    """Training voxel size ([Z,] Y, X) in micrometres, if it was known."""
    lean: float | None = None
    """Median over the training images of ``(median - mean) / std``; below 0 for bright objects."""
    object_size: tuple[Extent, Extent, Extent] | None = None
    """5 %, 50 % and 95 % quantile of the annotated objects' voxel counts."""
    annotation: Literal["dense", "sparse"] = "dense"
    annotated_fraction: float = Field(default=1.0, gt=0, le=1)
    """Of the training images' objects; 1 with sparse annotation of which nobody knows it."""
    patch: tuple[Positive, ...]
    """Default patch ([Z,] Y, X) for tiled inference."""
    description: str = ""

    @model_validator(mode="after")
    def _dimensions_fit(self) -> Self:
        if self.background is not None and len(self.background) != self.net.embedding_dim:
            raise ValueError("background must have embedding_dim entries")
        if self.background is not None and any(self.background[: self.net.turning]):
            raise ValueError("background must be 0 in channels that turn with position")
        if len(self.channel_names) != self.net.in_channels:
            raise ValueError("channel_names must have in_channels entries")
        if len(self.patch) != self.net.ndim:
            raise ValueError("patch must have one entry per spatial axis")
        if self.voxel_size is not None and len(self.voxel_size) != self.net.ndim:
            raise ValueError("voxel_size must have one entry per spatial axis")
        return self


class LossConfig(Config):
    """Weights and margins of the SPOCO objective (paper, section 3 and equation 6)."""

    delta_var: float = Field(default=0.5, gt=0)
    delta_dist: float = Field(default=2.0, gt=0)
    kernel_threshold: float = Field(default=0.5, gt=0, lt=1)
    pull: float = Field(default=1.0, ge=0)
    push: float = Field(default=1.0, ge=0)
    regulariser: float = Field(default=0.001, ge=0)
    instance: float = Field(default=1.0, ge=0)
    unlabeled_push: float = Field(default=1.0, ge=0)
    background_push: float = Field(default=1.0, ge=0)
    background_border: float = Field(default=1.0, ge=0)
    consistency: float = Field(default=1.0, ge=0)
    push_scope: Literal["contact", "local", "global"] = "local"
    """Which objects must differ. With `local` those whose boxes are within `window`, with `global`
    all, as in the paper, with `contact` only those with voxels within `window` of each other."""
    window: Positive = 10
    """Reach of the local terms around an object's bounding box, in voxels of the finest axis."""
    instance_term: Literal["dice", "bce", "affinity"] = "dice"
    """Form of the instance term, by soft masks (Dice or cross-entropy) or affinities of pairs."""
    anchor: Literal["mean", "voxel"] = "mean"
    """Middle of an object's soft mask, its mean embedding or one of its voxels'."""
    max_anchors: Positive = 20
    """Of the consistency term, in one crop."""
    volume_threshold: float = Field(default=0.05, ge=0, lt=1)
    """Share of the unlabeled voxels that may be left uncovered by the masks of its anchors."""


class TrainConfig(Config):
    """One training run, as `spoco-zoo train` takes it."""

    ndim: Literal[2, 3] = 2
    layout: Literal["pairs", "cvppp", "cityscapes"] = "pairs"
    """How images and labels lie in their folders, see docs/annotation.md."""
    classes: tuple[str, ...] = ("car",)
    """For Cityscapes, the classes whose instances are objects."""
    label_name: str | None = None
    """Which labels of OME-Zarr images that hold several."""
    split: Place | None = None
    """JSON file with lists of names (train, val and, if there is one, test)."""
    init: Place | None = None
    """Model to start from, a bundle, run folder or the id of a shipped model."""
    annotation: Literal["dense", "sparse"] = "dense"
    """Whether voxels without a label are background, or may hold anything."""
    instance_ratio: Fraction = 1.0
    """Share of the annotated objects that is used; the rest counts as not annotated."""
    max_objects: Positive | None = None
    """Annotated objects that are used, in all."""
    background_label: int | None = None
    """Value of known background in sparse labels."""
    no_background: bool = False
    """Whether every voxel belongs to an object, as in tissue without gaps."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Of the images, drawn by `seed`; of a single image the end of its longest axis."""
    iterations: Positive = 6000
    """Steps of the optimiser."""
    batch_size: Positive | None = None
    """Crops of a step; by default 8 in 2D and 2 in 3D."""
    crop: tuple[Positive, ...] | None = None
    """Voxels of a crop per axis, multiples of the pooling factor."""
    augmentation: float = Field(default=1.0, ge=0, le=2)
    """Strength of the random changes; with 0 crops are flipped and turned by right angles only."""
    grain: float = Field(default=0.0, ge=0)
    """Strong noise for a fifth of the crops, in standard deviations of an image, at most."""
    shading: float = Field(default=0.0, ge=0)
    """Uneven light for a third of the crops, as standard deviation of the gain's logarithm."""
    learning_rate: float = Field(default=2e-3, gt=0, le=100)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: Unsigned = 100
    """Steps in which the learning rate rises."""
    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Share of its weights that the momentum network keeps in a step."""
    clip_norm: float = Field(default=5.0, gt=0)
    """Largest norm of the gradients."""
    precision: Literal[Precision, "float16"] = "auto"
    compile: bool = False
    """torch.compile of the network; on a CPU it costs time instead (docs/speed.md)."""
    validate_every: Positive | None = None
    """Steps between two looks at the validation images; by default a tenth of all."""
    patience: Positive | None = None
    """Stop after so many validations in a row without a better score."""
    tensorboard: bool = False
    """Write event files beside ``log.jsonl``."""
    seed: Seed = 0
    voxel_size: tuple[Extent, ...] | None = None
    embedding_dim: Positive = 8
    features: tuple[Positive, ...] | None = None
    pooling: tuple[tuple[Positive, ...], ...] | None = None
    rotary: tuple[tuple[Extent, ...], ...] | None = None
    """Periods in voxels, ``[[48, 48]]``, with which pairs of channels turn with position.

    None is one by the size of the objects in 2D, and none in 3D; ``[]`` is none (non-spatial)."""
    loss: LossConfig = LossConfig()
    clustering: ClusteringMethod = "instance"
    fill_holes: bool = False
    """Whether the clustering is tuned, and the model segments, with holes of objects filled."""
    scoring: bool = True
    """Whether scores are learned that choose objects, where many are annotated."""

    @property
    def thinned(self) -> bool:
        """Whether only some of the annotated objects are to be used."""
        return self.instance_ratio < 1 or self.max_objects is not None

    @property
    def sparse(self) -> bool:
        """Whether voxels without a label may hold anything."""
        return self.annotation == "sparse" or self.thinned


class SegmentConfig(Config):
    """One segmentation run; None means "from the model and the image". Shapes are ([Z,] Y, X)."""

    clustering: ClusteringConfig | None = None
    """Overrides the model's, entry by entry; what is not given here is as the model has it."""
    block: tuple[Positive, ...] | None = None
    """Core of a block, without overlap."""
    overlap: tuple[Unsigned, ...] | None = None
    """Voxels that a block sees beyond its core on every side."""
    patch: tuple[Positive, ...] | None = None
    """Input of the network, halo included."""
    halo: tuple[Unsigned, ...] | None = None
    blend: Blend = "linear"
    precision: Precision = "auto"
    """Of the network's products; ``auto`` is bfloat16 if the process that starts the run has a
    GPU to use, else float32, and all workers then do the same."""
    stitch_iou: Fraction = 0.5
    """Overlap in the shared slab from which two objects are one."""
    channel: str | int | None = None
    level: Unsigned = 0
    roi: tuple[tuple[Unsigned, Unsigned], ...] | None = None
    """Start (inclusive) and stop (exclusive) per spatial axis."""
    voxel_size: tuple[Extent, ...] | None = None
    """Of the level in micrometres, where the image does not state it or is wrong."""
    rescale: bool = True
    """Resample an image whose voxel size is far from the training's; labels keep full size."""
    invert: bool | None = None
    """Let bright and dark change places, for dark objects and a model of bright ones; None is as
    a look at an image of unusual light tells (`spoco_zoo.segment.scale.light`)."""
    zoom: Annotated[float, Field(ge=0.001, le=100)] | None = None
    """Enlarge (2) or shrink (0.5) the image for the network, whatever its voxel size; None is as
    voxel sizes tell, or its objects where these are not known
    (`spoco_zoo.segment.scale.decision`)."""
