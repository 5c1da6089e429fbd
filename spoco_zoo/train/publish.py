"""What a training gives: the network that is chosen, its clustering, its scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.config import ClusteringConfig, ModelRecipe
from spoco_zoo.nets.model import load_run, save_run_model
from spoco_zoo.nets.receptive import exact_halo, pooling_factor, round_up
from spoco_zoo.replacing import replacing
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.data import object_sizes
from spoco_zoo.train.momentum import make_momentum
from spoco_zoo.train.steady import (
    CHANGED,
    FEW_OBJECTS,
    UNCHANGED,
    choose_steady,
    clustering_stays,
    halfway,
)
from spoco_zoo.train.validate import Tuning, choose_by_scores, embed_cases, score_cases, tune

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from spoco_zoo.nets.model import Learner
    from spoco_zoo.train.data import Sample, Split
    from spoco_zoo.train.loop import Trainer
    from spoco_zoo.train.validate import Case

__all__ = ["TUNED_ON", "TrainResult", "finished_result", "publish"]

PATCH = {2: 512, 3: 128}
TUNED_ON = 48  # validation images that the clustering is tuned on, at most
LEARNED_ON = 400  # training images that scores are learned from, at most


@dataclass(frozen=True)
class TrainResult:
    """What a finished run gives.

    Attributes
    ----------
    recipe : ModelRecipe
    metrics : dict
        Contents of ``metrics.json``.
    sample : Sample
        A validation image, with `case` its embeddings.
    case : Case
    """

    recipe: ModelRecipe
    metrics: dict[str, Any]
    sample: Sample
    case: Case


def finished_result(folder: RunFolder, split: Split, device: torch.device) -> TrainResult:
    """What a run gave that was finished before, from its files."""
    model = load_run(folder.path).to(device)
    recipe, sample, network = model.recipe, split.val[0], model.network
    second = model.momentum if recipe.clustering.method == "consistency" else None
    assert isinstance(network, nn.Module)
    assert second is None or isinstance(second, nn.Module)
    case = embed_cases(network, [sample], pooling_factor(recipe.net), momentum=second)[0]
    return TrainResult(recipe, folder.read_json(run_folder.METRICS), sample, case)


def publish(trainer: Trainer, learner: Learner | None = None) -> TrainResult:
    """Choose the network, tune the clustering, score, and write the finished model."""
    folder, split = trainer.folder, trainer.split
    network, momentum = choose_network(trainer)
    sizes = object_sizes([*split.train, *split.val])
    tuned = settle_clustering(trainer, network, momentum, sizes, learner)
    recipe = make_recipe(trainer, tuned.best, sizes)
    metrics = measure(trainer, network, momentum, tuned)
    sample = split.val[0]
    truth = np.maximum(sample.labels, 0)
    folder.check()
    with replacing(folder.path / run_folder.SAMPLE) as partial, partial.open("wb") as file:
        np.savez_compressed(file, image=sample.raw, labels=truth)
    folder.write_json(run_folder.METRICS, metrics)
    states = {"network": network.state_dict(), "momentum": momentum.state_dict()}
    save_run_model(folder.path, recipe, states)
    return TrainResult(recipe, metrics, sample, trainer.embed(network, momentum, [sample])[0])


def settle_clustering(
    trainer: Trainer,
    network: nn.Module,
    momentum: nn.Module,
    sizes: tuple[float, float, float],
    learner: Learner | None,
) -> Tuning:
    """The clustering that suits the chosen network, tuned as far as the annotation allows.

    Few objects among others do not show what is found wrongly, nor what small ones are lost:
    what a model to start from knew of that stays.
    """
    config, loss = trainer.config, trainer.config.loss
    cases = trainer.embed(network, momentum, tuning_images(trainer.split))
    clusterer, background = trainer.clusterer, trainer.background
    if clustering_stays(trainer.start, trainer.clustering):
        found = score_cases(cases, clusterer, trainer.clustering, background)
        return Tuning(trainer.clustering, found, ((trainer.clustering, found),))
    tuned = tune(
        cases,
        clusterer,
        trainer.clustering,
        background,
        delta_var=loss.delta_var,
        delta_dist=loss.delta_dist,
        object_sizes=sizes,
    )
    if learner is not None and config.scoring and tuned.best.method == "instance":
        return scored(trainer, network, momentum, cases, tuned, learner)
    return tuned


def scored(
    trainer: Trainer,
    network: nn.Module,
    momentum: nn.Module,
    cases: Sequence[Case],
    tuned: Tuning,
    learner: Learner,
) -> Tuning:
    """The clustering with scores learned from training images, if `cases` are better with them."""
    if trainer.background is None:
        return tuned
    images, loss = trainer.split.train, trainer.config.loss
    some = images[:: -(-len(images) // LEARNED_ON)]
    embedded = (trainer.embed(network, momentum, [sample])[0] for sample in some)
    scoring = learner(
        ((case.embeddings, case.labels) for case in embedded),
        tuned.best,
        trainer.background,
        delta_var=loss.delta_var,
        delta_dist=loss.delta_dist,
    )
    if scoring is None:
        return tuned
    by_scores = tuned.best.model_copy(update={"scoring": scoring})
    return choose_by_scores(cases, trainer.clusterer, tuned, by_scores, trainer.background)


def tuning_images(split: Split) -> list[Sample]:
    """Images to tune the clustering on: validation, and training too if objects are few.

    A dozen objects would fix the parameters on their accidents. Test images are
    never among them.
    """
    chosen = list(split.val[:TUNED_ON])
    if sum(len(sample.centres) for sample in chosen) < FEW_OBJECTS:
        chosen += split.train[: max(1, len(chosen))]
    return chosen


def choose_network(trainer: Trainer) -> tuple[nn.Module, nn.Module]:
    """The better of trained and momentum network, each at its best and its last step.

    Of those that are as good, as all are where few objects are annotated, the last
    momentum network wins; where these are to change a model no more than they must,
    what `spoco_zoo.train.steady.choose_steady` says.

    Returns the winner and the momentum network of the same step, both in
    evaluation mode. Where the momentum network is to confirm objects, it cannot
    win: it would confirm all of its own.
    """
    last = trainer.momentum.state_dict()
    candidates = [(last, last), (trainer.network.state_dict(), last)]
    if trainer.best >= 0:  # else it was lost after the last validation
        best = trainer.folder.load_best(trainer.device)
        if best.step != trainer.step:  # the same weights would be judged twice
            candidates += [(best.momentum, best.momentum), (best.network, best.momentum)]
    if trainer.needs_both:
        candidates = candidates[1::2]
    elif trainer.start:
        averages = [pair[0] for pair in (*candidates[2:3], candidates[0])]
        halves = [halfway(trainer.start, average) for average in averages]
        candidates = [(state, state) for state in (trainer.start, *halves, *averages)]
    network, momentum = make_momentum(trainer.network), make_momentum(trainer.network)
    samples, judged = tuning_images(trainer.split), []
    for pair in candidates:
        with trainer.folder.fitting(run_folder.BEST):  # the others are in use
            load_both(network, momentum, pair)
        judged.append(trainer.judge(network, momentum, samples)[:2])
    if trainer.start and not trainer.needs_both:
        found = [scores.ap50 for _, scores in judged]
        objects = sum(len(sample.centres) for sample in samples)
        objects //= 1 + trainer.split.undivided  # the same image twice
        winner = choose_steady(found, objects)
        trainer.outcome = CHANGED.format(found[0], found[winner]) if winner else UNCHANGED
        if winner > len(judged) // 2:
            trainer.start = {}  # it had to change wholly: the clustering need not stay either
    else:
        winner = int(np.argmax([scores.merit for _, scores in judged]))
    trainer.clustering = judged[winner][0]
    load_both(network, momentum, candidates[winner])
    return network, momentum


def load_both(
    network: nn.Module, momentum: nn.Module, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    """Give a network and its momentum network their weights."""
    network.load_state_dict(states[0])
    momentum.load_state_dict(states[1])


def make_recipe(
    trainer: Trainer, clustering: ClusteringConfig, sizes: tuple[float, float, float]
) -> ModelRecipe:
    """What the model needs beside its weights."""
    config, net = trainer.config, trainer.setup.net
    factor = pooling_factor(net)
    patch = np.maximum(PATCH[net.ndim] / np.array(trainer.setup.anisotropy), 1).astype(int)
    # A patch must leave a core between its halos, even where the default is too small for that.
    least = [2 * h + f for h, f in zip(exact_halo(net), factor, strict=True)]
    smallest = least if net.ndim == 2 else factor
    return ModelRecipe(
        net=net,
        delta_var=config.loss.delta_var,
        delta_dist=config.loss.delta_dist,
        kernel_threshold=config.loss.kernel_threshold,
        background=trainer.background,
        clustering=clustering,
        channel_names=tuple(f"channel{i}" for i in range(net.in_channels))
        if net.in_channels > 1
        else ("intensity",),
        voxel_size=config.voxel_size or None,
        lean=float(np.median([sample.statistics.lean for sample in trainer.split.train])),
        object_size=sizes,
        annotation="sparse" if config.sparse else "dense",
        annotated_fraction=trainer.split.kept,
        patch=round_up(np.maximum(patch, smallest).tolist(), factor),
    )


def measure(
    trainer: Trainer, network: nn.Module, momentum: nn.Module, tuned: Tuning
) -> dict[str, Any]:
    """Scores on validation images (tuned on) and test images (never used before)."""
    split = trainer.split
    metrics: dict[str, Any] = {
        "iterations": trainer.step,
        **({"stopped_early": True} if trainer.step < trainer.config.iterations else {}),
        "n_train": len(split.train),
        "n_objects": sum(len(sample.centres) for sample in split.train),
    }
    for part, samples in (("validation", split.val), ("test", split.test)):
        if samples:
            # One after the other: all embeddings at once could exceed any memory.
            cases = (trainer.embed(network, momentum, [sample])[0] for sample in samples)
            scores = score_cases(cases, trainer.clusterer, tuned.best, trainer.background)
            metrics[part] = {"n_images": len(samples), **scores.to_dict()}
    if split.undivided:
        metrics["validation"]["n_trained_on"] = 1
    return metrics
