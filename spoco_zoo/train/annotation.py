"""Turn dense annotation into sparse, once and with a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.train.data import BACKGROUND, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.train.data import Sample

__all__ = ["keep_objects", "thin_out"]


def keep_objects(sample: Sample, keep: Sequence[int], *, strokes: bool) -> Sample:
    """A sample in which only the objects at positions `keep` (0-based) are annotated.

    Every other object becomes not annotated, and so does the background unless
    it was marked by `strokes`: what is left of a dense background would outline
    the objects that were left out.
    """
    chosen = np.zeros(max(0, int(sample.labels.max())) + 1, bool)
    chosen[np.asarray(keep, int) + 1] = True
    labels = sample.labels.copy()
    drop = (labels > 0) & ~chosen[np.maximum(labels, 0)]
    labels[drop] = UNKNOWN
    if not strokes:
        labels[labels == BACKGROUND] = UNKNOWN
    return replace(sample, labels=labels, centres=sample.centres[list(keep)])


def thin_out(
    samples: Sequence[Sample],
    *,
    ratio: float,
    max_objects: int | None,
    seed: int,
    strokes: bool = False,
) -> list[Sample]:
    """Keep a random share of all objects, at most `max_objects` over the whole data set.

    The objects are drawn over the data set, one image after the other in random
    order, so that a small budget is spread over many images: the method learns
    more from a few objects in each of many images than from many in a few.
    Images without a kept object stay in the list, with no centres. Background is
    forgotten unless `strokes` marked it, as in sparse annotation.
    """
    rng = np.random.default_rng([seed, 11])
    queues = [list(rng.permutation(len(sample.centres))) for sample in samples]
    total = sum(len(queue) for queue in queues)
    budget = min(total, max(1, round(ratio * total)))
    budget = min(budget, max_objects) if max_objects is not None else budget
    kept: list[list[int]] = [[] for _ in samples]
    if max_objects is None:
        every = [(i, int(k)) for i, queue in enumerate(queues) for k in queue]
        for pick in rng.permutation(len(every))[:budget]:
            kept[every[pick][0]].append(every[pick][1])
    else:
        while budget > 0:
            for i in rng.permutation(len(samples)):
                if queues[i] and budget > 0:
                    kept[i].append(int(queues[i].pop()))
                    budget -= 1
    return [
        keep_objects(sample, sorted(keep), strokes=strokes)
        for sample, keep in zip(samples, kept, strict=True)
    ]
