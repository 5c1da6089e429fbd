"""Give a finished run scores that choose objects, as `train` does at its end.

They are learned from the training images, whose labels mean what they meant in the run's
training, and taken if the validation images are better with them. The run's recipe and its
validation figures are written anew; those of test images, if it had any, are put aside. Both
kinds of images come from folders of their own, or are told apart by a split file. One line of
JSON::

    python -m benchmarks.scored IMAGES LABELS RUN --split benchmarks/splits/dsb2018-fluo.json
    python -m benchmarks.scored IMAGES LABELS RUN --val-images IMAGES --val-labels LABELS
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
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.validate import Tuning, choose_by_scores, embed_cases, score_cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spoco_zoo.train.files import Pair
    from spoco_zoo.train.validate import Case


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--val-images", type=Path)
    parser.add_argument("--val-labels", type=Path)
    asked = parser.parse_args()
    if (asked.split is None) == (asked.val_images is None or asked.val_labels is None):
        parser.error("give --split, or --val-images and --val-labels")
    model = load_run(asked.run)
    config = TrainConfig.build(asked.run / run_folder.CONFIG)
    recipe, network = model.recipe, model.network
    assert isinstance(network, nn.Module)
    assert recipe.background is not None

    def cases(pairs: list[Pair]) -> Iterator[Case]:
        for sample in load_samples(pairs, config):
            yield embed_cases(network, [sample], pooling_factor(recipe.net))[0]

    if asked.split is None:
        train = pair_files(asked.images, asked.labels)
        val = pair_files(asked.val_images, asked.val_labels)
    else:
        train, val = (listed(asked.images, asked.labels, asked.split, p) for p in ("train", "val"))

    plain = recipe.clustering.model_copy(update={"scoring": None})
    scoring = learn_scores(
        ((case.embeddings, case.labels) for case in cases(train)),
        plain,
        recipe.background,
        delta_var=recipe.delta_var,
        delta_dist=recipe.delta_dist,
    )
    watched = list(cases(val))
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
