"""Give a finished run scores that choose objects, as `train` does at its end.

They are learned from the training images of a split file, whose labels mean what they meant in
the run's training, and taken if the validation images are better with them. The run's recipe and
its validation figures are written anew; those of test images, if it had any, are put aside. One
line of JSON::

    python -m benchmarks.scored IMAGES LABELS benchmarks/splits/dsb2018-fluo.json RUN
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from benchmarks.judge import listed
from spoco_zoo import run_folder
from spoco_zoo.config import TrainConfig
from spoco_zoo.nets.model import load_run
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.cluster.learn import learn_scores
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.validate import Tuning, choose_by_scores, embed_cases, score_cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spoco_zoo.train.validate import Case


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("run", type=Path)
    asked = parser.parse_args()
    model = load_run(asked.run)
    config = TrainConfig.build(asked.run / run_folder.CONFIG)
    recipe, network = model.recipe, model.network
    assert isinstance(network, nn.Module)
    assert recipe.background is not None

    def cases(part: str) -> Iterator[Case]:
        pairs = listed(asked.images, asked.labels, asked.split, part)
        for sample in load_samples(pairs, config):
            yield embed_cases(network, [sample], pooling_factor(recipe.net))[0]

    plain = recipe.clustering.model_copy(update={"scoring": None})
    scoring = learn_scores(
        ((case.embeddings, case.labels) for case in cases("train")),
        plain,
        recipe.background,
        delta_var=recipe.delta_var,
        delta_dist=recipe.delta_dist,
    )
    watched = list(cases("val"))
    before = score_cases(watched, cluster, plain, recipe.background)
    best = Tuning(plain, before, ((plain, before),))
    if scoring is not None:
        by_scores = plain.model_copy(update={"scoring": scoring})
        best = choose_by_scores(watched, cluster, best, by_scores, recipe.background)
    folder = RunFolder(asked.run)
    metrics = folder.read_json(run_folder.METRICS)
    if "test" in metrics:
        metrics["test_before_scoring"] = metrics.pop("test")
    figures = {"n_images": len(watched), **best.scores.to_dict()}
    folder.write_json(run_folder.METRICS, {**metrics, "validation": figures})
    changed = recipe.model_copy(update={"clustering": best.best})
    folder.write_text(run_folder.RECIPE, changed.model_dump_json(indent=2) + "\n")
    tried = [
        [getattr(config.scoring, "least", None), round(scores.merit, 4)]
        for config, scores in best.tried
    ]
    print(json.dumps({"run": asked.run.name, "least, merit": tried, **figures}))


if __name__ == "__main__":
    main()
