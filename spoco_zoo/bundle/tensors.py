"""The tensors of a description, in the terms of both formats, 0.4 and 0.5."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from spoco_zoo.errors import BundleError

__all__ = ["TensorSpec", "embedding_tensors", "tensor_spec"]

REMEDY = "Use a model whose output is pixel embeddings."
MOST_VOXELS, LONGEST_STEP = 2**26, 1024
"""Bounds of what a description may ask for before anything has been run."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a description, in the terms of both formats.

    Attributes
    ----------
    name : str
    axes : str
        One letter per axis, as ``bcyx``.
    minimum, step, halo : tuple of int
        Per spatial axis; a step of 0 means that the size is fixed.
    channels : int or None
        None where the description does not say.
    """

    name: str
    axes: str
    minimum: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]
    channels: int | None


def tensor_spec(tensor: Any) -> TensorSpec:
    """Read an input or output of format 0.4 (axes as a string) or 0.5 (axes as a list)."""
    try:
        if isinstance(tensor["axes"], str):
            return _spec_04(tensor)
        return _spec_05(tensor)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"[:120]
        raise BundleError(
            "a description must give the axes of its tensors", found, REMEDY
        ) from error


def _spec_04(tensor: dict[str, Any]) -> TensorSpec:
    axes, shape = tensor["axes"], tensor["shape"]
    space = [i for i, axis in enumerate(axes) if axis in "zyx"]
    sized = isinstance(shape, dict)
    minimum = shape.get("min", [1] * len(axes)) if sized else shape
    step = shape.get("step", [0] * len(axes)) if sized else [0] * len(axes)
    halo = tensor.get("halo") or [0] * len(axes)
    channels = minimum[axes.index("c")] if "c" in axes and (not sized or "min" in shape) else None
    return TensorSpec(
        name=str(tensor["name"]),
        axes=axes,
        minimum=tuple(int(minimum[i]) for i in space),
        step=tuple(int(step[i]) for i in space),
        halo=tuple(int(halo[i]) for i in space),
        channels=channels,
    )


def _spec_05(tensor: dict[str, Any]) -> TensorSpec:
    letters = {"batch": "b", "channel": "c", "index": "i", "time": "t"}
    axes = "".join(letters.get(axis["type"], str(axis.get("id", "?"))) for axis in tensor["axes"])
    space = [axis for axis in tensor["axes"] if axis["type"] == "space"]
    sizes = [axis.get("size") for axis in space]
    ranges = [size if isinstance(size, dict) else {"min": size, "step": 0} for size in sizes]
    names = [axis["channel_names"] for axis in tensor["axes"] if axis["type"] == "channel"]
    return TensorSpec(
        name=str(tensor["id"]),
        axes=axes,
        minimum=tuple(int(r.get("min", 1)) for r in ranges),
        step=tuple(int(r.get("step", 1)) for r in ranges),
        halo=tuple(int(axis.get("halo", 0)) for axis in space),
        channels=len(names[0]) if names and isinstance(names[0], list) else None,
    )


def embedding_tensors(rdf: dict[str, Any]) -> tuple[TensorSpec, TensorSpec, int]:
    """The input, the output with the embeddings, and the latter's index.

    Raises
    ------
    BundleError
        If there are several inputs, or no output is named after embeddings and
        there is more than one, or axes, sizes or processing are unsuitable.
    """
    inputs, outputs = rdf.get("inputs"), rdf.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and outputs) or len(inputs) != 1:
        raise BundleError("a model must have one input and an output", "others", REMEDY)
    source, targets = tensor_spec(inputs[0]), [tensor_spec(output) for output in outputs]
    named = [i for i, target in enumerate(targets) if "embed" in target.name.lower()]
    if len(named) != 1 and len(targets) != 1:
        found = ", ".join(target.name for target in targets)
        raise BundleError("one output must be named `embeddings`", f"{found!r:.80}", REMEDY)
    output = named[0] if len(named) == 1 else 0
    target = targets[output]
    for spec in (source, target):
        if spec.axes not in ("bcyx", "bczyx") or spec.axes != source.axes:
            raise BundleError(
                "axes must be batch, channel, [z,] y, x", f"{spec.axes!r:.40}", REMEDY
            )
    if any(step <= 0 for step in source.step) or any(low <= 0 for low in source.minimum):
        raise BundleError("a network must take images of many sizes", "a fixed size", REMEDY)
    asked = (*source.minimum, source.channels or 1, *source.step, *target.halo)
    if prod(source.minimum) * (source.channels or 1) > MOST_VOXELS or max(source.step) > (
        LONGEST_STEP
    ):
        raise BundleError("a network must take small images too", f"{asked}"[:100], REMEDY)
    if not all(0 <= halo <= MOST_VOXELS for halo in target.halo):
        raise BundleError("a halo must be plausible", f"{target.halo}"[:100], REMEDY)
    _check_processing(inputs[0].get("preprocessing"), source, "preprocessing")
    _check_processing(outputs[output].get("postprocessing"), source, "postprocessing")
    return source, target, output


def _check_processing(steps: Any, source: TensorSpec, kind: str) -> None:
    """Only z-scoring of the whole image before the network, and nothing after it."""
    names = []
    for step in steps or []:
        name = str(step.get("id", step.get("name")))
        kwargs = step.get("kwargs") or {}
        if name not in ("ensure_dtype", "zero_mean_unit_variance"):
            names.append(name)
        elif name == "zero_mean_unit_variance":
            axes = kwargs.get("axes") or ["channel", *source.axes[2:]]
            letters = {"channel": "c", "batch": "b"}
            over = {letters.get(str(axis), str(axis)) for axis in axes}
            needed = set(source.axes[2:]) | ({"c"} if source.channels != 1 else set())
            whole = needed <= over and "b" not in over
            fixed = kwargs.get("mode", "per_sample") != "per_sample"
            names += (
                ["zscore"]
                if whole and not fixed
                else [f"{name} over {axes} {kwargs.get('mode', '')}"]
            )
    wanted = ["zscore"] if kind == "preprocessing" else []
    if names != wanted:
        raise BundleError(
            f"{kind} must be "
            + ("zero_mean_unit_variance of the whole image" if wanted else "none"),
            ", ".join(names)[:100] or "none",
            REMEDY,
        )
