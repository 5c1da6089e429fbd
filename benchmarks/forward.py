"""The fastest way to run a network: plain, as `segment` does, compiled, or by ONNX Runtime.

    python -m benchmarks.forward BUNDLE.zip [--side 512] [--threads 1] [--repeats 10]

BUNDLE holds ONNX weights. All four see the same patch in turn, again and again, so that other
work on the machine hits all alike. Prints one line of JSON: the least seconds of each,
ratios to the plain network, and the largest difference from its embeddings.
"""

from __future__ import annotations

import argparse
import json
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from spoco_zoo.bundle.load import load_model
from spoco_zoo.segment.inference import LAYOUT, folded, made_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def onnx_runner(bundle: Path, threads: int) -> Callable[[Tensor], Tensor]:
    """The bundle's ONNX weights as a function of a batch."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    with zipfile.ZipFile(bundle) as file:
        content = file.read("weights.onnx")
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.bundle)
    network, net = model.network, model.recipe.net
    assert isinstance(network, nn.Module)
    compiled = torch.compile(folded(network))
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "eager": network,
        "folded, channels last": made_ready(network, torch.device("cpu"), "float32"),
        "compiled": lambda x: compiled(x.contiguous(memory_format=LAYOUT[x.ndim])),
        "ONNX Runtime": onnx_runner(options.bundle, options.threads),
    }
    shape = (1, net.in_channels, *(options.side,) * net.ndim)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    least = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        expected = network(x)
        differences = {name: float((way(x) - expected).abs().max()) for name, way in ways.items()}
        for _ in range(options.repeats):
            for name, way in ways.items():
                began = time.perf_counter()
                way(x)
                least[name] = min(least[name], time.perf_counter() - began)
    row = {
        "benchmark": "forward",
        "ndim": net.ndim,
        "side": options.side,
        "threads": options.threads,
        "seconds": {name: round(s, 4) for name, s in least.items()},
        "of_eager": {name: round(s / least["eager"], 3) for name, s in least.items()},
        "difference": {name: float(f"{d:.1e}") for name, d in differences.items()},
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
