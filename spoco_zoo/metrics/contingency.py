"""How many voxels carry label ``p`` in the prediction and label ``t`` in the truth.

One sparse table, from which every score in `metrics` follows. It is filled
piece by piece, so labels larger than memory are counted exactly like small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Contingency", "Overlaps", "PairCounts", "side_by_side"]

# Bounds the temporary arrays of a huge image that is given in one piece.
PIECE = 1 << 24
# Below this many rows it is not worth merging what has been counted.
FEW_ROWS = 1 << 20


@dataclass(frozen=True)
class PairCounts:
    """Voxel counts of label pairs; each pair once, sorted by prediction, then truth.

    Attributes
    ----------
    prediction, truth : int64, shape (n,)
        The labels of each pair; 0 is background.
    count : int64, shape (n,)
        Voxels that carry both labels.
    """

    prediction: NDArray[np.int64]
    truth: NDArray[np.int64]
    count: NDArray[np.int64]

    def overlaps(self) -> Overlaps:
        """Sizes of all objects and of their intersections."""
        predicted_ids, predicted = np.unique(self.prediction, return_inverse=True)
        truth_ids, truth = np.unique(self.truth, return_inverse=True)
        predicted_size = np.zeros(predicted_ids.size, dtype=np.int64)
        truth_size = np.zeros(truth_ids.size, dtype=np.int64)
        np.add.at(predicted_size, predicted, self.count)
        np.add.at(truth_size, truth, self.count)
        # Ids are sorted: the background, if there is any, comes first.
        skip_predicted = int(predicted_ids.size > 0 and predicted_ids[0] == 0)
        skip_truth = int(truth_ids.size > 0 and truth_ids[0] == 0)
        both = (self.prediction > 0) & (self.truth > 0)
        return Overlaps(
            predicted_size[skip_predicted:],
            truth_size[skip_truth:],
            predicted[both] - skip_predicted,
            truth[both] - skip_truth,
            self.count[both],
        )


@dataclass(frozen=True)
class Overlaps:
    """Sizes of all objects, and of every intersection that is not empty.

    Attributes
    ----------
    predicted_size, truth_size : int64, shapes (n_predicted,) and (n_truth,)
        Voxels of each object, in order of id, background left out.
    predicted, truth : intp, shape (n,)
        Per intersection, indices into `predicted_size` and `truth_size`.
    common : int64, shape (n,)
        Voxels of each intersection.
    """

    predicted_size: NDArray[np.int64]
    truth_size: NDArray[np.int64]
    predicted: NDArray[np.intp]
    truth: NDArray[np.intp]
    common: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each intersecting pair, float64, shape (n,)."""
        return np.asarray(self.common / (self._both_sizes - self.common), dtype=np.float64)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice overlap of each intersecting pair, float64, shape (n,)."""
        return np.asarray(2 * self.common / self._both_sizes, dtype=np.float64)

    @property
    def _both_sizes(self) -> NDArray[np.int64]:
        return self.predicted_size[self.predicted] + self.truth_size[self.truth]


class Contingency:
    """Voxel counts of (predicted label, true label), filled piece by piece.

    Parameters
    ----------
    ignore : int, optional
        Voxels whose truth has this value are left out: neither object counts
        them. Objects of the prediction that lie there alone do not exist.

    Examples
    --------
    >>> import numpy as np
    >>> table = Contingency()
    >>> table.update(np.array([[1, 1], [0, 2]]), np.array([[5, 5], [0, 0]]))
    >>> table.counts().count.tolist()
    [1, 2, 1]
    """

    def __init__(self, *, ignore: int | None = None) -> None:
        self._ignore = ignore
        self._pieces: list[PairCounts] = []
        self._merged_rows = self._waiting_rows = 0

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Count one piece of the image.

        Parameters
        ----------
        prediction, truth : integer or bool, any equal shape
            The same region of both label images. Ids hold across pieces.

        Raises
        ------
        DataError
            If the shapes differ, or values are no labels.
        """
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        _check_pair(prediction, truth)
        flat_prediction, flat_truth = prediction.reshape(-1), truth.reshape(-1)
        for start in range(0, flat_truth.size, PIECE):
            piece = slice(start, start + PIECE)
            self._append(_count(flat_prediction[piece], flat_truth[piece], self._ignore))

    def counts(self) -> PairCounts:
        """Everything counted so far."""
        if len(self._pieces) != 1:
            self._pieces = [_summed(self._pieces)]
        self._merged_rows, self._waiting_rows = self._pieces[0].count.size, 0
        return self._pieces[0]

    def _append(self, piece: PairCounts) -> None:
        """Keep a piece; merge when the pieces outgrow what is merged, for amortised cost."""
        self._pieces.append(piece)
        self._waiting_rows += piece.count.size
        if self._waiting_rows > max(self._merged_rows, FEW_ROWS):
            self.counts()


def side_by_side(images: Iterable[Contingency]) -> PairCounts:
    """Counts of several images as if they lay side by side in one.

    Parameters
    ----------
    images : iterable of Contingency
        Equal ids in different images are different objects.

    Returns
    -------
    PairCounts
    """
    tables, predicted, true = [], 0, 0
    for image in images:
        table = image.counts()
        prediction, predicted = _counted_on(table.prediction, predicted)
        truth, true = _counted_on(table.truth, true)
        tables.append(PairCounts(prediction, truth, table.count))
    return _summed(tables)


def _counted_on(ids: NDArray[np.int64], last: int) -> tuple[NDArray[np.int64], int]:
    """Ids numbered from `last` + 1, whatever their size, 0 as it is; and the last number."""
    known = np.unique(ids[ids > 0])
    return np.where(ids > 0, last + 1 + np.searchsorted(known, ids), 0), last + len(known)


def _check_pair(prediction: NDArray[Any], truth: NDArray[Any]) -> None:
    """Refuse arrays that are not label images of one shape."""
    for name, array in (("prediction", prediction), ("truth", truth)):
        if array.dtype.kind not in "iub":
            raise DataError(
                "label images must hold integers",
                f"{array.dtype} in the {name}",
                "Save the labels with an integer type.",
            )
    if prediction.shape != truth.shape:
        raise DataError(
            "prediction and truth must have the same shape",
            f"{prediction.shape} and {truth.shape}",
            "Compare the same region at the same resolution.",
        )


def _count(prediction: NDArray[Any], truth: NDArray[Any], ignore: int | None) -> PairCounts:
    """Count label pairs of two flat arrays that are not empty.

    Labels come in runs along the last axis, so runs are sorted instead of
    voxels, which are 10 to 30 times as many.
    """
    change = prediction[1:] != prediction[:-1]
    change |= truth[1:] != truth[:-1]
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    lengths = np.diff(starts, append=truth.size)
    predicted, true = prediction[starts], truth[starts]
    if ignore is not None:
        kept = true != ignore
        predicted, true, lengths = predicted[kept], true[kept], lengths[kept]
    _check_range(predicted, "prediction", "Number its objects anew.")
    _check_range(true, "truth", "Number its objects anew, or leave this value out with --ignore.")
    predicted, true = predicted.astype(np.int64), true.astype(np.int64)
    return _summed([PairCounts(predicted, true, lengths)])


def _check_range(ids: NDArray[Any], side: str, remedy: str) -> None:
    for odd in (int(ids.min(initial=0)), int(ids.max(initial=0))):
        if not 0 <= odd < 2**63:
            raise DataError(
                "labels must be 0 for background and positive, below 2**63, for objects",
                f"{odd} in the {side}",
                remedy,
            )


def _summed(tables: Sequence[PairCounts]) -> PairCounts:
    """One table with each pair of labels once."""
    none = np.zeros(0, dtype=np.int64)
    prediction = np.concatenate([none, *(table.prediction for table in tables)])
    truth = np.concatenate([none, *(table.truth for table in tables)])
    count = np.concatenate([none, *(table.count for table in tables)])
    order = np.lexsort((truth, prediction))
    prediction, truth, count = prediction[order], truth[order], count[order]
    new = np.ones(count.size, dtype=bool)
    new[1:] = (prediction[1:] != prediction[:-1]) | (truth[1:] != truth[:-1])
    first = np.flatnonzero(new)
    total = np.add.reduceat(count, first) if first.size else none
    return PairCounts(prediction[first], truth[first], total)
