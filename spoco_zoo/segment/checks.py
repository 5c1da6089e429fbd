"""Settings that could only fail, block by block: refused before anything is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.nets.model import Model
    from spoco_zoo.segment.plan import Plan

__all__ = ["check_device", "check_networks", "check_planes"]


def check_device(name: str, *, elsewhere: bool = False) -> None:
    """Whether this machine has a device.

    Parameters
    ----------
    name : str
    elsewhere : bool
        Whether other machines do the work, so that any CUDA device may be there.

    Raises
    ------
    ConfigError
    """
    if elsewhere and re.fullmatch(r"cuda(:\d+)?", name):
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if name not in known:
        raise ConfigError(
            "the device must be one that this machine has",
            repr(name),
            f"Use --device {', '.join(known[:-1])} or {known[-1]}.",
        )


def check_networks(plan: Plan, model: Model) -> None:
    """Whether a model has the networks that its clustering needs.

    Raises
    ------
    ConfigError
    """
    if plan.clustering.method == "consistency" and model.momentum is None:
        raise ConfigError(
            "consistency clustering needs the momentum network",
            "a model without one",
            "Choose --clustering meanshift, or export the model again from its run.",
        )


def check_planes(recipe: ModelRecipe, config: SegmentConfig, ndim: int) -> None:
    """Whether the patches that are asked for are planes if the model is 2D and the image is not.

    Raises
    ------
    ConfigError
    """
    lead = ndim - recipe.net.ndim
    for name, thickness in (("patch", 1), ("halo", 0)):
        asked = getattr(config, name)
        if lead and asked is not None and asked[0] != thickness:
            raise ConfigError(
                f"a 2D model takes a stack plane by plane: its {name} must be {thickness} along z",
                ",".join(map(str, asked)),
                f"Use --{name} {','.join(map(str, (thickness, *asked[1:])))}.",
            )
