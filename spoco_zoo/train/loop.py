"""The training loop, from two folders to a model with its recipe.

A run folder holds::

    config.yaml     what was asked for            log.jsonl      one line per report
    split.json      names of train, val, test     last.pt        to resume from
    best.pt         best by validation AP         model.pt/json  the finished model
    metrics.json    validation and test scores    sample.npz     an image for export
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from spoco_zoo.errors import TrainingError
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.nets.registry import build_network
from spoco_zoo.train.augment import view
from spoco_zoo.train.checkpoint import Checkpoint, RunFolder
from spoco_zoo.train.crops import CropSampler
from spoco_zoo.train.momentum import make_momentum, momentum_at, update_momentum
from spoco_zoo.train.objective import Objective
from spoco_zoo.train.validate import Case, embed_cases, score_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from spoco_zoo.config import ClusteringConfig, TrainConfig
    from spoco_zoo.train.data import Sample, Split
    from spoco_zoo.train.metrics import Scores
    from spoco_zoo.train.setup import Setup
    from spoco_zoo.train.validate import Clusterer

__all__ = ["Progress", "Trainer", "learning_rate"]

REPORT_EVERY = 50
WATCHED = 16  # validation images that are looked at while training; all of them at the end


@dataclass(frozen=True)
class Progress:
    """What a listener is told.

    Attributes
    ----------
    step, total : int
    terms : dict
        Running means of the loss terms.
    ap50 : float or None
        Latest validation AP@0.5.
    clustering, background
        What validation makes labels with.
    case, sample
        First validation image, at a validation step.
    """

    step: int
    total: int
    terms: dict[str, float]
    ap50: float | None
    clustering: ClusteringConfig
    background: tuple[float, ...] | None
    case: Case | None = None
    sample: Sample | None = None


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine to 1 % of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.iterations - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


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
    ) -> None:
        self.config, self.setup, self.split, self.folder = config, setup, split, folder
        self.device, self.clusterer, self.clustering = device, clusterer, clustering
        torch.manual_seed(config.seed)
        layout = torch.channels_last if setup.net.ndim == 2 else torch.channels_last_3d
        self.layout = layout
        self.network = build_network(setup.net).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.momentum = make_momentum(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.objective = Objective(config.loss, setup.anisotropy, with_background)
        self.background = (0.0,) * setup.net.embedding_dim if with_background else None
        self.generator = torch.Generator(device=device)
        self.step, self.best = 0, -1.0
        self.ap50: float | None = None

    def restore(self) -> None:
        """Go on from ``last.pt``."""
        saved = self.folder.load_last(self.device)
        self.network.load_state_dict(saved.network)
        self.momentum.load_state_dict(saved.momentum)
        self.optimizer.load_state_dict(saved.optimizer)
        self.step, self.best = saved.step, saved.best

    def checkpoint(self) -> Checkpoint:
        """Everything that `restore` needs."""
        return Checkpoint(
            step=self.step,
            best=self.best,
            network=self.network.state_dict(),
            momentum=self.momentum.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )

    def run(self, listen: Callable[[Progress], None]) -> None:
        """Train to the last iteration, validating and saving on the way."""
        running: dict[str, float] = {}
        started = time.monotonic()
        for crops, labels in self._batches():
            for name, value in self._train_step(crops, labels).items():
                running[name] = 0.95 * running.get(name, value) + 0.05 * value
            done = self.step == self.config.iterations
            case = None
            if done or self.step % self.setup.validate_every == 0:
                case = self._validate()
            if done or case is not None or self.step % REPORT_EVERY == 0:
                self.folder.log(
                    {
                        "step": self.step,
                        "seconds": round(time.monotonic() - started, 1),
                        "learning_rate": learning_rate(self.step - 1, self.config),
                        **{k: round(v, 5) for k, v in running.items()},
                        **(
                            {"val_ap50": round(self.ap50, 4)}
                            if case and self.ap50 is not None
                            else {}
                        ),
                    }
                )
                listen(
                    Progress(
                        self.step,
                        self.config.iterations,
                        dict(running),
                        self.ap50,
                        self.clustering,
                        self.background,
                        case,
                        self.split.val[0] if case else None,
                    )
                )
            if done or self.step % self.setup.validate_every == 0:
                self.folder.save_last(self.checkpoint())

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the steps that are still to do; sample i depends on the seed and i alone."""
        size = self.setup.batch_size
        annotated = [sample for sample in self.split.train if len(sample.centres)]
        total = self.config.iterations * size
        crops = CropSampler(
            annotated, self.setup.crop, self.setup.geometry, self.config.seed, total
        )
        on_gpu = self.device.type == "cuda"
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(crops, range(self.step * size, total)),
            batch_size=size,
            num_workers=min(8, torch.get_num_threads()) if on_gpu else 0,
            pin_memory=on_gpu,
        )
        yield from loader

    def _train_step(self, crops: Tensor, labels: Tensor) -> dict[str, float]:
        """One optimiser step; returns the loss terms."""
        config, setup, device = self.config, self.setup, self.device
        # 1. two photometric views of one geometric crop
        crops, labels = crops.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        self.generator.manual_seed(config.seed * 1_000_003 + self.step)
        first = view(crops, setup.photometry, self.generator).contiguous(memory_format=self.layout)
        # 2. embeddings under both networks; the second only where something is not annotated
        self.network.train()
        with torch.autocast(device.type, setup.precision, setup.precision != torch.float32):
            embeddings = self.network(first)
            second = None
            if config.loss.consistency > 0 and bool((labels == 0).any()):
                with torch.no_grad():
                    other = view(crops, setup.photometry, self.generator)
                    second = self.momentum(other.contiguous(memory_format=self.layout))
        # 3. loss
        total, terms = self.objective(embeddings, labels, momentum=second, generator=self.generator)
        if not bool(torch.isfinite(total)):
            raise TrainingError(
                f"the loss is not finite at step {self.step}: "
                f"{ {k: float(v) for k, v in terms.items()} }. "
                f"Lower --learning-rate and resume; last.pt holds the state before this step."
            )
        # 4. step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()
        # 5. moving average
        update_momentum(self.momentum, self.network, momentum_at(self.step, config.momentum))
        self.step += 1
        return {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in terms.items()}}

    def embed(self, network: nn.Module, samples: Sequence[Sample]) -> list[Case]:
        """Embed whole images, under the momentum network too where the clustering asks for it."""
        second = self.momentum if self.clustering.method == "consistency" else None
        return embed_cases(network, samples, pooling_factor(self.setup.net), momentum=second)

    def judge(self, network: nn.Module) -> tuple[Scores, list[Case]]:
        """Scores of a network in evaluation mode on the watched validation images."""
        cases = self.embed(network, self.split.val[:WATCHED])
        return score_cases(cases, self.clusterer, self.clustering, self.background), cases

    def _validate(self) -> Case:
        """Score the momentum network, keep the best, return the first image for a picture."""
        scores, cases = self.judge(self.momentum)
        self.ap50 = scores.ap50
        if scores.ap50 + scores.ap75 > self.best:
            self.best = scores.ap50 + scores.ap75
            self.folder.save_best(self.checkpoint())
        return cases[0]
