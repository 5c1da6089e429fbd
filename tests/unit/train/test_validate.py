"""What of which image is validated on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spoco_zoo.config import ClusteringConfig, Scoring, TrainConfig
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.data import BACKGROUND, UNKNOWN, Sample, make_sample
from spoco_zoo.train.run import first_clustering
from spoco_zoo.train.validate import (
    Case,
    Tuning,
    choose_by_scores,
    roughly_tuned,
    score_cases,
    select_voxels,
    tune,
)


def sample(labels: np.ndarray) -> Sample:
    """An image of these labels that is dark but for one corner."""
    image = np.zeros((1, *labels.shape), np.float32)
    image.flat[0] = 1
    return make_sample("a", image, labels)


@pytest.mark.parametrize("shape", [(6, 1024, 1024), (1, 2100, 2100), (100, 400, 300)])
def test_of_a_thin_and_wide_stack_nothing_was_validated_on(shape: tuple[int, ...]) -> None:
    labels = np.full(shape, BACKGROUND, np.int32)
    where = select_voxels(sample(labels), (8, 8, 8))
    taken = labels[where].shape
    assert all(0 <= axis.start < axis.stop <= n for axis, n in zip(where, shape, strict=True))
    assert all(n % 8 == 0 or n == whole for n, whole in zip(taken, shape, strict=True))
    assert 2**21 < np.prod(taken) < 2**23


@pytest.mark.parametrize("place", [(0, 20), (1990, 2080), (1040, 1050)])
def test_a_large_image_was_validated_on_a_part_that_nobody_annotated(
    place: tuple[int, int],
) -> None:
    labels = np.full((2100, 2100), UNKNOWN, np.int32)
    labels[place[0] : place[0] + 9, place[1] : place[1] + 9] = 1
    where = select_voxels(sample(labels), (8, 8))
    assert (labels[where] == 1).any()
    assert labels[where].shape == (2048, 2048)


@pytest.mark.parametrize("elsewhere", [UNKNOWN, BACKGROUND])
def test_a_large_image_was_validated_on_a_stroke_over_the_background(elsewhere: int) -> None:
    """AP 1.0 of no object: the only ones lay in a corner."""
    labels = np.full((2200, 2200), elsewhere, np.int32)
    labels[1100] = BACKGROUND
    labels[2:11, 2:11], labels[2:11, 42:51] = 1, 2
    where = select_voxels(sample(labels), (8, 8))
    assert set(np.unique(labels[where])) == {elsewhere, BACKGROUND, 1, 2}


def test_an_image_without_annotation_scored_full_marks_for_any_prediction() -> None:
    truth = np.zeros((1, 20, 20), np.int32)
    truth[:, :10] = 1
    embeddings = torch.zeros((2, 1, 20, 20))
    embeddings[0] = 10
    everywhere = (slice(0, 1), slice(0, 20), slice(0, 20))
    half = Case(embeddings, None, truth, everywhere)
    nothing = Case(embeddings, None, truth * 0, everywhere)
    settings = ClusteringConfig(min_size=1)
    alone = score_cases([half], cluster, settings, (0.0, 0.0))
    assert alone.ap75 == 0
    assert score_cases([nothing, half, nothing], cluster, settings, (0.0, 0.0)) == alone


@pytest.mark.parametrize("filled", [True, False])
def test_a_training_of_nuclei_fills_holes_in_its_tuning_and_model_if_asked(filled: bool) -> None:
    truth = np.zeros((40, 40), np.int32)
    truth[8:32, 8:32] = 1
    embeddings = torch.zeros((2, 40, 40))
    embeddings[:, 8:32, 8:32] = 4
    embeddings[:, 15:25, 15:25] = 0
    start = first_clustering(TrainConfig(fill_holes=filled), (20, 100, 200))
    case = Case(embeddings, None, truth, (slice(0, 40), slice(0, 40)))
    tuned = tune(
        [case],
        cluster,
        start,
        (0.0, 0.0),
        delta_var=0.5,
        delta_dist=2.0,
        object_sizes=(20, 100, 200),
    )
    assert tuned.best.fill_holes == filled
    assert tuned.scores.ap90 == filled


def test_networks_trained_for_long_looked_worse_than_their_first_checkpoints() -> None:
    truth = np.full((40, 40), BACKGROUND, np.int32)
    truth[8:32, 6:20], truth[8:32, 20:34] = 1, 2
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (2, 40, 40))).float()
    embeddings[0, truth == 1] += 4
    embeddings[1, truth == 2] += 4
    embeddings[:, truth == BACKGROUND] *= 0.1
    cases = [Case(embeddings, None, truth, (slice(0, 40), slice(0, 40)))]
    first = ClusteringConfig(bandwidth=1.0, smoothness=0.5, min_size=9)
    origin = (0.0, 0.0)
    found, scores = roughly_tuned(cases, cluster, first, origin, delta_var=0.5, delta_dist=2.0)
    assert found.smoothness == 0.75
    assert scores.ap50 == 1
    assert score_cases(cases, cluster, first, origin).ap50 < 1


def scoring_by_size(weight: float) -> Scoring:
    """Scores that fall (or rise) with the size alone."""
    return Scoring(
        smoothness=1.0,
        reach=9.0,
        centre=(6.0, *[0.0] * 7),
        scale=(1.0,) * 8,
        weights=(0.0, weight, *[0.0] * 43),
    )


def two_objects() -> list[Case]:
    truth = np.full((40, 40), BACKGROUND, np.int32)
    truth[8:32, 6:20], truth[8:32, 20:34] = 1, 2
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 40, 40))).float()
    embeddings[0, truth == 1] += 4
    embeddings[1, truth == 2] += 4
    return [Case(embeddings, None, truth, (slice(0, 40), slice(0, 40)))]


@pytest.mark.parametrize(("bandwidth", "weight", "taken"), [(9.0, -1, True), (1.0, 1, False)])
def test_scores_are_chosen_where_they_are_better(
    bandwidth: float, weight: float, taken: bool
) -> None:
    cases, origin = two_objects(), (0.0, 0.0)
    plain = ClusteringConfig(bandwidth=bandwidth, smoothness=1.0, min_size=9)
    before = score_cases(cases, cluster, plain, origin)
    tuned = Tuning(plain, before, ((plain, before),))
    by_scores = plain.model_copy(update={"scoring": scoring_by_size(weight)})
    found = choose_by_scores(cases, cluster, tuned, by_scores, origin)
    assert (found.best.scoring is not None) == taken
    assert found.scores.ap50 == 1
    assert len(found.tried) == 6


def test_tuning_keeps_scores_that_no_bandwidth_can_match() -> None:
    cases, origin = two_objects(), (0.0, 0.0)
    start = ClusteringConfig(smoothness=1.0, min_size=9)
    options = {"delta_var": 0.5, "delta_dist": 2.0, "object_sizes": (300.0, 336.0, 400.0)}
    good = start.model_copy(update={"scoring": scoring_by_size(-1)})
    bad = start.model_copy(update={"scoring": scoring_by_size(1)})
    assert tune(cases, cluster, bad, origin, **options).best.scoring is None
    found = tune(cases, cluster, good, origin, **options)
    assert found.scores.merit == max(scores.merit for _, scores in found.tried)
    assert any(config.scoring is not None for config, _ in found.tried)
    # Without a background there are no scores to be had.
    assert tune(cases, cluster, good, None, **options).best.scoring is None


def test_scores_that_are_nearly_as_good_must_still_be_better_than_none() -> None:
    truth = np.zeros((100, 100), np.int32)
    truth[::2, ::2] = np.arange(1, 2501).reshape(50, 50)
    cases = [Case(torch.zeros(1, 100, 100), None, truth, (slice(0, 100),) * 2)]

    def lacking(config: ClusteringConfig) -> int:
        if config.scoring is None:
            return 1
        return 2 if config.scoring.least < 0.25 else 0

    def clusterer(embeddings: object, config: ClusteringConfig, *rest: object, **more: object):
        return np.where(truth > lacking(config), truth, 0)

    plain = ClusteringConfig(bandwidth=1.0, min_size=1)
    before = score_cases(cases, clusterer, plain, None)
    scored = plain.model_copy(update={"scoring": scoring_by_size(1)})
    found = choose_by_scores(cases, clusterer, Tuning(plain, before, ()), scored, None)
    assert found.best.scoring is not None
    assert found.best.scoring.least == 0.25
    assert found.scores.merit > before.merit
