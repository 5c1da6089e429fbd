"""What a few annotated objects make of a model: before, half-way, after, and what is published.

::

    python -m benchmarks.few_objects nuclei-fluo-2d small --objects 10 --seed 0 [--missed]

Draws one image of made-up tissue of a kind (`KINDS`), annotates so many of its cells, trains as
`spoco-zoo train --init` does, and judges on three other images of that tissue, of which every cell
is known. Weights before, half-way and after have the model's own clustering, what is published
that which came with it. With ``--missed`` those are annotated first that the model does not find,
as people do. One line of JSON: AP at IoU 0.5 and 0.75 of each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from benchmarks.judge import judged
from benchmarks.mixed_tissue import write
from benchmarks.sparsify import paint_strokes, sparsify
from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import TrainConfig
from spoco_zoo.demo.cells import Style
from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.nets.model import load_run
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.cluster.learn import learn_scores
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.run import train
from spoco_zoo.train.steady import halfway
from spoco_zoo.train.validate import embed_cases
from spoco_zoo.workflow import settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, HELD = 224, 3
BACKGROUND_LABEL = 65535


class Kind(NamedTuple):
    """Tissue of cells."""

    diameter: float
    gaps: float
    blur: float
    noise: float
    """Standard deviation, of the image's range."""
    strokes: float
    """Share of the background that is known."""
    style: Style = "filled"


KINDS = {
    "small": Kind(15, 1.0, 1.5, 0.05, 0.03),
    "mild": Kind(22, 0.8, 1.5, 0.02, 0),
    "blurred": Kind(20, 0, 2.2, 0.02, 0),
    "walls": Kind(16, 0.8, 1.5, 0.05, 0.03, "membrane"),
}


def drawn(kind: Kind, seed: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Image and labels of all cells in the middle of a tissue."""
    shape, middle = (3 * SIDE,) * 2, (slice(SIDE, 2 * SIDE),) * 2
    light, cells = crowded_cells(
        shape, seed, diameter=kind.diameter, gaps=kind.gaps, style=kind.style, coverage=0.85
    )
    image = ndimage.gaussian_filter(light[middle].astype(np.float32), kind.blur)
    spread = kind.noise * np.ptp(image)
    noise = np.random.default_rng(seed).normal(0, spread, image.shape)
    return np.asarray(image + noise, np.float32), cells[middle]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=160)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--missed", action="store_true", help="annotate what the model misses")
    asked = parser.parse_args()
    kind, rng = KINDS[asked.kind], np.random.default_rng([asked.seed, asked.objects])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        image, cells = drawn(kind, asked.seed)
        keep = rng.permutation(np.unique(cells[cells > 0]).size)
        if asked.missed:
            write(folder / "whole", "image", image, cells.astype(np.uint16))
            keep = keep[np.argsort(found_by(asked.model, folder / "whole")[keep], kind="stable")]
        keep = keep[: asked.objects]
        strokes = paint_strokes(cells == 0, kind.strokes, rng)
        few = sparsify(cells.astype(np.int64), keep, strokes, BACKGROUND_LABEL)
        write(folder / "few", "image", image, few.astype(np.uint16))
        for number in range(HELD):
            write(folder / "held", f"{number}", *drawn(kind, 1000 * (asked.seed + 1) + number))
        print(json.dumps({"benchmark": "few_objects", **vars(asked), **judge(asked, folder)}))


def found_by(name: str, folder: Path) -> NDArray[np.bool_]:
    """Of each object of an image, in the order of their numbers, whether a model finds it."""
    model = load_model(name)
    assert isinstance(model.network, torch.nn.Module)
    pairs = pair_files(folder / "images", folder / "labels")
    (case,) = embed_cases(
        model.network, load_samples(pairs, TrainConfig(ndim=2)), pooling_factor(model.recipe.net)
    )
    labels = cluster(case.embeddings, model.recipe.clustering, model.recipe.background)
    counts = [range(int(found.max()) + 2) for found in (case.labels, labels)]
    table = np.histogram2d(case.labels.ravel(), labels.ravel(), counts)[0]
    union = table.sum(1, keepdims=True) + table.sum(0) - table
    return np.asarray((table / union)[1:, 1:].max(1, initial=0) > 0.5)


def judge(asked: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Train on the few objects; scores on the held-out images."""
    settings: dict[str, Any] = {
        "iterations": asked.iterations,
        "warmup": asked.warmup,
        "crop": (asked.crop, asked.crop),
        "batch_size": 2,
        "seed": asked.seed,
        "init": asked.model,
        "annotation": "sparse",
        "background_label": BACKGROUND_LABEL,
    }
    config = TrainConfig.build(None, **settings)
    places, run = (folder / "few" / "images", folder / "few" / "labels"), folder / "run"
    config, initial, _ = settle(*places, run, config, resume=False)
    assert initial is not None
    train(*places, run, config, clusterer=cluster, learner=learn_scores, initial=initial)
    pairs = pair_files(folder / "held" / "images", folder / "held" / "labels")
    samples = load_samples(pairs, TrainConfig(ndim=2))
    model = load_model(asked.model)
    assert isinstance(model.network, torch.nn.Module)
    first = {name: tensor.clone() for name, tensor in initial.state.items()}
    last = torch.load(run / "last.pt", weights_only=True)["momentum"]
    states = {"before": first, "halfway": halfway(first, last), "after": last}
    found = {}
    for name, state in states.items():
        model.network.load_state_dict(state)
        found[name] = judged(model, samples)
    found["published"] = judged(load_run(run), samples)
    return {name: [round(s.ap50, 3), round(s.ap75, 3)] for name, s in found.items()}


if __name__ == "__main__":
    main()
