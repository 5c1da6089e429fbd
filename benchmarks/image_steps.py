"""What normalising and clustering add to the forward on a real 2D image.

    OMP_NUM_THREADS=1 python -m benchmarks.image_steps MODEL IMAGE [--repeats 5]

Segments the image in this process as `segment` does, again and again, and each time afterwards
runs the network alone on the same patches, so that other work on the machine hits both. Prints one
line of JSON: ``steps`` is reading, normalising, embedding (forward and blending) and clustering
over the forward alone, the median of the repeats; the target is at most 1.5. ``with_scale`` is the
same with the look for the scale, which costs small images of few objects most.
``whole`` has writing, relabelling and the pyramid in it, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import SegmentConfig
from spoco_zoo.nets.device import find_device
from spoco_zoo.ngff import open_image
from spoco_zoo.segment import dry_run, segment
from spoco_zoo.segment.network.inference import made_ready, worth_graphs
from spoco_zoo.segment.scale.looking import find_scale


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model, config = load_model(options.model), SegmentConfig()
    steps, with_scale, wholes, forwards = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        output = Path(folder, "labels.tif")
        plan = dry_run(options.image, model, config, output=output)
        network = made_ready(
            model.network, find_device("cpu"), "float32", graphs=worth_graphs(plan.grid)
        )
        inputs = [
            torch.randn(1, model.recipe.net.in_channels, *patch.input.shape)
            for patch in plan.field.patches(plan.region)
        ]
        for _ in range(options.repeats):
            began = time.perf_counter()
            result = segment(options.image, model, config, output=output, overwrite=True)
            wholes.append(time.perf_counter() - began)
            seconds = result.summary["blocks"]
            began = time.perf_counter()
            find_scale(open_image(options.image), model, config)
            looking = time.perf_counter() - began
            steps.append(sum(seconds[f"{k}_seconds"] for k in ("read", "embed", "cluster")))
            with_scale.append(steps[-1] + looking)
            began = time.perf_counter()
            for x in inputs:
                network(x)
            forwards.append(time.perf_counter() - began)

    def over_forward(times: list[float]) -> float:
        ratios = [t / f for t, f in zip(times, forwards, strict=True)]
        return round(statistics.median(ratios), 3)

    row = {
        "benchmark": "image_steps",
        "model": options.model,
        "shape": plan.grid.shape,
        "patches": len(inputs),
        "threads": torch.get_num_threads(),
        "steps": over_forward(steps),
        "with_scale": over_forward(with_scale),
        "whole": over_forward(wholes),
        "forward_seconds": round(statistics.median(forwards), 3),
        "objects": result.objects,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
