"""Validation by the real pipeline: embeddings, clustering, labels, scores; and tuning on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from spoco_zoo.config import ClusteringConfig
from spoco_zoo.metrics import Scores, mean, score
from spoco_zoo.train.data import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from spoco_zoo.nets.model import Clusterer
    from spoco_zoo.train.data import Sample

__all__ = [
    "Case",
    "Tuning",
    "choose_by_scores",
    "embed_cases",
    "roughly_tuned",
    "score_cases",
    "select_voxels",
    "tune",
]

# In units of delta_dist; after sparse annotation objects end farther from the background.
FOREGROUNDS = (1.0, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875, 2.0, 2.25, 2.5)
BORDERS = FOREGROUNDS[1:8]  # tried at every validation
# Bandwidth and smoothness in units of delta_var, tried at every validation: trained for long,
# networks want the wider ones, and one judged by the others looks worse than it is.
RADII = ((2.0, 1.0), (4.0, 1.5))
LEASTS = (0.2, 0.25, 0.3, 0.35, 0.4)  # scores below which objects are dropped
ALIKE = 0.001  # of the mean of AP: less is chance
MAX_VOXELS = 2**22  # larger validation images are judged on a part


@dataclass(frozen=True)
class Case:
    """A validation image with its embeddings.

    Attributes
    ----------
    embeddings : Tensor
        float32 (E, [Z,] Y, X), on the device of the network.
    momentum : Tensor or None
        The same under the momentum network.
    labels : ndarray
        int32 ([Z,] Y, X) as in `Sample`.
    where : tuple of slice
        The part of the sample that this is.
    """

    embeddings: Tensor
    momentum: Tensor | None
    labels: NDArray[np.int32]
    where: tuple[slice, ...]


@dataclass(frozen=True)
class Tuning:
    """Outcome of a search: every setting tried with its scores, and the best."""

    best: ClusteringConfig
    scores: Scores
    tried: tuple[tuple[ClusteringConfig, Scores], ...]


def select_voxels(sample: Sample, factor: Sequence[int]) -> tuple[slice, ...]:
    """The whole image, or a part of about `MAX_VOXELS`, aligned to the pooling grid.

    The part is the central one, unless it holds no object: then it is that around the
    object nearest to the middle. Known background alone could judge nothing but false objects.
    """
    shape = np.array(sample.labels.shape)
    if shape.prod() <= MAX_VOXELS:
        return tuple(slice(0, int(n)) for n in shape)
    shrink = (MAX_VOXELS / shape.prod()) ** (1 / len(shape))
    side = np.maximum((shape * shrink).astype(int) // factor * factor, factor)
    side = np.minimum(side, shape)  # an axis may be shorter than the pooling factor
    where = part_around(shape / 2, side, shape, factor)
    if len(sample.centres) and not (sample.labels[where] > 0).any():
        distance = ((sample.centres - shape / 2) ** 2).sum(1)
        where = part_around(sample.centres[distance.argmin()], side, shape, factor)
    return where


def part_around(
    centre: NDArray[np.float64],
    side: NDArray[np.int_],
    shape: NDArray[np.int_],
    factor: Sequence[int],
) -> tuple[slice, ...]:
    """Slices of the given sides around a point, on the pooling grid where they then hold it."""
    start = np.clip(np.floor(centre - side / 2), 0, shape - side).astype(int)
    aligned = start // factor * factor
    start = np.where(aligned + side > centre, aligned, start)
    return tuple(slice(int(a), int(a + n)) for a, n in zip(start, side, strict=True))


@torch.inference_mode()
def embed_cases(
    network: nn.Module,
    samples: Sequence[Sample],
    factor: Sequence[int],
    *,
    momentum: nn.Module | None = None,
) -> list[Case]:
    """Embed whole images in float32 with networks in evaluation mode."""
    # What runs through ONNX has no parameters, and computes on the CPU.
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    cases = []
    for sample in samples:
        where = select_voxels(sample, factor)
        image = torch.from_numpy(np.ascontiguousarray(sample.image[(slice(None), *where)]))
        batch = image[None].to(device)
        second = momentum(batch)[0] if momentum is not None else None
        cases.append(Case(network(batch)[0], second, sample.labels[where], where))
    return cases


def score_cases(
    cases: Iterable[Case],
    clusterer: Clusterer,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
) -> Scores:
    """Mean scores over images. Predictions that lie mostly on unknown voxels are left out.

    So are images of which nothing is known: with every prediction they would be perfect.
    """
    results = []
    for case in cases:
        if not (case.labels != UNKNOWN).any():
            continue
        labels = clusterer(case.embeddings, config, background, momentum=case.momentum)
        truth = np.maximum(case.labels, 0)
        results.append(score(_known(labels, case.labels), truth))
    return mean(results)


def _known(prediction: NDArray[np.int32], truth: NDArray[np.int32]) -> NDArray[np.int32]:
    """Drop the objects that the annotation cannot judge: more than half on unknown voxels."""
    unknown = truth == UNKNOWN
    if not unknown.any():
        return prediction
    sizes = np.bincount(prediction.ravel())
    outside = np.bincount(prediction[unknown], minlength=len(sizes))
    keep = outside <= 0.5 * sizes
    keep[0] = False
    return np.where(keep[prediction], prediction, 0)


def roughly_tuned(
    cases: Sequence[Case],
    clusterer: Clusterer,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
    *,
    delta_var: float,
    delta_dist: float,
    fixed: bool = False,
) -> tuple[ClusteringConfig, Scores]:
    """Scores with the settings that suit these embeddings best, of a few.

    The distance at which objects begin differs from network to network, and more so after
    sparse annotation; so does how wide a seed may spread. With fixed settings the better of two
    networks may look worse. Where they are `fixed`, no others are tried.
    """
    judge = _Judge(cases, clusterer, background)
    if fixed:
        return config, judge.scores(config)
    shapes = [config]
    if config.method == "instance":
        radii = ({"bandwidth": delta_var * b, "smoothness": delta_var * s} for b, s in RADII)
        shapes = [config.model_copy(update=update) for update in radii]
    if background is not None:
        borders = [delta_dist * f for f in BORDERS]
        shapes = [s.model_copy(update={"foreground": b}) for s in shapes for b in borders]
    best = max([config, *shapes], key=judge.merit)
    return best, judge.scores(best)


def tune(
    cases: Sequence[Case],
    clusterer: Clusterer,
    start: ClusteringConfig,
    background: tuple[float, ...] | None,
    *,
    delta_var: float,
    delta_dist: float,
    object_sizes: tuple[float, float, float],
) -> Tuning:
    """Search the clustering's parameters one after the other, twice around, from two starts.

    The objective is the mean of AP at 0.5, 0.75 and 0.9, so that neither finding
    nor outlining objects is neglected.

    Parameters
    ----------
    cases : sequence of Case
        Validation images; nothing else may be tuned on.
    clusterer : callable
        Embeddings (E, [Z,] Y, X) to labels ([Z,] Y, X).
    start : ClusteringConfig
        Method and first guess.
    background : tuple of float or None
        Embedding of the background, if there is one.
    delta_var, delta_dist : float
        Scales of the search in embedding space.
    object_sizes : tuple of float
        5 %, 50 % and 95 % quantile of objects' voxel counts, scale of the search for `min_size`.

    Returns
    -------
    Tuning
        With the scores of `start`, if it has any and they make a better choice.
    """
    judge = _Judge(cases, clusterer, background)
    grid = _grid(start.method, delta_var, delta_dist, object_sizes)
    if background is None:
        grid.pop("foreground")
    # A wide bandwidth joins what over-segmentation split, a narrow one keeps neighbours apart:
    # the way from one to the other leads through worse settings.
    plain = start.model_copy(update={"scoring": None})
    narrow = plain.model_copy(update={"bandwidth": delta_var})
    best = max((judge.climb(plain, grid), judge.climb(narrow, grid)), key=judge.merit)
    if start.scoring is None or start.method != "instance" or background is None:
        return judge.outcome(best)
    scored = judge.climb(start, {"foreground": grid["foreground"]})
    return choose_by_scores(cases, clusterer, judge.outcome(best), scored, background)


def _grid(
    method: str, delta_var: float, delta_dist: float, object_sizes: tuple[float, float, float]
) -> dict[str, list[float]]:
    """The values that `tune` tries of each parameter of a method."""
    small, middle, _ = object_sizes
    sizes = {max(1, round(n)) for f in (0.3, 0.6, 1.0) for n in (f * small, f * middle / 6)}
    grid: dict[str, list[float]] = {
        "foreground": [delta_dist * f for f in FOREGROUNDS],
        "bandwidth": [delta_var * f for f in (1, 1.5, 2, 3, 4)],
    }
    if method == "instance":
        grid["smoothness"] = [delta_var * f for f in (0.3, 0.5, 0.7, 1.0, 1.5)]
    grid["min_size"] = sorted(sizes)
    if method == "hdbscan":
        grid["min_samples"] = [1, 3, 5, 10]
    if method == "consistency":
        grid["iou"] = [0.3, 0.45, 0.6, 0.75]
    return grid


class _Judge:
    """Scores of settings on some images, each computed once."""

    def __init__(
        self,
        cases: Sequence[Case],
        clusterer: Clusterer,
        background: tuple[float, ...] | None,
        tried: Iterable[tuple[ClusteringConfig, Scores]] = (),
    ) -> None:
        self._cases, self._clusterer, self._background = cases, clusterer, background
        self._tried = dict(tried)

    def scores(self, config: ClusteringConfig) -> Scores:
        if config not in self._tried:
            self._tried[config] = score_cases(
                self._cases, self._clusterer, config, self._background
            )
        return self._tried[config]

    def merit(self, config: ClusteringConfig) -> float:
        return self.scores(config).merit

    def climb(
        self, start: ClusteringConfig, grid: Mapping[str, Sequence[float]]
    ) -> ClusteringConfig:
        """The best value of one parameter after the other, twice around at most."""
        best = start
        for _ in range(2):
            before = best
            for name, values in grid.items():
                options = [best, *(best.model_copy(update={name: value}) for value in values)]
                best = max(options, key=self.merit)
            if best == before:
                break
        return best

    def outcome(self, best: ClusteringConfig) -> Tuning:
        """What all that was tried ends with."""
        scores = self.scores(best)
        return Tuning(best, scores, tuple(self._tried.items()))


def choose_by_scores(
    cases: Sequence[Case],
    clusterer: Clusterer,
    tuned: Tuning,
    scored: ClusteringConfig,
    background: tuple[float, ...] | None,
) -> Tuning:
    """A clustering by scores instead of the tuned one, if it is better on these images."""
    assert scored.scoring is not None
    limits = [scored.scoring.model_copy(update={"least": least}) for least in LEASTS]
    options = [scored.model_copy(update={"scoring": limit}) for limit in limits]
    judge = _Judge(cases, clusterer, background, tuned.tried)
    merits = {option: judge.merit(option) for option in options}
    better = [option for option in options if merits[option] > tuned.scores.merit]
    if not better:
        return judge.outcome(tuned.best)
    highest = max(merits[option] for option in better)
    # Of limits that are as good the lowest, which drops least.
    return judge.outcome(next(o for o in better if merits[o] >= highest - ALIKE))
