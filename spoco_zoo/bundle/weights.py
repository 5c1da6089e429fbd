"""Untrusted weight files: tensors, TorchScript and ONNX, checked before they are used."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spoco_zoo.bundle.archive import DISTRUST, read_members, vet_zip
from spoco_zoo.bundle.formats import OnnxNetwork, load_torchscript
from spoco_zoo.errors import BundleError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_onnx", "read_tensors", "read_torchscript"]

REACHES_OUT = re.compile(rb"\b(save|load|from_file|classes|__setstate__|__getstate__)\b")
"""Names in TorchScript through which a program could reach files, also while it is loaded."""
DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64}
ONNX_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "pkg.onnxscript.torch_lib"}


def read_tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """A state dict: tensors by name, and nothing else.

    Raises
    ------
    BundleError
        If the file is no zip of tensors, holds any other object, a view that
        is larger than its storage, or values that are not finite.
    """
    vet_zip(io.BytesIO(content), name)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise BundleError(
            "weights must be a file of tensors and nothing else",
            f"{type(error).__name__} in {name}",
            DISTRUST,
        ) from error
    if not isinstance(state, dict) or not state:
        raise BundleError(
            "weights must be a state dict", f"{type(state).__name__} in {name}", DISTRUST
        )
    for key, value in state.items():
        if not (isinstance(key, str) and _is_plain(value)):
            raise BundleError("weights must be tensors by name", f"{key!r:.60} in {name}", DISTRUST)
        if not torch.isfinite(value).all():
            raise BundleError("weights must be finite", f"NaN or infinity in {key!r:.60}", DISTRUST)
    return state


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor of numbers in this memory; on the meta device there are none."""
    return (
        isinstance(value, Tensor)
        and value.dtype in DTYPES
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and value.is_contiguous()
    )


def read_torchscript(content: bytes, name: str) -> nn.Module:
    """A TorchScript network on the CPU, in evaluation mode.

    Such a file is a program, though one without access to Python. Its text is
    searched first, and one that names an operation on files is refused.

    Raises
    ------
    BundleError
        If the file is damaged, or names an operation on files.
    """
    for member, text in read_members(content, name).items():
        # Torch finds members whatever the case of their names.
        found = REACHES_OUT.search(text) if member.casefold().endswith(".py") else None
        if found:
            raise BundleError(
                "a TorchScript network must only compute",
                f"the name {found.group().decode()!r} in {member}",
                "Ask for the ONNX format of this model.",
            )
    try:
        return load_torchscript(io.BytesIO(content))
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = one_line(error)[:150]
        raise BundleError(
            "weights must be readable TorchScript", f"{reason} ({name})", DISTRUST
        ) from error


def read_onnx(content: bytes, name: str, output: int = 0) -> OnnxNetwork:
    """An ONNX network, from one file that refers to no other.

    Raises
    ------
    BundleError
        If the file is damaged, refers to other files, or needs operators that
        do not come with onnxruntime.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own kinds
        raise BundleError(
            "weights must be readable ONNX", f"damaged data ({name})", DISTRUST
        ) from error
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleError(
                "an ONNX network must be one file",
                f"a reference to another file in {name}",
                DISTRUST,
            )
    own = {function.domain for function in model.functions}
    unknown = {opset.domain for opset in model.opset_import} - ONNX_DOMAINS - own
    if unknown:
        found = f"{sorted(unknown)[0]!r:.60} in {name}"
        raise BundleError("an ONNX network must use standard operators", found, DISTRUST)
    try:
        return OnnxNetwork(content, output)
    except Exception as error:  # onnxruntime's own kinds
        reason = one_line(error)[:150]
        raise BundleError(
            "weights must be readable ONNX", f"{reason} ({name})", DISTRUST
        ) from error


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a protobuf message, at any depth."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for item in (value,) if hasattr(value, "DESCRIPTOR") else value:
            yield from _tensors(item)
