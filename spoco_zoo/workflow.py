"""Library calls with progress and pictures: what the command line and the demo share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.report.figures import curves, overlay, preview
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.report.seams import audit_bars, doubt_panels
from spoco_zoo.segment import segment
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.run import train

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spoco_zoo.config import SegmentConfig, TrainConfig
    from spoco_zoo.evaluate import Evaluation
    from spoco_zoo.report.progress import Display
    from spoco_zoo.report.seams import DoubtView
    from spoco_zoo.segment import SegmentResult
    from spoco_zoo.segment.outcome import Event
    from spoco_zoo.train.loop import Progress
    from spoco_zoo.train.run import TrainResult

__all__ = [
    "segment_with_pictures",
    "train_with_pictures",
    "write_evaluation_page",
    "write_segmentation_page",
]

PICTURE_SIDE = 1024  # voxels of the middle part that a picture of a large result shows
SCORES = ("ap50", "ap75", "ap90", "sbd", "dic", "arand", "n_predicted", "n_truth")


def train_with_pictures(
    images: Path, labels: Path, out: Path, config: TrainConfig, display: Display, **options: Any
) -> TrainResult:
    """Train, with ``preview.png`` at every validation, ``training.png`` and a page at the end.

    Parameters
    ----------
    images, labels, out, config
        See `spoco_zoo.train.run.train`, as for further `options`.
    display : Display
        Shows the progress.
    """

    def listen(progress: Progress) -> None:
        detail = f"loss {progress.terms['loss']:.3f}"
        if progress.ap50 is not None:
            detail += f", validation AP@0.5 {progress.ap50:.3f}"
        display.update("train", progress.step, progress.total, detail)
        if progress.case is not None and progress.sample is not None:
            field = progress.case.embeddings
            found = cluster(
                field, progress.clustering, progress.background, momentum=progress.case.momentum
            )
            where = progress.case.where
            preview(
                progress.sample.image[(slice(None), *where)],
                progress.case.labels,
                field.cpu().numpy(),
                found,
                out / "preview.png",
            )

    result = train(images, labels, out, config, clusterer=cluster, listen=listen, **options)
    case, recipe = result.case, result.recipe
    found = cluster(case.embeddings, recipe.clustering, recipe.background, momentum=case.momentum)
    image = result.sample.image[(slice(None), *case.where)]
    preview(image, case.labels, case.embeddings.cpu().numpy(), found, out / "preview.png")
    curves(RunFolder(out).read_log(), out / "training.png")
    html_page(
        out / "report.html",
        f"Training {out.name}",
        [_scores_section(result.metrics), Section("Settings", code=config.to_yaml())],
        [
            Figure(out / "preview.png", "A validation image, its truth, embeddings and labels."),
            Figure(out / "training.png", "Loss terms and validation AP against steps."),
        ],
    )
    return result


def _scores_section(metrics: Mapping[str, Any]) -> Section:
    """Table of validation and test scores."""
    parts = [part for part in ("validation", "test") if part in metrics]
    rows: list[tuple[str, ...]] = [("set", "images", *SCORES)]
    for part in parts:
        values = metrics[part]
        rows.append((part, str(values["n_images"]), *(f"{values[name]:.3f}" for name in SCORES)))
    text = (
        "Mean over images. The clustering was tuned on the validation images; "
        "test images, if there are any, were used for nothing else.",
    )
    return Section("Scores", text, tuple(rows))


def segment_with_pictures(
    source: str,
    model: str,
    config: SegmentConfig,
    display: Display,
    *,
    report: bool = True,
    **options: Any,
) -> SegmentResult:
    """Segment, and draw the middle of the result beside the run's report.

    Parameters
    ----------
    source, model, config
        See `spoco_zoo.segment.segment`, as for further `options`.
    display : Display
        Shows the progress.
    report : bool
        Write ``<report>.png`` and ``<report>.html`` next to the JSON report.
    """

    def listen(event: Event) -> None:
        display.update(event.phase, event.done, event.total, event.message)

    result = segment(source, model, config, on_event=listen, **options)
    if report:
        write_segmentation_page(source, result, config)
    return result


def write_segmentation_page(source: str, result: SegmentResult, config: SegmentConfig) -> None:
    """Pictures and the page of a finished run, beside its ``segment.json``."""
    middle = result.report.with_suffix(".png")
    bars, doubts = (middle.with_name(f"segment-{name}.png") for name in ("audit", "doubts"))
    draw_middle(source, result, config, middle)
    audit_bars(result.summary, bars)
    summary = result.summary
    flat = {k: summary[k] for k in ("objects", "objects_per_block", "throughput", "blocks")}
    seams = Section(
        "Seams",
        (
            "Objects of neighbouring blocks are joined if they overlap enough where both blocks "
            "look, and if their mean embeddings are near. The doubtful decisions lie closest to "
            "one of these two limits.",
        ),
        (("what", "count"), *_flat(summary["faces"])),
        figures=(Figure(doubts, "Matches in doubt, and what was decided."),)
        if draw_doubts(source, result, config, doubts)
        else (),
    )
    html_page(
        result.report.with_suffix(".html"),
        f"Segmentation of {source.rstrip('/').rsplit('/', 1)[-1]}",
        [
            Section(
                "Sizes and times",
                figures=(Figure(bars, "Object sizes, objects per block, seconds of each phase."),),
            ),
            seams,
            Section("Measured", table=(("what", "value"), *_flat(_without_histogram(flat)))),
            Section("Plan", table=(("what", "value"), *_flat(summary["plan"]))),
        ],
        [Figure(middle, "The middle of the image, and the outlines of its labels.")],
    )


def draw_doubts(source: str, result: SegmentResult, config: SegmentConfig, path: Path) -> bool:
    """Picture of the doubtful matches; False, and no picture, if there were none."""
    views = result.report.with_name("doubts.npz")
    if not views.is_file():
        return False
    image, labels = ngff.open_image(source), ngff.find_labels(result.output)
    lead = len(labels.spatial) - 2
    offset = [start for start, _ in config.roi] if config.roi else [0] * len(labels.spatial)
    panels: list[DoubtView] = []
    with np.load(views) as file:
        for i, doubt in enumerate(result.summary["doubts"]):
            if f"below_{i}" not in file:
                break
            corner, below = file[f"corner_{i}"].tolist(), file[f"below_{i}"]
            start = [*doubt["voxel"][:lead], *corner]
            stop = [v + 1 for v in doubt["voxel"][:lead]]
            stop += [c + n for c, n in zip(corner, below.shape, strict=True)]
            inner = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            outer = tuple(
                slice(w.start + o, w.stop + o) for w, o in zip(inner, offset, strict=True)
            )
            when = doubt["time"]
            pixels = image.read(config.level, when, None, outer).mean(0)
            axis = doubt["axis"] - lead
            panels.append(
                {
                    "title": _doubt_title(doubt),
                    "image": pixels.reshape(below.shape),
                    "below": below,
                    "above": file[f"above_{i}"],
                    "labels": labels.read(0, when, None, inner).reshape(below.shape),
                    "face": (axis, doubt["face"] - corner[axis]) if axis >= 0 else None,
                }
            )
    doubt_panels(panels, path)
    return True


def _doubt_title(doubt: Mapping[str, Any]) -> str:
    """What was decided, in a few words."""
    verdict = {"joined": "joined", "overlap": "apart: overlap", "embedding": "apart: embedding"}
    return f"{verdict[doubt['verdict']]}\nIoU {doubt['iou']:.2f}, distance {doubt['distance']:.2f}"


def _without_histogram(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values without those that the bars show."""
    return {
        name: _without_histogram(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name != "histogram"
    }


def draw_middle(source: str, result: SegmentResult, config: SegmentConfig, path: Path) -> None:
    """Picture of the middle of a segmented region."""
    image = ngff.open_image(source)
    labels = ngff.find_labels(result.output)
    shape = labels.spatial_shape(0)
    offset = tuple(start for start, _ in config.roi) if config.roi else (0,) * len(shape)
    half = [
        min(n, PICTURE_SIDE if axis != "z" else 1)
        for n, axis in zip(shape, labels.spatial, strict=True)
    ]
    start = [(n - h) // 2 for n, h in zip(shape, half, strict=True)]
    inner = tuple(slice(a, a + h) for a, h in zip(start, half, strict=True))
    outer = tuple(slice(w.start + o, w.stop + o) for w, o in zip(inner, offset, strict=True))
    part = np.asarray(image.read(config.level, 0, None, outer), np.float32)
    found = labels.read(0, 0, None, inner)
    overlay(part, found[0], path)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as rows of (dotted name, text)."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append(
                (f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value))
            )
    return rows


def write_evaluation_page(evaluation: Evaluation, path: Path) -> None:
    """HTML page with one row of scores per image."""
    rows: list[tuple[str, ...]] = [("image", *SCORES)]
    parts = [("mean", evaluation.mean), ("pooled", evaluation.pooled)]
    parts += [(image.name, image.scores) for image in evaluation.images]
    for name, scores in parts:
        values = scores.to_dict()
        rows.append((name, *(f"{values[score]:.3f}" for score in SCORES)))
    html_page(path, "Evaluation", [Section("Scores", table=tuple(rows))])
