"""Settings that could only fail, block by block: refused before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.nets.model import Model
    from spoco_zoo.segment.plan import Plan

__all__ = ["check_networks", "check_planes"]


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
