"""Going on from a model with few annotated objects: what those cannot teach stays.

They show what objects look like, but neither how much images differ nor what is wrong where
nothing is annotated. So normalisation goes on with the statistics of the model's own images (as
in fine-tuning of detectors with few images per step: He et al., "Deep Residual Learning for
Image Recognition", CVPR 2016, appendix A), the clustering stays the model's, and so do its
weights unless the mean of them and of the trained ones finds more of the annotated objects. Where
even that finds far fewer than the trained ones do, the images are others than the model's, and it
has nothing to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig, TrainConfig
    from spoco_zoo.train.data import Sample

__all__ = [
    "FEW_OBJECTS",
    "HELD",
    "STEADY",
    "UNCHANGED",
    "choose_steady",
    "clustering_stays",
    "halfway",
    "hold_statistics",
    "is_steady",
    "known_clustering",
]

FAR = 0.2
"""By so much AP@0.5 of the annotated objects the trained weights must be ahead of the mean, and by
more than that gained itself: where it found half of what they do, they had 0.130 of 0.565 left on
other images (docs/experiments.md)."""
LEAST = 0.25
"""AP@0.5 of the annotated objects, below which a model knows little of such images."""
FEW_OBJECTS = 50
"""Objects fewer of which say too little to tune by."""
STEADY = (
    "Fewer than {} objects are annotated to train on, and the model finds some of them: its "
    "normalisation and clustering stay, and so do its weights unless training finds more of the "
    "annotated objects."
)
HELD = (
    "Fewer than {} objects are annotated to train on, and the model finds some of them: its "
    "normalisation stays."
)
"""The same where another method makes labels than the model's."""
UNCHANGED = (
    "Training finds no more of the annotated objects than the model did as it was: it is given "
    "back unchanged. Annotate more objects that it misses, splits or joins, or 50 of all kinds."
)


def is_steady(samples: Sequence[Sample], config: TrainConfig, before: float | None) -> bool:
    """Whether a model to start from knows more than the annotation could teach it anew.

    Parameters
    ----------
    samples : sequence of Sample
        Few objects of which are annotated, among others.
    config : TrainConfig
    before : float or None
        AP@0.5 of the model as it is on annotated objects, if known.
    """
    few = config.sparse and sum(len(sample.centres) for sample in samples) < FEW_OBJECTS
    return few and before is not None and before >= LEAST


def clustering_stays(start: Mapping[str, Tensor], clustering: ClusteringConfig) -> bool:
    """Whether a clustering is that of a model which keeps what it knows, and is not to be tuned.

    Parameters
    ----------
    start : mapping
        Weights of that model, if there is one. It has the instance method (`known_clustering`).
    clustering : ClusteringConfig
        Of another method if the user asked for that.
    """
    return bool(start) and clustering.method == "instance"


def hold_statistics(network: nn.Module) -> None:
    """Let the normalisation of a network in training use its running statistics, and keep them.

    Those of crops around a few objects of one image are others: with no weight changed at all,
    40 steps that take them over made of AP@0.5 0.97 on such images 0.60 (docs/experiments.md).
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def halfway(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean of the weights that a training began with and ended with.

    It keeps more of what was known than the end, at little cost for what was learned (Wortsman
    et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """
    return {
        name: (end[name].lerp(old.to(end[name]), 0.5) if old.is_floating_point() else end[name])
        for name, old in start.items()
    }


def choose_steady(found: Sequence[float]) -> int:
    """Which weights to publish.

    Parameters
    ----------
    found : sequence of float
        AP@0.5 of the annotated objects with the weights before training, then with those half-way,
        then with as many trained ones.

    Returns
    -------
    int
        Its place in the sequence. Of weights that find as many the first.
    """
    near, far = found[: len(found) // 2 + 1], found[len(found) // 2 + 1 :]
    gained, lacking = max(near) - found[0], max(far) - max(near)
    if lacking > max(FAR, gained):
        return len(near) + int(np.argmax(far))
    return int(np.argmax(near))


def known_clustering(
    model: ClusteringConfig | None,
    first: ClusteringConfig,
    *,
    smallest: float,
    scoring: bool,
) -> ClusteringConfig:
    """The clustering of a model to start from, for objects as small as those annotated now.

    Parameters
    ----------
    model : ClusteringConfig or None
        That of the model, if it has one.
    first : ClusteringConfig
        What training would begin with otherwise, taken where the model has another method.
    smallest : float
        Voxels of a small annotated object.
    scoring : bool
        Whether the model's scores may choose objects.
    """
    if model is None or model.method != first.method:
        return first
    return model.model_copy(
        update={
            "fill_holes": model.fill_holes or first.fill_holes,
            "min_size": model.min_size if smallest >= model.min_size else first.min_size,
            "scoring": model.scoring if scoring else None,
        }
    )
