"""The training loop, from two folders to a model with its recipe.

A run folder holds::

    config.yaml     what was asked for            log.jsonl      one line per report
    split.json      names of train, val, test     last.pt        to resume from
    best.pt         best by validation AP         model.pt/json  the finished model
    metrics.json    validation and test scores    sample.npz     an image for export
    digests.json    checksums of these images     tensorboard/   event files, if asked for
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import torch

from spoco_zoo import run_folder
from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import Interrupted, LedgerError, StoreError, TrainingError
from spoco_zoo.nets.device import memory_sufficing
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.nets.registry import build_network
from spoco_zoo.stopping import catch_interrupt, ignore_signals, shielded_children
from spoco_zoo.train.augment import view
from spoco_zoo.train.checkpoint import Checkpoint, RunFolder
from spoco_zoo.train.crops import CropSampler, teaches_background
from spoco_zoo.train.journal import Journal, Progress
from spoco_zoo.train.momentum import make_momentum, momentum_at, update_momentum
from spoco_zoo.train.objective import Objective
from spoco_zoo.train.parallel import Ranks, average_buffers, leave, share_of_batch, wrap
from spoco_zoo.train.schedule import learning_rate
from spoco_zoo.train.steady import clustering_stays, hold_statistics
from spoco_zoo.train.validate import Case, embed_cases, roughly_tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.metrics import Scores
    from spoco_zoo.nets.model import Clusterer
    from spoco_zoo.train.data import Sample, Split
    from spoco_zoo.train.setup import Setup

__all__ = ["Trainer"]

REPORT_EVERY = 50
STOPPING = "stopping after this step, and the validation if one is due; Ctrl-C again stops at once"
SAVE_EVERY = 300.0  # seconds; a run that is killed loses no more
WATCHED = 16  # validation images that are looked at while training; all of them at the end


class Trainer:
    """State and steps of one run.

    Parameters
    ----------
    config : TrainConfig
    setup : Setup
    split : Split
    folder : RunFolder
    device : torch.device
    with_background : bool
        Whether there is a background class.
    clusterer, clustering
        What validation makes labels with.
    ranks : Ranks
        Which of the training processes this is.
    initial : dict, optional
        State dict to start from.
    """

    def __init__(
        self,
        config: TrainConfig,
        setup: Setup,
        split: Split,
        folder: RunFolder,
        device: torch.device,
        *,
        with_background: bool,
        clusterer: Clusterer,
        clustering: ClusteringConfig,
        ranks: Ranks = Ranks(),  # noqa: B008  # frozen
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.setup, self.split, self.folder = config, setup, split, folder
        self.device, self.clusterer, self.clustering = device, clusterer, clustering
        torch.manual_seed(config.seed)
        layout = torch.channels_last if setup.net.ndim == 2 else torch.channels_last_3d
        self.layout = layout
        self.network = build_network(setup.net).to(device, memory_format=layout)  # type: ignore[call-overload]
        if initial is not None:
            self.network.load_state_dict(initial)
        self.momentum = make_momentum(self.network)
        self.ranks, self.share = ranks, share_of_batch(setup.batch_size, ranks)
        self.called = wrap(self.network, ranks, compiled=config.compile)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.objective = Objective(config.loss, setup.anisotropy, with_background)
        self.background = (0.0,) * setup.net.embedding_dim if with_background else None
        self.generator = torch.Generator(device=device)
        # float16 has few exponents: gradients are scaled into its range and back.
        half = setup.precision == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        annotated = [sample for sample in split.train if len(sample.centres)]
        total = config.iterations * setup.batch_size
        empty = [s for s in split.train if with_background and teaches_background(s)]
        args = annotated, setup.crop, setup.geometry, config.seed, total
        self.crops = CropSampler(*args, empty)
        self.step, self.best, self.stale = 0, -1.0, 0
        self.ap50: float | None = None
        self.start: dict[str, Tensor] = {}  # see `keep`
        self.outcome = ""  # what to tell of a model to start from that was kept
        self.running: dict[str, float] = {}
        self.seconds = 0.0
        self.saved = time.monotonic()

    def keep(self, start: Mapping[str, Tensor], clustering: ClusteringConfig) -> None:
        """Keep what a model to start from knows (`spoco_zoo.train.steady`), as the best so far."""
        self.start, self.clustering = dict(start), clustering
        if self.ranks.main:
            self.validate()

    def restore(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Go on from ``last.pt``, and say if ``best.pt`` is lost."""
        saved = self.folder.load_last(self.device)
        self._check_setup(saved.setup)
        with self.folder.fitting(run_folder.LAST):
            self.network.load_state_dict(saved.network)
            self.momentum.load_state_dict(saved.momentum)
            self.optimizer.load_state_dict(saved.optimizer)
            self.scaler.load_state_dict(saved.scaler)
            if saved.clustering:
                self.clustering = ClusteringConfig.checked(saved.clustering)
        self.start = saved.start
        self.step, self.best, self.stale = saved.step, saved.best, saved.stale
        self.running, self.seconds = saved.running, saved.seconds
        if self.best < 0:
            return  # no validation yet
        try:
            self.folder.load_best(self.device)
        except StoreError as error:
            self.best = -1.0  # the next validation writes it anew
            say(f"Warning: the best network so far is lost ({error.found}). A later one is chosen.")

    def _check_setup(self, saved: Mapping[str, Any]) -> None:
        """Refuse to go on with another network or crop: settings left open follow the images.

        Raises
        ------
        LedgerError
        """
        own = self.setup.to_dict()
        odd = [f"{k} {own[k]} instead of {v}" for k, v in saved.items() if own.get(k) != v]
        if odd:
            raise LedgerError(
                "a resumed run must have the images and labels that it began with",
                f"others, which ask for {'; '.join(odd)}",
                "Bring them back as they were, or start a new run in another --out.",
            )

    def checkpoint(self) -> Checkpoint:
        """Everything that `restore` needs."""
        return Checkpoint(
            step=self.step,
            best=self.best,
            network=self.network.state_dict(),
            momentum=self.momentum.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            stale=self.stale,
            setup=self.setup.to_dict(),
            running=self.running,
            seconds=self.seconds,
            clustering=self.clustering.model_dump(mode="json"),
            start=self.start,
        )

    @property
    def exhausted(self) -> bool:
        """Whether validation has not got better for as long as the user's patience lasts."""
        return self.config.patience is not None and self.stale >= self.config.patience

    def run(
        self, listen: Callable[[Progress], None], say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Train to the last iteration, or until validation gets no better; save on the way.

        Raises
        ------
        Interrupted
            After the step in which Ctrl-C, SIGTERM or SIGHUP came; the run is saved.
        """
        if self.exhausted:
            return
        with ExitStack() as stack:
            journal = stack.enter_context(closing(self._journal())) if self.ranks.main else None
            crop = ",".join(str(n) for n in self.setup.crop)
            found = f"--batch-size {self.setup.batch_size} --crop {crop}"
            remedy = "Take a smaller one, with another --out"
            stack.enter_context(memory_sufficing(self.device, "a batch", found, remedy))
            stop = stack.enter_context(catch_interrupt(lambda: say(STOPPING)))
            for crops, labels in self._batches():
                terms = self._train_step(crops, labels)
                validated = self._is_time_to_validate()
                stopped = self.ranks.agree(stop.asked, self.device)
                if journal is not None:
                    self._report(journal, terms, listen, validated=validated, stopped=stopped)
                if stopped:
                    raise Interrupted(
                        f"stopped after step {self.step}, which is saved; "
                        f"the same command with --resume goes on in {self.folder.path}"
                    )
                if validated and self.ranks.agree(self.exhausted, self.device):
                    break

    def _journal(self) -> Journal:
        return Journal(
            self.folder,
            tensorboard=self.config.tensorboard,
            step=self.step,
            running=self.running,
            seconds=self.seconds,
        )

    def part(self) -> None:
        """Part from the other processes: what follows training needs one only."""
        self.called = self.network
        leave(self.ranks)

    def _is_time_to_validate(self) -> bool:
        return self.step == self.config.iterations or self.step % self.setup.validate_every == 0

    def _report(
        self,
        journal: Journal,
        terms: Mapping[str, float],
        listen: Callable[[Progress], None],
        *,
        validated: bool,
        stopped: bool,
    ) -> None:
        """Validate, log, save and tell the listener, whatever it is time for."""
        journal.watch(terms)
        case = self.validate() if validated else None
        told = validated or self.step % REPORT_EVERY == 0
        if told:
            scores = {"val_ap50": self.ap50} if case and self.ap50 is not None else {}
            journal.write(self.step, learning_rate(self.step - 1, self.config), scores)
        # Before the listener, who may fail to draw a picture.
        if validated or stopped or time.monotonic() - self.saved > SAVE_EVERY:
            self._save(journal)
        if told:
            listen(
                Progress(
                    self.step,
                    self.config.iterations,
                    dict(journal.running),
                    self.ap50,
                    self.clustering,
                    self.background,
                    case,
                    self.split.val[0] if case else None,
                )
            )

    def _save(self, journal: Journal) -> None:
        """Write ``last.pt``, with the journal's state."""
        self.running, self.seconds = dict(journal.running), journal.seconds
        self.folder.save_last(self.checkpoint())
        self.saved = time.monotonic()

    def _indices(self, step: int) -> range:
        """Numbers of this process's samples in the batch of a step."""
        first = step * self.setup.batch_size + self.ranks.rank * self.share
        return range(first, first + self.share)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the steps that are still to do; sample i depends on the seed and i alone."""
        steps = range(self.step, self.config.iterations)
        on_gpu = self.device.type == "cuda"
        loader = torch.utils.data.DataLoader(
            self.crops,
            batch_sampler=[list(self._indices(step)) for step in steps],
            num_workers=min(16, torch.get_num_threads()) if on_gpu else 0,
            pin_memory=on_gpu,
            worker_init_fn=ignore_signals,
        )
        with shielded_children():
            batches = iter(loader)
        yield from batches

    def _train_step(self, crops: Tensor, labels: Tensor) -> dict[str, float]:
        """One optimiser step; returns the loss terms."""
        config, setup, device = self.config, self.setup, self.device
        # 1. two photometric views of one geometric crop
        crops, labels = crops.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        # Each process has views of its own; 2^40 is beyond any step.
        self.generator.manual_seed(config.seed * 1_000_003 + self.step + (self.ranks.rank << 40))
        first = view(crops, setup.photometry, self.generator).contiguous(memory_format=self.layout)
        # 2. embeddings under both networks; the second only where something is not annotated
        self.network.train()
        if self.start:
            hold_statistics(self.network)
        with torch.autocast(device.type, setup.precision, setup.precision != torch.float32):
            embeddings = self.called(first)
            second = None
            if config.loss.consistency > 0 and bool((labels == 0).any()):
                with torch.no_grad():
                    other = view(crops, setup.photometry, self.generator)
                    second = self.momentum(other.contiguous(memory_format=self.layout))
        # 3. loss
        total, terms = self.objective(embeddings, labels, momentum=second, generator=self.generator)
        if not bool(torch.isfinite(total)):
            raise TrainingError(self._not_finite("the loss is", terms))
        # 4. step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        # The scaler of float16 finds its scale by such steps, and skips them.
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise TrainingError(self._not_finite("the gradients are", terms))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # 5. moving average
        average_buffers(self.network, self.ranks)
        update_momentum(self.momentum, self.network, momentum_at(self.step, config.momentum))
        self.step += 1
        return {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in terms.items()}}

    def _not_finite(self, what: str, terms: Mapping[str, Tensor]) -> str:
        """One line that names the step, the terms and the images of the batch."""
        names = ", ".join(dict.fromkeys(self.crops.name(i) for i in self._indices(self.step)))
        values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in terms.items())
        return (
            f"{what} not finite at step {self.step}, with crops of {names} ({values}). "
            "Look at these images, or lower --learning-rate or the weights of the loss."
        )

    @property
    def needs_both(self) -> bool:
        """Whether the clustering compares a network with its momentum network."""
        return self.clustering.method == "consistency"

    def embed(
        self, network: nn.Module, momentum: nn.Module, samples: Sequence[Sample]
    ) -> list[Case]:
        """Embed whole images, under the momentum network too where the clustering asks for it."""
        second = momentum if self.needs_both else None
        factor = pooling_factor(self.setup.net)
        largest = max((sample.labels.shape for sample in samples), key=math.prod)
        found = " x ".join(map(str, largest))
        remedy = "Cut it into smaller ones"
        with memory_sufficing(self.device, "an image to judge by", found, remedy):
            return embed_cases(network, samples, factor, momentum=second)

    def judge(
        self, network: nn.Module, momentum: nn.Module, samples: Sequence[Sample]
    ) -> tuple[ClusteringConfig, Scores, list[Case]]:
        """Scores of a network in evaluation mode, and the clustering that gave them."""
        cases = self.embed(network, momentum, samples)
        found = roughly_tuned(
            cases,
            self.clusterer,
            self.clustering,
            self.background,
            delta_var=self.config.loss.delta_var,
            delta_dist=self.config.loss.delta_dist,
            fixed=clustering_stays(self.start, self.clustering),
        )
        return *found, cases

    def validate(self) -> Case:
        """Score the momentum network, keep the best, return the first image for a picture.

        The trained network is scored instead where the momentum network is to confirm
        its objects: it would confirm all of its own.
        """
        network = self.network.eval() if self.needs_both else self.momentum
        watched = self.split.val[:WATCHED]
        self.clustering, scores, cases = self.judge(network, self.momentum, watched)
        self.ap50 = scores.ap50
        # Few objects are soon all found: of equals the last, or what is nearest the start.
        merit = scores.ap50 if self.start else scores.merit
        self.stale = 0 if merit > self.best else self.stale + 1
        if merit > self.best or (merit == self.best and not self.start):
            self.best = merit
            self.folder.save_best(self.checkpoint())
        return cases[0]
