"""Scores learned from annotated images: which nodes of the trees of regions are objects."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.config import Scoring
from spoco_zoo.segment.cluster import portable, scores
from spoco_zoo.segment.cluster.tensor_field import local_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig

__all__ = ["learn_scores"]

THRESHOLDS = (0.5, 0.75, 0.9)
"""IoU with an annotated object; a score is the share of them that a node is likely to pass."""
ENOUGH = 1000
"""Nodes that pass the first, fewer of which would fix the weights on their accidents."""
LARGE = 0.5
"""Part of the median object's size from which nothing is dropped."""
PENALTY = 0.1
"""Inverse strength of the ridge penalty, as scikit-learn has it."""
DIGITS = 6


def learn_scores(
    cases: Iterable[tuple[Tensor, NDArray[np.int32]]],
    config: ClusteringConfig,
    background: tuple[float, ...],
    *,
    delta_var: float,
    delta_dist: float,
) -> Scoring | None:
    """Fit the scores of `spoco_zoo.segment.cluster.scores`; every image weighs the same.

    A logistic regression on how many of the IoU thresholds 0.5, 0.75 and 0.9 a node passes
    with the object that it matches best: the mean of AP at these is what clusterings are tuned
    for. Seeds end where embeddings spread by `delta_var`, or less if `config` says so, and
    are joined up to ``3 delta_dist``, half as far again as neighbours are pushed apart.

    Parameters
    ----------
    cases : iterable of (Tensor, ndarray)
        Embeddings (E, [Z,] Y, X), and the annotation, int32 ([Z,] Y, X): objects above 0, -1 for
        background, 0 for what is not annotated; nodes with more than half there are left out.
    config : ClusteringConfig
        Its `foreground` and `smoothness` are used.
    background : tuple of float
        Background prototype, length E.
    delta_var, delta_dist : float
        Of the training objective.

    Returns
    -------
    Scoring or None
        None if fewer than 1,000 nodes match an object, or fewer than 100 do not.
    """
    smoothness, reach = min(config.smoothness, delta_var), 3 * delta_dist
    smallest = Scoring.model_fields["smallest"].default
    found, sizes = [], [np.zeros(0, np.int64)]
    for embeddings, truth in cases:
        sizes.append(np.unique(truth[truth > 0], return_counts=True)[1])
        field = local_field(embeddings)
        labels = np.zeros(field.shape, np.int32)
        regions = portable.split(field, labels, background, config.foreground, smoothness)
        traits = portable.traits_of(field, labels, background)
        nodes, traits = traits.as_tree(regions.means, reach)
        best, known = overlaps(labels, truth, nodes)
        judged = known & (traits.sums[:, 0] >= smallest)
        if judged.any():
            weight = np.full(judged.sum(), 1 / judged.sum())
            found.append((traits.properties()[judged], best[judged], weight))
    if not found:
        return None
    properties, overlap, weight = (np.concatenate(column) for column in zip(*found, strict=True))
    right = int((overlap > THRESHOLDS[0]).sum())
    if right < ENOUGH or len(overlap) - right < ENOUGH / 10:
        return None
    centre = np.average(properties, axis=0, weights=weight)
    passed = np.mean([overlap > threshold for threshold in THRESHOLDS], axis=0)
    scale = np.sqrt(np.average((properties - centre) ** 2, axis=0, weights=weight)) + 1e-6
    return Scoring(
        smoothness=smoothness,
        reach=reach,
        smallest=smallest,
        large=max(1, round(float(np.median(np.concatenate(sizes))) * LARGE)),
        centre=rounded(centre),
        scale=rounded(scale),
        weights=rounded(fitted(scores.terms(properties, centre, scale), passed, weight)),
    )


def fitted(
    terms: NDArray[np.float64], share: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights (terms,) of a logistic regression on shares between 0 and 1."""
    from sklearn.linear_model import LogisticRegression

    # A share of a third is one row for and two against.
    weight = weight / weight.mean()
    outcome = np.repeat([True, False], len(terms))
    weights = np.concatenate([weight * share, weight * (1 - share)])
    used = weights > 0
    model = LogisticRegression(C=PENALTY, fit_intercept=False, max_iter=5000)
    model.fit(np.concatenate([terms, terms])[used], outcome[used], sample_weight=weights[used])
    return np.asarray(model.coef_[0], np.float64)


def overlaps(
    labels: NDArray[np.int32], truth: NDArray[np.int32], nodes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Largest IoU of each node with an object of the truth, and whether half of it is known.

    Parameters
    ----------
    labels, truth : int32 ([Z,] Y, X)
        Regions 1..n - 1, and the truth as in `learn_scores`.
    nodes : int64 (m, 2)
        See `scores.joined_nearest_first`; the first n are regions.
    """
    count = int((nodes[:, 0] < 0).sum())
    sizes = np.bincount(np.maximum(truth, 0).reshape(-1))
    shared: list[Counter[int]] = [Counter() for _ in range(len(nodes))]
    inside = labels > 0
    span = int(truth.max(initial=0)) + 2
    keys = labels[inside].astype(np.int64) * span + np.maximum(truth[inside], -1) + 1
    found = (part.tolist() for part in np.unique(keys, return_counts=True))
    for key, voxels in zip(*found, strict=True):
        shared[key // span][key % span - 1] = voxels
    for node in range(count, len(nodes)):
        first, second = nodes[node].tolist()
        shared[node] = shared[first] + shared[second]
    best, known = np.zeros(len(nodes)), np.zeros(len(nodes), bool)
    for node, counts in enumerate(shared):
        total = sum(counts.values())
        known[node] = total > 0 and counts[0] <= total / 2
        matches = (n / (total + sizes[k] - n) for k, n in counts.items() if k > 0)
        best[node] = max(matches, default=0.0)
    return best, known


def rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Plain numbers of six digits: what is written down is what is used."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
