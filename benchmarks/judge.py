"""Scores of finished runs on the images that a split file lists under ``test``.

For runs that were not given the test images themselves, such as those trained on a copy of the
labels. Each run's own recipe is used; one line of JSON per run::

    python -m benchmarks.judge IMAGES LABELS benchmarks/splits/dsb2018-fluo.json RUN [RUN ...]

With ``--store`` the scores of test images go into the run's ``metrics.json``, as those of a run
that was given them, and travel with its export.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.config import TrainConfig
from spoco_zoo.nets.model import load_run
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.validate import embed_cases, score_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.metrics import Scores
    from spoco_zoo.nets.model import Model
    from spoco_zoo.train.data import Sample
    from spoco_zoo.train.files import Pair


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--part", default="test", help="of the split")
    parser.add_argument("--store", action="store_true", help="in the run, as its test scores")
    asked = parser.parse_args()
    if asked.store and asked.part != "test":
        parser.error("--store is for test scores; training stores those of validation itself")
    models = {run: load_run(run) for run in asked.runs}
    (ndim,) = {model.recipe.net.ndim for model in models.values()}
    pairs = listed(asked.images, asked.labels, asked.split, asked.part)
    samples = load_samples(pairs, TrainConfig(ndim=ndim))
    for run, model in models.items():
        scores = judged(model, samples)
        if asked.store:
            store(run, {"n_images": len(samples), **scores.to_dict()})
        figures = {name: round(value, 4) for name, value in scores.to_dict().items()}
        print(json.dumps({"run": run.name, "part": asked.part, "images": len(samples), **figures}))


def listed(images: Path, labels: Path, split: Path, part: str) -> list[Pair]:
    """The pairs of files that a split file lists under `part`."""
    names = set(json.loads(split.read_text())[part])
    return [pair for pair in pair_files(images, labels) if pair.name in names]


def judged(model: Model, samples: Sequence[Sample]) -> Scores:
    """Mean scores of a model's own clustering; one image is embedded at a time."""
    recipe = model.recipe
    assert isinstance(model.network, nn.Module)
    network, factor = model.network, pooling_factor(recipe.net)
    cases = (embed_cases(network, [sample], factor)[0] for sample in samples)
    return score_cases(cases, cluster, recipe.clustering, recipe.background)


def store(run: Path, figures: dict[str, float]) -> None:
    """Put test scores into a run's ``metrics.json``."""
    folder = RunFolder(run)
    metrics = folder.read_json(run_folder.METRICS)
    folder.write_json(run_folder.METRICS, {**metrics, "test": figures})


if __name__ == "__main__":
    main()
