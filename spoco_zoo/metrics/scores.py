"""How well a label image agrees with the truth, object by object and voxel by voxel.

Conventions
-----------
- 0 is background, positive values are objects, in prediction and truth alike.
- Two objects match at threshold t if IoU > t. From t = 0.5 on a match is one to
  one by arithmetic: no object can share more than half of a union twice.
- AP is ``TP / (TP + FP + FN)``.
- Adapted Rand error and variation of information look at voxels inside true
  objects only; what the prediction calls background there is one more segment.
- Nothing true and nothing predicted is full agreement: rates are 1, errors 0.
  If only one of both is empty, all rates are 0; with nothing true but something
  predicted the adapted Rand error is 1, and both parts of VOI are 0, because no
  voxel enters them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.metrics.contingency import Contingency, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from spoco_zoo.metrics.contingency import Overlaps, PairCounts

__all__ = [
    "Scores",
    "best_ious",
    "mean",
    "pooled",
    "score",
    "score_counts",
]


@dataclass(frozen=True)
class Scores:
    """Agreement of a prediction with the truth.

    Attributes
    ----------
    ap50, ap75, ap90 : float
        ``TP / (TP + FP + FN)`` at IoU above 0.5, 0.75 and 0.9.
    precision, recall : float
        ``TP / (TP + FP)`` and ``TP / (TP + FN)`` at IoU above 0.5.
    sbd : float
        Symmetric best Dice: the lower of the two mean best Dice scores.
    dic : float
        ``|n_predicted - n_truth|``, the absolute difference in count.
    arand : float
        Adapted Rand error, 0 is best.
    voi_split, voi_merge : float
        Variation of information in bits: H(prediction | truth) grows with every
        true object that is cut, H(truth | prediction) with every merge.
    n_predicted, n_truth : int
        Numbers of objects.
    """

    ap50: float
    ap75: float
    ap90: float
    precision: float
    recall: float
    sbd: float
    dic: float
    arand: float
    voi_split: float
    voi_merge: float
    n_predicted: int
    n_truth: int

    @property
    def merit(self) -> float:
        """What training and tuning choose by: the mean AP at 0.5, 0.75 and 0.9."""
        return (self.ap50 + self.ap75 + self.ap90) / 3

    def to_dict(self) -> dict[str, float]:
        """The scores by name, ready for JSON."""
        return asdict(self)


def score(prediction: NDArray[Any], truth: NDArray[Any], *, ignore: int | None = None) -> Scores:
    """Score one label image against its truth.

    Parameters
    ----------
    prediction, truth : integer or bool, shape ([Z,] Y, X)
        0 is background, positive values are objects. Ids need not agree.
    ignore : int, optional
        Voxels whose truth has this value are left out.

    Returns
    -------
    Scores

    Raises
    ------
    DataError
        If the shapes differ, or values are no labels.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> score(np.array([[7, 7, 0, 0, 0]]), truth).recall
    0.5
    """
    table = Contingency(ignore=ignore)
    table.update(prediction, truth)
    return score_counts(table)


def score_counts(image: Contingency) -> Scores:
    """Score an image that was counted piece by piece."""
    return _scores(image.counts())


def best_ious(image: Contingency) -> NDArray[np.float64]:
    """Best IoU of every true object, float64, shape (n_truth,), in order of id."""
    overlaps = image.counts().overlaps()
    return _best(overlaps.iou, overlaps.truth, overlaps.truth_size.size)


def pooled(images: Iterable[Contingency]) -> Scores:
    """Scores over several images as if they lay side by side in one.

    Every object counts the same, so images with many objects weigh more.

    Parameters
    ----------
    images : iterable of Contingency
        One table per image; equal ids in different images are different objects.

    Returns
    -------
    Scores
    """
    return _scores(side_by_side(images))


def mean(scores: Iterable[Scores]) -> Scores:
    """Average over images, each image counting the same.

    Parameters
    ----------
    scores : iterable of Scores
        At least one.

    Returns
    -------
    Scores
        Means of all rates, errors and of `dic`; `n_predicted` and `n_truth` are totals.

    Raises
    ------
    ValueError
        If there is none.
    """
    rows = [one.to_dict() for one in scores]
    if not rows:
        raise ValueError("a mean needs at least one image")
    values: dict[str, Any] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    for name in ("n_predicted", "n_truth"):
        values[name] = int(sum(row[name] for row in rows))
    return Scores(**values)


def _scores(table: PairCounts) -> Scores:
    """All scores of one table."""
    overlaps = table.overlaps()
    n_predicted, n_truth = overlaps.predicted_size.size, overlaps.truth_size.size
    empty = n_predicted + n_truth == 0
    hits = int(np.count_nonzero(overlaps.iou > 0.5))
    dice = overlaps.dice
    best_predicted = float(_best(dice, overlaps.predicted, n_predicted).sum())
    best_truth = float(_best(dice, overlaps.truth, n_truth).sum())
    arand, split, merge = _partition_errors(table, n_predicted)
    return Scores(
        ap50=_ap(overlaps, 0.5),
        ap75=_ap(overlaps, 0.75),
        ap90=_ap(overlaps, 0.9),
        precision=_ratio(hits, n_predicted, empty),
        recall=_ratio(hits, n_truth, empty),
        sbd=min(_ratio(best_predicted, n_predicted, empty), _ratio(best_truth, n_truth, empty)),
        dic=float(abs(n_predicted - n_truth)),
        arand=arand,
        voi_split=split,
        voi_merge=merge,
        n_predicted=n_predicted,
        n_truth=n_truth,
    )


def _ap(overlaps: Overlaps, threshold: float) -> float:
    """``TP / (TP + FP + FN)``."""
    objects = overlaps.predicted_size.size + overlaps.truth_size.size
    hits = int(np.count_nonzero(overlaps.iou > threshold))
    return _ratio(hits, objects - hits, objects == 0)


def _best(values: NDArray[np.float64], owner: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    """Largest value of each of `n` owners, 0 where there is none."""
    best = np.zeros(n)
    np.maximum.at(best, owner, values)
    return best


def _ratio(part: float, whole: float, both_empty: bool) -> float:
    """`part / whole`; 1 if there was nothing to find and nothing was found, else 0."""
    if whole == 0:
        return float(both_empty)
    return float(part / whole)


def _partition_errors(table: PairCounts, n_predicted: int) -> tuple[float, float, float]:
    """Adapted Rand error, VOI split and VOI merge over the voxels of true objects."""
    inside = table.truth > 0
    common = table.count[inside].astype(np.float64)
    if common.size == 0:
        return float(n_predicted > 0), 0.0, 0.0
    predicted = np.bincount(np.unique(table.prediction[inside], return_inverse=True)[1], common)
    truth = np.bincount(np.unique(table.truth[inside], return_inverse=True)[1], common)
    total = common.sum()
    # Ordered pairs of distinct voxels in one segment: sums of squares less the diagonal.
    together = (common**2).sum() - total
    pairs = (predicted**2).sum() + (truth**2).sum() - 2 * total
    # Without any such pair every voxel is alone in both images: full agreement.
    arand = 1 - 2 * together / pairs if pairs > 0 else 0.0
    joint = _entropy(common / total)
    split = joint - _entropy(truth / total)
    merge = joint - _entropy(predicted / total)
    return float(arand), max(split, 0.0), max(merge, 0.0)


def _entropy(p: NDArray[np.float64]) -> float:
    """Shannon entropy in bits of probabilities that are all above 0."""
    return float(-(p * np.log2(p)).sum())
