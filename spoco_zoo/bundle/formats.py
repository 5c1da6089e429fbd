"""One network, three weight files, and the proof that they agree."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spoco_zoo.bundle.labels import check_labels
from spoco_zoo.bundle.layout import (
    INPUT_TENSOR,
    LABEL_TENSOR,
    OUTPUT_TENSOR,
    WEIGHT_FILES,
    WeightFormat,
)
from spoco_zoo.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spoco_zoo.bundle.layout import TileGeometry

__all__ = [
    "TOLERANCE",
    "OnnxNetwork",
    "compare",
    "cropped",
    "load_torchscript",
    "outputs",
    "write_weights",
]

OPSET = 18
TOLERANCE = 1e-5
"""Largest difference from the network in memory that a weight file may show."""
ROUNDING = 1e-6
"""The same as part of the largest embedding; it takes over above 10.

Single precision keeps no fixed number of decimals: trained networks differ from
themselves in double precision by 0.7e-6 of their largest embedding.
"""


class OnnxNetwork:
    """An ONNX file behind the `Embedder` interface; it computes on the CPU.

    Parameters
    ----------
    model : bytes
        The file's content, without external data.
    output : int
        Index of the output to return.
    """

    def __init__(self, model: bytes, output: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[output].name

    def __call__(self, x: Tensor, /) -> Tensor:
        """Embeddings (N, E, [Z,] Y, X) on the device of `x`."""
        return self._run(x, [self.output])[0]

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """All outputs on the device of `x`."""
        return self._run(x, None)

    def _run(self, x: Tensor, names: list[str] | None) -> tuple[Tensor, ...]:
        feed = {self.input: x.detach().cpu().numpy().astype(np.float32, copy=False)}
        results = self.session.run(names, feed)
        return tuple(torch.from_numpy(result).to(x.device) for result in results)


def write_weights(
    network: nn.Module, folder: Path, formats: Sequence[WeightFormat], geometry: TileGeometry
) -> dict[WeightFormat, Path]:
    """Write the network in each format.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, on the CPU.
    folder : Path
        Where the files go; their names are fixed.
    formats : sequence of str
    geometry : TileGeometry
        Gives the smallest size per axis for the dynamic axes of ONNX.
    """
    files = {name: folder / WEIGHT_FILES[name] for name in formats}
    for name, path in files.items():
        if name == "pytorch_state_dict":
            torch.save(network.state_dict(), path)
        elif name == "torchscript":
            _write_torchscript(network, path)
        else:
            _write_onnx(network, path, geometry)
    return files


def _write_torchscript(network: nn.Module, path: Path) -> None:
    """Script the network; leave out the debug records, which hold paths of this machine."""
    with jit_is_deprecated():
        torch.jit.script(network).save(str(path))
    reader = torch._C.PyTorchFileReader(str(path))
    records = {
        name: reader.get_record(name)
        for name in reader.get_all_records()
        if not name.endswith(".debug_pkl") and name not in ("version", ".data/serialization_id")
    }
    del reader
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in records.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def _write_onnx(network: nn.Module, path: Path, geometry: TileGeometry) -> None:
    """Export with named dynamic axes; leave out the exporter's notes, which hold stack traces."""
    import onnx

    from spoco_zoo.bundle.loops import for_onnx

    network = for_onnx(network)
    outputs = [OUTPUT_TENSOR, LABEL_TENSOR][: 1 + hasattr(network, "instances")]
    channels = next(network.parameters()).shape[1]
    # Two items, so that the exporter does not take a batch of one for a constant.
    example = torch.zeros(2, channels, *geometry.minimum)
    axes = "zyx"[-len(geometry.minimum) :]
    dynamic = {0: torch.export.Dim("batch", min=1)}
    dynamic |= {2 + i: torch.export.Dim(axis, min=1) for i, axis in enumerate(axes)}
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_TENSOR],
            output_names=outputs,
            dynamic_shapes=(dynamic,),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("the ONNX exporter returned no program. Leave onnx out of --formats.")
    model = program.model_proto
    for part in (model.graph, *model.functions):
        _drop_notes(part)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _drop_notes(graph: Any) -> None:
    """Clear metadata and doc strings of a graph or function and all that it holds."""
    own = {field.name for field in graph.DESCRIPTOR.fields}
    lists = own & {"input", "output", "initializer"} if "initializer" in own else set()
    items = [item for name in sorted(lists) for item in getattr(graph, name)]
    for item in (graph, *graph.node, *graph.value_info, *items):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _drop_notes(inner)


def read_network(name: WeightFormat, path: Path, network: nn.Module) -> Callable[[Tensor], Any]:
    """The network as a receiver gets it from one weight file that we wrote, with all outputs."""
    if name == "onnx":
        return OnnxNetwork(path.read_bytes()).outputs
    if name == "torchscript":
        return load_torchscript(io.BytesIO(path.read_bytes()))
    import copy

    fresh = copy.deepcopy(network)
    for parameter in fresh.state_dict().values():
        parameter.zero_()
    fresh.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return fresh.eval()


def compare(
    network: nn.Module,
    files: dict[WeightFormat, Path],
    image: NDArray[np.float32],
    geometry: TileGeometry,
) -> dict[WeightFormat, float]:
    """Largest difference of each weight file from the network, over sizes that tend to break.

    The inputs are `image` (1, C, [Z,] Y, X), normalised, whole; two of the
    minimal size; and a size that is no multiple of the pooling factor.

    Raises
    ------
    ExportError
        If a file differs by more than `TOLERANCE`, or `ROUNDING` where that is more.
    """
    whole = torch.from_numpy(image)
    minimal = cropped(whole, geometry.minimum)
    odd = cropped(whole, tuple(max(1, size - 1) for size in geometry.minimum))
    inputs = [whole, torch.cat([minimal, minimal.flip(-1)]), odd]
    with torch.inference_mode():
        expected = [outputs(network(x)) for x in inputs]
        allowed = max(TOLERANCE, *(ROUNDING * float(item[0].abs().max()) for item in expected))
        differences: dict[WeightFormat, float] = {}
        for name, path in files.items():
            loaded = read_network(name, path, network)
            results = [outputs(loaded(x)) for x in inputs]
            pairs = zip(results, expected, strict=True)
            differences[name] = max(float((a[0] - b[0]).abs().max()) for a, b in pairs)
            for labels, wanted in zip(results[0][1:], expected[0][1:], strict=True):
                check_labels(labels.numpy(), wanted.numpy(), name)
            # `not <=` rather than `>`: a NaN must not pass.
            if not differences[name] <= allowed:
                raise ExportError(
                    f"{name} differs from the network by {differences[name]:.2g}, "
                    f"more than {allowed:.2g}. Leave it out of --formats, or try another torch."
                )
    return differences


def outputs(result: Any) -> tuple[Tensor, ...]:
    """What a network returns, be it one tensor or several."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def cropped(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """The low end of each spatial axis of (N, C, [Z,] Y, X)."""
    for axis, size in enumerate(sizes, start=2):
        x = x.narrow(axis, 0, size)
    return x


def load_torchscript(content: IO[bytes]) -> nn.Module:
    """A TorchScript network on the CPU, in evaluation mode."""
    with jit_is_deprecated():
        network: nn.Module = torch.jit.load(content, map_location="cpu")
    return network.eval()


@contextlib.contextmanager
def jit_is_deprecated() -> Iterator[None]:
    """Silence torch's note that TorchScript will go: the zoo has no other entry for it yet."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # the second since torch 2.15
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=category)
        yield


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's notes about torchvision, its own deprecated calls and rewrite rules.

    The last are printed, where a command prints what other programs read.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
