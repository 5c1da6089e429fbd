"""The model of a run, loaded once in every process that works for it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo.errors import BundleError, ConfigError, one_line
from spoco_zoo.nets.cores import keep_to_share
from spoco_zoo.nets.model import Model
from spoco_zoo.replacing import replacing
from spoco_zoo.segment.network.inference import made_ready

if TYPE_CHECKING:
    import torch

    from spoco_zoo.config import ClusteringConfig, Precision

__all__ = ["ModelRef", "obtain_model", "read_model", "remember_model", "write_model"]

_MODELS: dict[str, Model] = {}
_READY: dict[tuple[str, str, str, bool], Model] = {}


@dataclass(frozen=True)
class ModelRef:
    """Where a worker finds the model."""

    source: str
    """What `load_model` takes, or a pickle that this run wrote."""
    fingerprint: str
    pickled: bool = False
    missing: ClusteringConfig | None = None
    """For a bundle of another author, which comes without a clustering."""
    model: Model | None = field(default=None, compare=False, repr=False)
    """The model itself, for tasks, or several runs, of the process that has it."""

    @property
    def named(self) -> str:
        """A bundle, a run or an id; empty if the model was given as an object."""
        return "" if self.pickled else self.source


def read_model(
    source: str | Path | Model | ModelRef, missing: ClusteringConfig | None = None
) -> Model:
    """A model from a bundle, a run or an id; one that is loaded already as it is.

    Parameters
    ----------
    source : str, path, Model or ModelRef
    missing : ClusteringConfig, optional
        For a bundle of another author, which comes without a clustering.

    Raises
    ------
    BundleError
        If it is damaged, unsafe or of an unknown kind.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, ModelRef):
        return source.model or _loaded(source)
    from spoco_zoo.bundle.load import load_model

    model: Model = load_model(source, missing=missing)
    return model


def write_model(model: Model, path: Path) -> ModelRef:
    """Write a model that exists in memory only, for the workers of this run.

    Raises
    ------
    ConfigError
        If its network runs through TorchScript or ONNX, or cannot be written otherwise.
    """
    try:
        content = pickle.dumps(copy.deepcopy(model).to("cpu"))  # the caller's stays on its GPU
    except Exception as error:  # each kind of network raises its own
        raise ConfigError(
            "a loaded model that worker processes use must be one that can be copied to them",
            one_line(error)[:150],
            "Pass the path of its bundle in place of the model, or workers=0.",
        ) from error
    with replacing(path) as partial:
        partial.write_bytes(content)
    return ModelRef(str(path), model.fingerprint, pickled=True)


def remember_model(model: Model) -> None:
    """Keep a loaded model for the tasks of this process; one at a time."""
    if _MODELS.get(model.fingerprint) is model:
        return  # what was made ready of it for the run before is as good for the next
    _MODELS.clear()
    _READY.clear()
    _MODELS[model.fingerprint] = model


def obtain_model(
    ref: ModelRef, device: torch.device, precision: Precision, *, graphs: bool
) -> Model:
    """The model on a device, its networks made ready for inference, once per process.

    Raises
    ------
    BundleError
        If it is not the model that the run began with.
    """
    key = (ref.fingerprint, str(device), precision, graphs)
    known = _READY.get(key)
    if known is None:
        keep_to_share()
        model = ref.model or _loaded(ref)
        ready = partial(made_ready, device=device, precision=precision, graphs=graphs)
        momentum = None if model.momentum is None else ready(model.momentum)
        known = replace(model, network=ready(model.network), momentum=momentum)
        _READY[key] = known
    # Not read again: a run in another thread may forget it at any time.
    return known


def _loaded(ref: ModelRef) -> Model:
    """The model as it was written, loaded once per process."""
    model = _MODELS.get(ref.fingerprint)
    if model is None:
        if ref.pickled:
            model = pickle.loads(Path(ref.source).read_bytes())
        else:
            model = read_model(ref.source, ref.missing)
        if model.fingerprint != ref.fingerprint:
            raise BundleError(
                "the model must not change during a run",
                f"other weights in {ref.source}",
                "Put the former model back, or start again with --overwrite.",
            )
        remember_model(model)
    return model
