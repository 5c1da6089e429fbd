"""The fastest way to run a network: plain, folded, compiled, or by ONNX Runtime.

    python -m benchmarks.forward MODEL [--side 512] [--threads 1] [--repeats 10]

All four see the same patch in turn, again and again, so that other work on the machine hits
all alike. Put THP_MEM_ALLOC_ENABLE=1 before it, as the command line and workers do for
themselves. Prints one line of JSON: the least seconds of each, ratios to the plain network,
and the largest difference from its embeddings.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

import torch

from spoco_zoo.bundle.load import load_model
from spoco_zoo.nets.unet import SpocoUNet
from spoco_zoo.segment.network.graph import GraphUNet
from spoco_zoo.segment.network.inference import LAYOUT, folded, made_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    network, net = model.network, model.recipe.net
    assert isinstance(network, SpocoUNet)
    compiled = torch.compile(folded(network))
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "eager": network,
        "folded, channels last": made_ready(network, torch.device("cpu"), "float32"),
        "compiled": lambda x: compiled(x.contiguous(memory_format=LAYOUT[x.ndim])),
        "ONNX Runtime": GraphUNet(folded(network), options.threads),
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
        "model": options.model,
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
