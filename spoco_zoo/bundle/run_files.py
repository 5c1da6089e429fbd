"""What a finished run holds, read and checked once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.bundle.sample import Sample, read_sample
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import BundleError, ConfigError
from spoco_zoo.nets.model import load_run

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe

__all__ = ["Metrics", "RunContent", "public_settings", "read_run"]


@dataclass(frozen=True)
class Metrics:
    """Figures of a run.

    Attributes
    ----------
    training : dict of str to float
        Facts such as ``iterations``, ``n_train`` and ``n_objects``.
    validation : dict of str to float
        Scores on the images that the clustering was tuned on, and ``n_images``.
    test : dict of str to float
        Scores on images that training never used; empty if none were set apart.
    """

    training: dict[str, float]
    validation: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class RunContent:
    """A run in memory.

    Attributes
    ----------
    recipe : ModelRecipe
    network, momentum : nn.Module
        On the CPU, in evaluation mode; `momentum` is None if the run kept none.
    metrics : Metrics
    config : TrainConfig
    sample : Sample
    scores_left_out : bool
        Whether the figures are of scores that chose objects, and `recipe` is without.
    """

    recipe: ModelRecipe
    network: nn.Module
    momentum: nn.Module | None
    metrics: Metrics
    config: TrainConfig
    sample: Sample
    scores_left_out: bool = False


def read_run(run: Path) -> RunContent:
    """Read the model, figures, settings and sample of a run folder.

    Raises
    ------
    BundleError
        If a file is missing or damaged, or weights are not finite.
    """
    model = load_run(run)
    if not isinstance(model.network, nn.Module) or (
        model.momentum is not None and not isinstance(model.momentum, nn.Module)
    ):
        raise BundleError("a run must hold our own network", str(run), "Train with spoco-zoo.")
    for name, values in model.network.state_dict().items():
        if not torch.isfinite(values).all():
            raise BundleError(
                "weights must be finite", f"NaN or infinity in {name}", "Train again."
            )
    return RunContent(
        recipe=model.recipe,
        network=model.network,
        momentum=model.momentum,
        metrics=_read_metrics(run / run_folder.METRICS),
        config=_read_config(run / run_folder.CONFIG),
        sample=read_sample(run, model.recipe),
    )


def public_settings(config: TrainConfig) -> str:
    """Settings of a training as YAML, without the folders of the machine that it ran on."""
    places = {name: getattr(config, name) for name in ("init", "split")}
    names = {n: Path(p).name for n, p in places.items() if p and Path(p).is_absolute()}
    return config.model_copy(update=names).to_yaml()


def _read_metrics(path: Path) -> Metrics:
    """Figures of ``metrics.json``: one mapping per set of images, and plain numbers beside."""
    remedy = "Finish the training, which validates the model, or tune it."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"a run must hold a readable {run_folder.METRICS}", f"{error} ({path})", remedy
        ) from error
    content = content if isinstance(content, dict) else {}
    sets = {name: _numbers(content.get(name)) for name in ("validation", "test")}
    if "ap50" not in sets["validation"]:
        raise BundleError(
            f"{run_folder.METRICS} must hold the figure validation.ap50", f"none in {path}", remedy
        )
    return Metrics(_numbers(content), sets["validation"], sets["test"])


def _numbers(values: object) -> dict[str, float]:
    """The finite numbers of a mapping; other entries are left out."""
    items = values.items() if isinstance(values, dict) else ()
    return {
        key: value
        for key, value in items
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    }


def _read_config(path: Path) -> TrainConfig:
    if not path.is_file():
        raise BundleError(
            f"a run must hold {run_folder.CONFIG}", f"none at {path}", "Copy the run folder again."
        )
    try:
        return TrainConfig.build(path)
    except ConfigError as error:
        raise BundleError(error.rule, f"{error.found} ({path})", error.remedy) from error
