"""A whole training run: read, split, train, choose, tune, publish."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import DataError, Interrupted
from spoco_zoo.locking import RunLock
from spoco_zoo.nets.device import choose_device
from spoco_zoo.nets.widen import widened
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.data import object_sizes
from spoco_zoo.train.loop import Trainer
from spoco_zoo.train.parallel import join, leave, share_of_batch
from spoco_zoo.train.prepare import prepare
from spoco_zoo.train.publish import TUNED_ON, TrainResult, finished_result, publish
from spoco_zoo.train.remarks import remarks
from spoco_zoo.train.setup import check_network, check_statistics, resolve
from spoco_zoo.train.steady import (
    FEW_OBJECTS,
    FREE,
    HELD,
    STEADY,
    clustering_stays,
    is_few,
    known_clustering,
)
from spoco_zoo.train.validate import score_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from spoco_zoo.config import NetConfig, TrainConfig
    from spoco_zoo.nets.model import Clusterer, Learner
    from spoco_zoo.train.journal import Progress

__all__ = ["Initial", "train"]

NO_BETTER = (
    "Training has not made the model better on the validation images: AP@0.5 {:.3f} before, {:.3f} "
    "now. Compare both on another image before you use it."
)
BEGINS = "There is no last.pt to go on from: the training begins at its first step."
FINISHED = "The run is finished: its model, scores and pictures stay as they are."


@dataclass(frozen=True)
class Initial:
    """A trained network to start from: its architecture, its state dict, its scale if known.

    Attributes
    ----------
    clustering : ClusteringConfig or None
        With `background` what makes labels of its embeddings, to tell what it finds as it is.
    """

    net: NetConfig
    state: Mapping[str, Tensor]
    voxel_size: tuple[float, ...] | None = None
    clustering: ClusteringConfig | None = None
    background: tuple[float, ...] | None = None


def train(
    images: Path,
    labels: Path,
    out: Path,
    config: TrainConfig,
    *,
    clusterer: Clusterer,
    learner: Learner | None = None,
    val_images: Path | None = None,
    val_labels: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    initial: Initial | None = None,
    listen: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> TrainResult | None:
    """Train a SPOCO model on pairs of images and object masks.

    Started by ``torchrun``, every process calls it alike.

    Parameters
    ----------
    images, labels : Path
        Folders of files paired by name, or two files.
    out : Path
        New folder for the run; an existing one with `resume`.
    config : TrainConfig
    clusterer : Clusterer
        Makes labels of embeddings: `spoco_zoo.segment.cluster.cluster`.
    val_images, val_labels : Path, optional
        Validation data; otherwise a share of the training data is set aside.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:I``.
    resume : bool
        Go on from the run's last checkpoint, or from its beginning if there is none yet. A
        finished run stays as it is, with what `tune` stored.
    learner : Learner, optional
        Learns scores that choose objects: `spoco_zoo.segment.cluster.learn.learn_scores`.
    initial : Initial, optional
        Weights to start from, unless a run is resumed.
    listen : callable
        Is told the `Progress`.
    say : callable
        Is told what the data may not be meant to be, and that a request to stop was heard.

    Returns
    -------
    TrainResult or None
        None in all processes but the first.

    Raises
    ------
    InputError
        If data or settings cannot be used.
    LedgerError
        If the folder holds a run with other settings, or another process is at work in it.
    TrainingError
        If the loss or its gradients stop being finite.
    Interrupted
        If Ctrl-C, SIGTERM or SIGHUP came; the step that was under way is finished and saved.
    """
    ranks, chosen = join(choose_device(device))
    split = prepare(images, labels, config, val_images, val_labels)
    setup = resolve(config, split.train, chosen)
    check_statistics(setup, share_of_batch(setup.batch_size, ranks))
    folder = RunFolder(out)
    goes_on = resume and folder.has_checkpoint
    finished = resume and folder.finished
    state = None
    if initial is not None:
        check_network(setup.net, initial.net)
        if not goes_on:
            state = widened(initial.state, initial.net, setup.net, config.seed)
    with ExitStack() as alone:
        if ranks.main:
            folder = RunFolder.open(out, config, resume=resume)
            folder = replace(folder, check=alone.enter_context(RunLock(out)).check)
            if not resume:
                folder.begin(config)
            folder.settle_split(split, resume=goes_on)
            for text in [FINISHED] if finished else remarks(split, config, setup):
                say(text)
            if resume and not goes_on:
                say(BEGINS)
        ranks.wait()
        if finished:
            leave(ranks)
            return finished_result(folder, split, chosen) if ranks.main else None
        # The seed of a run is not to become that of the notebook which calls it.
        alone.enter_context(torch.random.fork_rng(devices=[]))
        sizes = object_sizes([*split.train, *split.val])
        trainer = Trainer(
            config,
            setup,
            split,
            folder,
            chosen,
            with_background=not config.no_background and split.background,
            clusterer=clusterer,
            clustering=first_clustering(config, sizes),
            ranks=ranks,
            initial=state,
        )
        if goes_on:
            trainer.restore(say if ranks.main else lambda text: None)
        if resume and ranks.main:
            folder.trim_log(trainer.step)
        before = None
        if initial is not None and state is not None:
            before = _hold_on(trainer, initial, state, sizes[0], say)
        ranks.wait()
        try:
            trainer.run(listen, say)
        except Interrupted:  # in all processes alike
            trainer.part()
            raise
        trainer.part()
        if not ranks.main:
            return None
        result = publish(trainer, learner)
        for text in _outcome(trainer, before, result, bool(initial or config.init)):
            say(text)
        return result


def _hold_on(
    trainer: Trainer,
    initial: Initial,
    state: Mapping[str, Tensor],
    smallest: float,
    say: Callable[[str], None],
) -> float | None:
    """Let a model that is trained on few objects keep what they cannot teach; its AP@0.5 as it is.

    Parameters
    ----------
    state : mapping of str to Tensor
        Its weights, with the channels of the network that is trained.
    smallest : float
        Volume of small objects, in voxels.

    Returns
    -------
    float or None
        None in all processes but the first, and where the model cannot be tried.
    """
    main, config = trainer.ranks.main, trainer.config
    before = as_it_is(trainer, initial) if main else None
    if before is not None:
        say(f"The model to start from has a validation AP@0.5 of {before:.3f} as it is.")
    # Where the background means something else, neither border nor weights can stay.
    alike = before is not None and initial.background == trainer.background
    if trainer.ranks.agree(alike and is_few(trainer.split.train, config), trainer.device):
        own = known_clustering(
            initial.clustering, trainer.clustering, smallest=smallest, scoring=config.scoring
        )
        trainer.keep(state, own)
        if main:
            stays = clustering_stays(trainer.start, trainer.clustering)
            say((STEADY if stays else HELD).format(FEW_OBJECTS))
    return before


def _outcome(
    trainer: Trainer, before: float | None, result: TrainResult, fine_tuned: bool
) -> list[str]:
    """What became of a model that was there before."""
    if trainer.outcome:
        return [trainer.outcome]
    after, said = result.metrics["validation"]["ap50"], []
    if fine_tuned and is_few(trainer.split.train, trainer.config):
        said.append(FREE.format(FEW_OBJECTS))
    if before is not None and before >= after:
        said.append(NO_BETTER.format(before, after))
    return said


def as_it_is(trainer: Trainer, initial: Initial) -> float | None:
    """Validation AP@0.5 of a model to start from, with its own clustering, before any step.

    None where it has none that needs its network alone, or another network is trained.
    """
    same = trainer.setup.net == initial.net
    if not same or initial.clustering is None or initial.clustering.method != "instance":
        return None
    network = trainer.momentum
    cases = (
        trainer.embed(network, network, [sample])[0] for sample in trainer.split.val[:TUNED_ON]
    )
    with suppress(DataError):  # of a ruined network the first step names the images
        return score_cases(cases, trainer.clusterer, initial.clustering, initial.background).ap50
    return None


def first_clustering(config: TrainConfig, sizes: tuple[float, float, float]) -> ClusteringConfig:
    """Clustering parameters to validate with, before they are tuned.

    The foreground begins nearer to the objects, at 1.5 delta_dist from the
    background, than half-way: there the Dice term decides where an object ends.
    """
    return ClusteringConfig.checked(
        {
            "method": config.clustering,
            "fill_holes": config.fill_holes,
            "foreground": 1.5 * config.loss.delta_dist,
            "bandwidth": 2 * config.loss.delta_var,
            "smoothness": config.loss.delta_var,
            "min_size": max(1, round(0.3 * sizes[0])),
        }
    )
