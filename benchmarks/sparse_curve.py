"""AP against the share of annotated objects: one training per share, one figure, one JSON line.

Every share is a whole run of the package: training, choice of the network, tuning of the
clustering on validation images, scores on test images (on validation images where the split has
none). With ``--strokes`` the annotation of a share below 1 is made by `benchmarks.sparsify`, with
strokes of known background; without, ``--instance-ratio`` draws the objects, and no background is
known. Runs that are there already, finished or not, are taken up again.

    python -m benchmarks.sparse_curve IMAGES LABELS OUT --iterations 6000 --strokes 0.03 \\
        --split benchmarks/splits/dsb2018-fluo.json

OUT gets a run per share, ``sparse_curve.png`` and ``sparse_curve.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.sparsify import write_all
from spoco_zoo.config import TrainConfig
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.run import train
from spoco_zoo.values import named_numbers

SCORES = ("ap50", "ap75")
BACKGROUND_LABEL = 65535


def annotate(options: argparse.Namespace, share: float) -> tuple[Path, dict[str, Any]]:
    """Label folder of a share, and the settings that go with it."""
    if share == 1:
        return options.labels, {}
    if options.strokes is None:
        return options.labels, {"instance_ratio": share}
    folder = options.out / f"labels-{share:g}"
    if not folder.exists():
        partial = options.out / f"labels-{share:g}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        task = argparse.Namespace(
            labels=options.labels,
            out=partial,
            ratio=share,
            strokes=options.strokes,
            background_label=BACKGROUND_LABEL,
            seed=options.seed,
            split=options.split,
            images=None,
        )
        write_all(task)
        partial.rename(folder)
    return folder, {"annotation": "sparse", "background_label": BACKGROUND_LABEL}


def run_share(options: argparse.Namespace, share: float) -> dict[str, Any]:
    """Train with a share of the objects, or read what an earlier call gave."""
    out = options.out / f"run-{share:g}"
    if not (out / "metrics.json").is_file():
        labels, settings = annotate(options, share)
        config = TrainConfig.build(
            options.config,
            split=str(options.split),
            iterations=options.iterations,
            seed=options.seed,
            loss=named_numbers(options.loss, "loss"),
            **settings,
        )
        resume = (out / "last.pt").is_file()
        if not resume:
            shutil.rmtree(out, ignore_errors=True)  # killed before its first checkpoint
        train(options.images, labels, out, config, clusterer=cluster, resume=resume)
    metrics = json.loads((out / "metrics.json").read_text())
    part = "test" if "test" in metrics else "validation"
    return {
        "share": share,
        "n_objects": metrics["n_objects"],
        "scored_on": part,
        **{name: metrics[part][name] for name in SCORES},
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """AP against share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, label in zip(SCORES, ("AP@0.5", "AP@0.75"), strict=True):
        axes.plot([r["share"] for r in rows], [r[name] for r in rows], marker="o", label=label)
    axes.set(xscale="log", xlabel="share of annotated objects", ylabel="AP", ylim=(0, 1))
    axes.set_xticks([r["share"] for r in rows], [f"{r['share']:g}" for r in rows])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path, help="dense labels")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", type=Path, required=True, help="JSON lists of names")
    parser.add_argument("--shares", default="1,0.4,0.1,0.05")
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--strokes", type=float, help="share of background under strokes")
    parser.add_argument("--loss", action="append", help="as in consistency=0; repeat")
    parser.add_argument("--config", type=Path, help="further settings of the trainings")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for share in sorted((float(s) for s in options.shares.split(",")), reverse=True):
        rows.append(run_share(options, share))
        print(json.dumps(rows[-1]), file=sys.stderr)
    best = rows[0]["ap50"] or 1.0
    result = {
        "iterations": options.iterations,
        "strokes": options.strokes,
        "seed": options.seed,
        "shares": [{**row, "of_most": round(row["ap50"] / best, 3)} for row in rows],
    }
    draw(rows, options.out / "sparse_curve.png")
    (options.out / "sparse_curve.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
