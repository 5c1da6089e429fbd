"""Parts of images: halves for validation, and crops."""

from __future__ import annotations

import numpy as np

from spoco_zoo.config import TrainConfig
from spoco_zoo.train.annotation import thin_out
from spoco_zoo.train.crops import CropSampler, Geometry
from spoco_zoo.train.data import BACKGROUND, UNKNOWN, make_sample
from spoco_zoo.train.split import split_samples


def test_objects_of_a_part_of_an_image_are_thinned_out_by_their_own_numbers() -> None:
    """Cut for validation, an image keeps some of its numbers: 5, 2, 9 and so on."""
    labels = np.zeros((40, 200), np.int32)
    for n, number in enumerate(np.random.default_rng(0).permutation(20)):
        labels[10:20, 10 * n + 2 : 10 * n + 8] = number + 1
    image = np.random.default_rng(0).normal(size=(1, *labels.shape)).astype(np.float32)
    labels[30] = BACKGROUND
    split = split_samples([make_sample("one", image, labels)], TrainConfig())
    assert (split.train[0].labels[30] == BACKGROUND).all()
    assert (split.train[0].labels[0] == UNKNOWN).all()
    (kept,) = thin_out(split.train, ratio=1.0, max_objects=4, seed=0)
    assert len(np.unique(kept.labels[kept.labels > 0])) == 4
    assert [kept.labels[tuple(c.astype(int))] > 0 for c in kept.centres] == [True] * 4


def test_crops_reach_both_ends_of_an_image() -> None:
    labels = np.ones((40, 41), np.int32)
    labels[0], labels[-1], labels[:, 0], labels[:, -1] = 2, 3, 4, 5
    sample = make_sample("a", np.indices(labels.shape)[:1].astype(np.float32), labels)
    for side in (16, 15):
        crops = CropSampler([sample], (side, side), Geometry(bent=0.0), seed=0, length=400)
        seen = np.bincount(
            np.concatenate([np.unique(crops[n][1].numpy()) for n in range(400)]), minlength=6
        )
        assert seen[1] == 400
        assert seen[2:].min() > 60
