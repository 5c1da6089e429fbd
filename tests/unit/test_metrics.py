"""Scores against slow, obvious references and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import adapted_rand_error, variation_of_information

from spoco_zoo.errors import DataError
from spoco_zoo.metrics import (
    Contingency,
    best_ious,
    contingency,
    mean,
    pooled,
    score,
    score_counts,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)


@st.composite
def pairs(draw):
    """A prediction and a truth of one shape, with few and odd ids."""
    shape = draw(SHAPES)
    ids = st.sampled_from([0, 1, 2, 3, 70_000, 2**40])
    labels = hnp.arrays(np.int64, shape, elements=ids)
    return draw(labels), draw(labels)


def objects(labels):
    """Each object as a set of flat voxel positions."""
    flat = labels.ravel()
    return [set(np.flatnonzero(flat == i)) for i in np.unique(flat) if i > 0]


def slow_scores(prediction, truth):
    """AP at three thresholds, precision, recall and SBD, straight from their definitions."""
    predicted, true = objects(prediction), objects(truth)
    if not predicted and not true:
        return dict.fromkeys(("ap50", "ap75", "ap90", "precision", "recall", "sbd"), 1.0)

    def hits(threshold):
        return sum(len(p & t) / len(p | t) > threshold for p in predicted for t in true)

    def ap(threshold):
        return hits(threshold) / (len(predicted) + len(true) - hits(threshold))

    def best_dice(some, others):
        dice = [max((2 * len(a & b) / (len(a) + len(b)) for b in others), default=0) for a in some]
        return sum(dice) / len(dice) if dice else 0.0

    return {
        "ap50": ap(0.5),
        "ap75": ap(0.75),
        "ap90": ap(0.9),
        "precision": hits(0.5) / len(predicted) if predicted else 0.0,
        "recall": hits(0.5) / len(true) if true else 0.0,
        "sbd": min(best_dice(predicted, true), best_dice(true, predicted)),
    }


@given(pairs())
def test_object_scores_equal_their_definitions(pair):
    found = score(*pair)
    for name, expected in slow_scores(*pair).items():
        assert getattr(found, name) == pytest.approx(expected), name
    assert (found.n_predicted, found.n_truth) == tuple(len(objects(labels)) for labels in pair)
    assert found.dic == abs(found.n_predicted - found.n_truth)


@given(pairs())
def test_partition_errors_equal_scikit_image(pair):
    # The reference allocates as many rows as the largest id.
    prediction, truth = (np.unique(np.append(0, x), return_inverse=True)[1][1:] for x in pair)
    together = np.unique((prediction * 100 + truth)[truth > 0], return_counts=True)[1]
    # It divides by zero where no two voxels share a segment in both images.
    assume(together.max(initial=0) > 1)
    found = score(*pair)
    error = adapted_rand_error(truth, prediction)[0]
    split, merge = variation_of_information(truth, prediction, ignore_labels=(0,))
    assert found.arand == pytest.approx(error, abs=1e-9)
    assert (found.voi_split, found.voi_merge) == pytest.approx((split, merge), abs=1e-9)


def test_split_and_merge_are_told_apart():
    whole, halves = np.ones((4, 4), int), np.repeat([[1, 1, 2, 2]], 4, axis=0)
    cut, fused = score(halves, whole), score(whole, halves)
    assert (cut.voi_split, cut.voi_merge) == pytest.approx((1, 0))
    assert (fused.voi_split, fused.voi_merge) == pytest.approx((0, 1))


def test_half_an_object_is_no_match():
    """IoU must exceed the threshold: at exactly 0.5 two predictions could claim one object."""
    truth = np.ones((1, 4), int)
    assert score(np.array([[1, 1, 2, 2]]), truth).ap50 == 0
    assert score(np.array([[1, 1, 1, 2]]), truth).ap50 == pytest.approx(1 / 2)


def test_empty_images_have_defined_scores():
    none, one = np.zeros((3, 3), int), np.ones((3, 3), int)
    rates = ("ap50", "ap75", "ap90", "precision", "recall", "sbd")
    both, spurious, missed = score(none, none), score(one, none), score(none, one)
    assert all(getattr(both, name) == 1 for name in rates)
    assert both.arand == both.voi_split == both.voi_merge == both.dic == 0
    assert all(getattr(s, name) == 0 for s in (spurious, missed) for name in rates)
    assert spurious.arand == 1
    assert score(np.zeros((0, 3), int), np.zeros((0, 3), int)) == both


@given(pairs(), st.sampled_from([0, 1, 3]))
def test_ignored_voxels_count_for_neither_image(pair, ignored):
    prediction, truth = pair
    kept = truth != ignored
    assert score(prediction, truth, ignore=ignored) == score(prediction[kept], truth[kept])


def test_ignore_may_be_negative():
    truth = np.array([[-1, -1, 2]])
    assert score(np.array([[5, 5, 9]]), truth, ignore=-1).ap90 == 1
    with pytest.raises(DataError, match="positive"):
        score(np.array([[5, 5, 9]]), truth)
    highest = truth.astype(np.uint64)  # -1 becomes 2^64 - 1
    assert score(np.array([[5, 5, 9]]), highest, ignore=2**64 - 1).ap90 == 1


@given(pairs(), st.integers(1, 5))
def test_pieces_sum_to_the_whole(pair, size):
    prediction, truth = (labels.ravel() for labels in pair)
    table = Contingency()
    for start in range(0, truth.size, size):
        table.update(prediction[start : start + size], truth[start : start + size])
    assert score_counts(table) == score(prediction, truth)


def test_many_small_pieces_are_merged_on_the_way(monkeypatch):
    """The table must grow with the number of pairs, not with the number of pieces."""
    monkeypatch.setattr(contingency, "FEW_ROWS", 64)
    labels = np.arange(1, 17).reshape(4, 4)
    table = Contingency()
    for _ in range(100):
        table.update(labels, labels)
    assert sum(piece.count.size for piece in table._pieces) <= 64 + 2 * labels.size
    assert table.counts().count.tolist() == [100] * 16


def test_large_images_are_counted_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 5, (2, 20, 30))
    whole = score(prediction, truth)
    monkeypatch.setattr(contingency, "PIECE", 7)
    assert score(prediction, truth) == whole


@given(st.lists(pairs(), min_size=1, max_size=3))
def test_pooled_equals_one_big_image(images):
    tables, big_prediction, big_truth, offset = [], [], [], 0
    for prediction, truth in images:
        table = Contingency()
        table.update(prediction, truth)
        tables.append(table)
        for labels, big in ((prediction, big_prediction), (truth, big_truth)):
            big.append(np.where(labels > 0, labels + offset, 0).ravel())
        offset += 2**41
    assert pooled(tables) == score(np.concatenate(big_prediction), np.concatenate(big_truth))


def test_mean_weighs_images_equally():
    good = score(np.array([[1, 2, 3]]), np.array([[1, 2, 3]]))
    bad = score(np.array([[0, 0, 0]]), np.array([[1, 1, 1]]))
    both = mean([good, bad])
    assert both.ap50 == 0.5
    assert both.dic == 0.5
    assert (both.n_predicted, both.n_truth) == (3, 4)
    with pytest.raises(ValueError, match="at least one"):
        mean([])


def test_best_ious_of_the_true_objects():
    table = Contingency()
    table.update(np.array([[1, 1, 1, 0, 0, 0]]), np.array([[4, 4, 4, 4, 0, 7]]))
    assert best_ious(table).tolist() == [0.75, 0]


@given(pairs())
def test_scores_do_not_depend_on_ids(pair):
    prediction, truth = pair
    renamed = np.where(prediction > 0, 2**41 - prediction, 0)
    assert score(renamed, truth).to_dict() == pytest.approx(score(*pair).to_dict())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int32, bool])
def test_all_integer_types_are_labels(dtype):
    labels = np.array([[0, 1], [1, 1]]).astype(dtype)
    assert score(labels, labels.astype(np.int16)).ap90 == 1


def test_what_is_no_pair_of_label_images_is_refused():
    with pytest.raises(DataError, match="same shape"):
        score(np.ones((2, 2), int), np.ones((2, 3), int))
    with pytest.raises(DataError, match="float64 in the prediction"):
        score(np.ones((2, 2)), np.ones((2, 2), int))
    odd, one = np.full((2, 2), 2**63, np.uint64), np.ones((2, 2), int)
    with pytest.raises(DataError, match=r"in the prediction\. Number its objects anew\.$"):
        score(odd, one)
    with pytest.raises(DataError, match=r"-1 in the truth\. .* or leave this value out with --ign"):
        score(one, -one)


def test_pooled_with_ids_beyond_32_bits():
    """As FlyWire has them: added up they leave 64 bits, or meet those of the next image."""
    truth = np.zeros((16, 40), np.int64)
    truth[2:6, 2:6], truth[8:12, 20:30] = 7 * 10**17, 7 * 10**17 + 3
    tables = []
    for _ in range(16):
        table = Contingency()
        table.update((truth > 0) + (truth % 10 > 1).astype(np.int64), truth)
        tables.append(table)
    found = pooled(tables)
    assert (found.n_truth, found.n_predicted, found.ap50) == (32, 32, 1.0)
