"""A trained model in memory: networks and the recipe that makes labels of them.

On disk a run holds it as ``model.json`` (the recipe) and ``model.pt``, a dict
of tensors only: ``{"network": state_dict, "momentum": state_dict or absent}``.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from spoco_zoo import run_folder
from spoco_zoo.config import ModelRecipe
from spoco_zoo.errors import BundleError, ConfigError, one_line
from spoco_zoo.nets.device import OUT_OF_MEMORY
from spoco_zoo.nets.registry import build_network
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from spoco_zoo.config import ClusteringConfig, Scoring

__all__ = [
    "Clusterer",
    "Embedder",
    "Learner",
    "Model",
    "load_run",
    "load_tensors",
    "network_from_state",
    "own_network",
    "save_run_model",
    "save_tensors",
]


class Embedder(Protocol):
    """Anything that maps float32 (N, C, [Z,] Y, X) to float32 (N, E, [Z,] Y, X)."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Embed a batch."""


class Clusterer(Protocol):
    """From embeddings (E, [Z,] Y, X) to int32 labels ([Z,] Y, X), 0 for background."""

    def __call__(
        self,
        embeddings: Tensor,
        config: ClusteringConfig,
        background: tuple[float, ...] | None,
        /,
        *,
        momentum: Tensor | None = None,
    ) -> NDArray[np.int32]:
        """Connected objects 1..n; the same for the same input."""


class Learner(Protocol):
    """From embeddings with their truth to scores that choose objects, or None if it is too few."""

    def __call__(
        self,
        cases: Iterable[tuple[Tensor, NDArray[np.int32]]],
        config: ClusteringConfig,
        background: tuple[float, ...],
        /,
        *,
        delta_var: float,
        delta_dist: float,
    ) -> Scoring | None:
        """See `spoco_zoo.segment.cluster.learn.learn_scores`."""


def own_network(network: Embedder, rule: str, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """A model's network, if it is of a kind.

    Parameters
    ----------
    network : Embedder
    rule : str
        What the model is wanted for, as in "a model to start from".
    kind : type
        `SpocoUNet` where its weights must have the names of ours.

    Raises
    ------
    ConfigError
        If it is of another kind; what runs through TorchScript or ONNX is no `SpocoUNet`.
    """
    if not isinstance(network, kind):
        raise ConfigError(
            f"{rule} must have a network of this package",
            type(network).__name__,
            "Choose a run, or a bundle that spoco-zoo has exported.",
        )
    return network


@dataclass(frozen=True)
class Model:
    """Networks in evaluation mode, and their recipe.

    Attributes
    ----------
    recipe : ModelRecipe
    network : Embedder
        The network that is shipped; for our own architecture an `nn.Module`.
    momentum : Embedder or None
        The momentum network, if it travels with the model.
    fingerprint : str
        SHA-256 of the weights and the recipe.
    """

    recipe: ModelRecipe
    network: Embedder
    momentum: Embedder | None
    fingerprint: str

    def to(self, device: torch.device | str) -> Model:
        """Move the networks to `device`; returns the model itself, as `torch.nn.Module.to` does."""
        for net in (self.network, self.momentum):
            if isinstance(net, nn.Module):
                net.to(device)
        return self


def network_from_state(recipe: ModelRecipe, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the recipe's network, load a state dict, set evaluation mode.

    Raises
    ------
    BundleError
        If names or shapes do not fit the architecture.
    """
    with torch.random.fork_rng(devices=[]):  # of fresh weights, which nobody sees
        network = build_network(recipe.net)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(
            "weights must fit the architecture that the model names",
            one_line(error)[:200],
            "Export the model again from its run.",
        ) from error
    return network.eval()


def model_fingerprint(recipe: ModelRecipe, states: Mapping[str, Mapping[str, Tensor]]) -> str:
    """SHA-256 over the recipe and all weights, independent of the file format."""
    digest = hashlib.sha256(recipe.fingerprint().encode())
    for which in sorted(states):
        for name, tensor in sorted(states[which].items()):
            digest.update(f"{which}.{name}".encode())
            # As bytes: numpy has no bfloat16.
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def model_from_states(recipe: ModelRecipe, states: Mapping[str, Mapping[str, Tensor]]) -> Model:
    """A model from its recipe and the state dicts ``network`` and, if there, ``momentum``."""
    return Model(
        recipe=recipe,
        network=network_from_state(recipe, states["network"]),
        momentum=network_from_state(recipe, states["momentum"]) if "momentum" in states else None,
        fingerprint=model_fingerprint(recipe, states),
    )


def save_run_model(
    folder: Path, recipe: ModelRecipe, states: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write ``model.pt`` and then ``model.json``, each by temporary file and rename."""
    save_tensors({which: dict(state) for which, state in states.items()}, folder / run_folder.MODEL)
    with replacing(folder / run_folder.RECIPE) as partial:
        partial.write_text(recipe.model_dump_json(indent=2) + "\n")


def save_tensors(value: Mapping[str, Any], path: Path) -> None:
    """Write a file of tensors by temporary file and rename.

    It is made in memory: torch hides a full disk behind an error of its own archive.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left then.
    """
    content = io.BytesIO()
    torch.save(value, content)
    with replacing(path) as partial:
        partial.write_bytes(content.getbuffer())


def load_tensors(path: Path, device: torch.device | str) -> Any:
    """Read what `save_tensors` wrote, and check its checksums, which torch does not.

    Raises
    ------
    Exception
        Of many kinds, if the file is damaged or holds more than tensors and plain values.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is not as it was written")
    return torch.load(path, map_location=device, weights_only=True)


def load_run(folder: Path) -> Model:
    """Load the finished model of a training run.

    Raises
    ------
    BundleError
        If the folder holds no finished run, or the files are damaged.
    """
    recipe_file, weights = folder / run_folder.RECIPE, folder / run_folder.MODEL
    if not (recipe_file.is_file() and weights.is_file()):
        raise BundleError(
            f"a run must hold {run_folder.RECIPE} and {run_folder.MODEL}",
            f"neither or only one in {folder}",
            "Finish the training: spoco-zoo train ... --resume.",
        )
    try:
        recipe = ModelRecipe.checked(_read_json(recipe_file))
    except ConfigError as error:
        raise BundleError(
            f"a run must hold a recipe of this version ({error.rule})",
            f"{error.found} in {recipe_file}",
            "Install the spoco-zoo that trained it, or a newer one.",
        ) from error
    try:
        states = load_tensors(weights, "cpu")
    except OUT_OF_MEMORY:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise BundleError(
            "weights must be a readable file of tensors",
            f"{type(error).__name__} in {weights}",
            "Copy the run again.",
        ) from error
    if not (isinstance(states, dict) and isinstance(states.get("network"), dict)):
        raise BundleError(
            "weights must be those of a network", f"others in {weights}", "Copy the run again."
        )
    return model_from_states(recipe, states)


def _read_json(path: Path) -> object:
    import json

    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(
            "a recipe must be readable JSON", f"{error} ({path})", "Copy the run again."
        ) from error
