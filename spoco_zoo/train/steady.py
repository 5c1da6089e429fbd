"""Going on from a model with few annotated objects: what those cannot teach stays.

They show what objects look like, but neither how much images differ nor what is wrong where
nothing is annotated. So normalisation goes on with the statistics of the model's own images (as
in fine-tuning of detectors with few images per step: He et al., "Deep Residual Learning for
Image Recognition", CVPR 2016, appendix A), the clustering stays the model's, and so do its
weights unless the mean of them and of the trained ones finds two more of the annotated objects:
one more is chance. Where even that finds far fewer of `EVIDENCE` objects than the trained ones do,
the images are others than the model's, and its weights have nothing to keep. Its statistics stay
there, too: with free ones images of a kind that it found nothing in were learned far more slowly.
That a model finds none of a few objects says nothing of others: people annotate what it misses.
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
    "CHANGED",
    "FEW_OBJECTS",
    "FREE",
    "HELD",
    "STEADY",
    "UNCHANGED",
    "choose_steady",
    "clustering_stays",
    "halfway",
    "hold_statistics",
    "is_few",
    "known_clustering",
]

FAR = 0.2
"""By so much AP@0.5 of the annotated objects the trained weights must be ahead of the mean, and by
more than that gained itself: where it found half of what they do, they had 0.130 of 0.565 left on
other images (docs/experiments.md)."""
MORE = 1.5
"""Objects, of those annotated, that the mean must gain at least: one more of three is chance."""
EVIDENCE = 20
"""Objects fewer of which never change a model wholly, nor its clustering: of eleven the trained
weights found far more than the mean did, and had 0.160 of 0.518 left on other images."""
FEW_OBJECTS = 50
"""Objects fewer of which say too little to tune by."""
STEADY = (
    "Fewer than {} objects are annotated to train on: the model's normalisation and clustering "
    "stay, and so do its weights unless training finds two more of the annotated objects."
)
HELD = "Fewer than {} objects are annotated to train on: the model's normalisation stays."
"""The same where another method makes labels than the model's."""
UNCHANGED = (
    "Training does not find two more of the annotated objects than the model did as it was: it is "
    "given back unchanged. Annotate more objects that it misses, splits or joins, or 50 of all "
    "kinds."
)
CHANGED = (
    "Of the annotated objects the model finds more than it did (AP@0.5 {:.3f} before, {:.3f} now). "
    "They are few, and it learned from them: on other images it may find less, or much less. "
    "Compare both on one that nobody annotated, with `spoco-zoo segment`, before you use it."
)
FREE = (
    "Warning: fewer than {} objects are annotated to train on, and weights changed freely: on "
    "images unlike the annotated ones the model may find much less than it did. Compare both on "
    "one that nobody annotated, with `spoco-zoo segment`, before you use it."
)


def is_few(samples: Sequence[Sample], config: TrainConfig) -> bool:
    """Whether so few objects are annotated that a model to start from knows more than they show."""
    return config.sparse and sum(len(sample.centres) for sample in samples) < FEW_OBJECTS


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


def choose_steady(found: Sequence[float], objects: int) -> int:
    """Which weights to publish.

    Parameters
    ----------
    found : sequence of float
        AP@0.5 of the annotated objects with the weights before training, then with those half-way,
        then with as many trained ones.
    objects : int
        How many these are.

    Returns
    -------
    int
        Its place in the sequence. Of weights that find as many the first.
    """
    halves, whole = found[1 : len(found) // 2 + 1], found[len(found) // 2 + 1 :]
    gained = max(max(halves) - found[0], 0.0)
    if objects >= EVIDENCE and max(whole) - found[0] - gained > max(FAR, gained):
        return 1 + len(halves) + int(np.argmax(whole))
    return 1 + int(np.argmax(halves)) if gained * objects > MORE else 0


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
