"""From an architecture's name to a network: the only way a name becomes code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe, NetConfig
    from spoco_zoo.nets.instances import SpocoUNetWithLabels
    from spoco_zoo.nets.unet import SpocoUNet

__all__ = [
    "ARCHITECTURES",
    "architecture_kwargs",
    "build_network",
    "build_network_with_labels",
    "label_kwargs",
]

ARCHITECTURES = ("spoco-unet",)


def architecture_kwargs(net: NetConfig) -> dict[str, object]:
    """Keyword arguments of the architecture, as plain lists and numbers for YAML."""
    kwargs: dict[str, object] = {
        "ndim": net.ndim,
        "in_channels": net.in_channels,
        "embedding_dim": net.embedding_dim,
        "features": list(net.features),
        "pooling": [list(level) for level in net.pooling],
    }
    # Left out where there is none: bundles made before it existed do not name it.
    return {**kwargs, "rotary": [list(entry) for entry in net.rotary]} if net.rotary else kwargs


def label_kwargs(recipe: ModelRecipe) -> dict[str, object]:
    """Keyword arguments that turn embeddings into labels, as plain YAML values."""
    clustering = recipe.clustering
    return {
        "background": None if recipe.background is None else list(recipe.background),
        "bandwidth": clustering.bandwidth,
        "foreground": clustering.foreground,
        "smoothness": clustering.smoothness,
        "min_size": clustering.min_size,
        "fill_holes": clustering.fill_holes,
        # Left out where there is none: bundles made before it existed do not name it.
        **({"scoring": clustering.scoring.model_dump(mode="json")} if clustering.scoring else {}),
    }


def build_network(net: NetConfig) -> SpocoUNet:
    """Build the network with fresh weights.

    Raises
    ------
    ConfigError
        If the architecture is unknown.
    """
    from spoco_zoo.nets.unet import SpocoUNet

    if net.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}",
            repr(net.architecture),
            "Train with this version of spoco-zoo, or pass the model as TorchScript or ONNX.",
        )
    return SpocoUNet(**architecture_kwargs(net))  # type: ignore[arg-type]


def build_network_with_labels(recipe: ModelRecipe) -> SpocoUNetWithLabels:
    """Build the network that returns embeddings and labels; its weights are those without."""
    from spoco_zoo.nets.instances import SpocoUNetWithLabels

    arguments = {**architecture_kwargs(recipe.net), **label_kwargs(recipe)}
    return SpocoUNetWithLabels(**arguments)  # type: ignore[arg-type]
