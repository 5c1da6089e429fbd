"""From a bundle, a run or the name of a shipped model to a model in memory.

A bundle is untrusted: it is read member by member and never extracted, every
hash that it gives is checked, weights are read as tensors alone, and its Python
files are not imported. For our own architecture the network is built from this
package's code; any other runs through TorchScript or ONNX.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spoco_zoo import run_folder
from spoco_zoo.bundle import layout
from spoco_zoo.bundle.archive import open_bundle
from spoco_zoo.bundle.foreign import (
    foreign_fingerprint,
    load_foreign,
    read_network,
)
from spoco_zoo.bundle.rdf import read_description
from spoco_zoo.bundle.shipped import find_shipped, is_shipped, shipped_models
from spoco_zoo.bundle.tensors import embedding_tensors
from spoco_zoo.bundle.weights import read_tensors
from spoco_zoo.config import ClusteringConfig, ModelRecipe
from spoco_zoo.errors import BundleError, ConfigError, described, one_line
from spoco_zoo.nets.model import Model, load_run, model_from_states
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.nets.registry import ARCHITECTURES, build_network
from spoco_zoo.values import at_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spoco_zoo.bundle.archive import BundleFiles
    from spoco_zoo.bundle.rdf import Description

__all__ = ["is_shipped", "load_model", "recipe_from_config", "shipped_models"]

MAX_LEVELS, MAX_FACTOR, MAX_PATCH = 12, 4096, 2**28
"""Levels, pooling per axis and voxels of a patch that a recipe may ask for: images are padded
to multiples of the pooling, whatever the weights."""


def load_model(
    source: str | Path,
    *,
    clustering: ClusteringConfig | None = None,
    missing: ClusteringConfig | None = None,
) -> Model:
    """Load a model.

    Parameters
    ----------
    source : str or Path
        A bundle (zip file or folder, description of format 0.4 or 0.5), a run
        folder, or the id of a model that ships with the package.
    clustering : ClusteringConfig or None
        Replaces the model's own clustering.
    missing : ClusteringConfig or None
        Only for a model that has none of its own, as a bundle of another author.

    Returns
    -------
    Model
        On the CPU, in evaluation mode.

    Raises
    ------
    BundleError
        If there is no such model, or it is damaged, unsafe or of another kind.
    ConfigError
        If a bundle of another author comes without a clustering, or that given is none.
    """
    if not isinstance(source, str | os.PathLike):
        raise BundleError(
            "a model must be given by its path or id", described(source), "Give one of these."
        )
    if clustering is not None:
        clustering = ClusteringConfig.checked(clustering)
    if not str(source).strip():
        raise BundleError(
            "a model must have a name or a path", "an empty one", "`spoco-zoo models` lists some."
        )
    path = Path(source := at_home(source))
    if is_shipped(str(source)):
        return _load_shipped(str(source), clustering, missing)
    if (path / run_folder.RECIPE).is_file():
        model = load_run(path)
        if clustering is None:
            return model
        recipe = model.recipe.model_copy(update={"clustering": clustering})
        return dataclasses.replace(model, recipe=recipe)
    if (path / run_folder.CONFIG).is_file() and (path / run_folder.SPLIT).is_file():
        raise BundleError(
            "a run must be finished before it is used",
            f"one without {run_folder.RECIPE} at {path}",
            "Finish the training: repeat its command with --resume.",
        )
    files = open_bundle(path)
    description = read_description(files)
    if description.spoco is None:
        return load_foreign(files, description, clustering or missing)
    recipe = recipe_from_config(description.spoco)
    if clustering is not None:
        recipe = recipe.model_copy(update={"clustering": clustering})
    if recipe.net.architecture in ARCHITECTURES and "pytorch_state_dict" in description.weights:
        return _load_own(files, description, recipe)
    source_tensor, _, output = embedding_tensors(description.rdf)
    network = read_network(files, description, source_tensor, output)
    return Model(recipe, network, None, foreign_fingerprint(files, description, recipe))


def _load_shipped(
    name: str, clustering: ClusteringConfig | None, missing: ClusteringConfig | None
) -> Model:
    if "://" in name:
        raise BundleError(
            "a model must be a local file or folder", f"{name!r:.100}", "Download it first."
        )
    with find_shipped(name) as path:
        return load_model(path, clustering=clustering, missing=missing)


def recipe_from_config(spoco: Mapping[str, Any]) -> ModelRecipe:
    """The recipe in ``config.spoco``, without what is there for other programs.

    Raises
    ------
    BundleError
        If a value is missing, unknown or out of range.
    """
    try:
        values = {k: v for k, v in spoco.items() if k not in layout.CONFIG_EXTRA}
        recipe = ModelRecipe.checked(values)
    except ConfigError as error:
        raise BundleError(
            f"config.spoco must be a recipe of this version ({error.rule})",
            error.found,
            "Export the model again, or install a newer spoco-zoo.",
        ) from error
    if len(recipe.net.features) > MAX_LEVELS:
        found = f"{len(recipe.net.features)}"
        raise BundleError(
            f"a network must not exceed {MAX_LEVELS} levels", found, "Export it again."
        )
    factor = pooling_factor(recipe.net)
    if max(factor) > MAX_FACTOR or math.prod(recipe.patch) > MAX_PATCH:
        found = f"pooling {factor}, patch {recipe.patch}"[:100]
        raise BundleError("a network must be of a possible size", found, "Export it again.")
    return recipe


def _load_own(files: BundleFiles, description: Description, recipe: ModelRecipe) -> Model:
    """Our architecture, built from our code, with the bundle's tensors."""
    entry = description.weights["pytorch_state_dict"]
    states = {"network": read_tensors(files.read(entry.source, entry.sha256), entry.source)}
    momentum = description.attachments.get(layout.MOMENTUM)
    if momentum is not None:
        content = files.read(momentum.source, momentum.sha256)
        states["momentum"] = read_tensors(content, momentum.source)
    for state in states.values():
        _check_shapes(recipe, state)
    return model_from_states(recipe, states)


def _check_shapes(recipe: ModelRecipe, state: Mapping[str, Tensor]) -> None:
    """Compare shapes before memory is taken: a recipe may claim a network of any size."""
    try:
        with torch.device("meta"):
            expected = {k: v.shape for k, v in build_network(recipe.net).state_dict().items()}
    except (RuntimeError, OverflowError, TypeError) as error:
        found = one_line(error)[:100]
        raise BundleError(
            "a network must be of a possible size", found, "Export it again."
        ) from error
    given = {k: v.shape for k, v in state.items()}
    if given != expected:
        odd = sorted(k for k in {*given, *expected} if given.get(k) != expected.get(k))[0]
        raise BundleError(
            "weights must fit the network in config.spoco",
            f"{odd!r:.80} does not",
            "Export it again.",
        )
