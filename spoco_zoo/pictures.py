"""Pictures and the page of a finished segmentation."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.report.colours import embedding_rgb
from spoco_zoo.report.figures import overlay
from spoco_zoo.report.page import Figure, html_page
from spoco_zoo.report.seams import doubt_panels
from spoco_zoo.report.sections import segment_sections
from spoco_zoo.scene import Coloured, frame_of, look_commands
from spoco_zoo.segment import embed_part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.ngff import Image
    from spoco_zoo.report.seams import DoubtView
    from spoco_zoo.segment import SegmentResult

__all__ = ["colour_embeddings", "write_segmentation_page"]

PICTURE_SIDE = 1024  # voxels of the middle part that a picture of a large result shows
PLACES = 7  # times and planes in which labels are looked for


def colour_embeddings(
    source: str, model: str, config: SegmentConfig, *, device: str = "auto"
) -> Coloured:
    """Embeddings of a region of an image, or of its middle, by their principal components."""
    part = embed_part(source, model, config, device=device)
    frame = frame_of(part.image, part.seen.levels[part.level], part.region.start)
    return Coloured("embeddings", embedding_rgb(part.embeddings), frame)


def write_segmentation_page(source: str, result: SegmentResult, config: SegmentConfig) -> None:
    """Draw the middle of the result and its doubtful matches, and write the page beside them."""
    middle = result.report.with_suffix(".png")
    doubts = middle.with_name("segment-doubts.png")
    labels = ngff.find_labels(result.output)
    ndim = len(config.roi) if config.roi else None
    image, labels = ngff.laid_on(ngff.open_image(source), labels, ndim)
    channels = result.summary.get("channels")  # of an earlier version there are none
    caption = draw_middle(image, labels, channels, config, middle)
    figures = [Figure(middle, caption)]
    if draw_doubts(image, labels, channels, result, config, doubts):
        figures.append(
            Figure(
                doubts,
                "Matches in doubt: objects of neighbouring blocks whose overlap or whose distance "
                "in embedding space lies closest to the limit from which they are one.",
            )
        )
    html_page(
        result.report.with_suffix(".html"),
        f"Segmentation of {source.rstrip('/').rsplit('/', 1)[-1]}",
        segment_sections(result.summary, look_commands(source, result.output)),
        figures,
    )


def draw_middle(
    image: Image, labels: Image, channels: Sequence[int] | None, config: SegmentConfig, path: Path
) -> str:
    """Picture of the middle of a segmented region as the network saw it; returns its caption.

    Where no label is in the middle plane of the middle time, of the nearest that has one.
    """
    shape = labels.spatial_shape(0)
    sides = [min(n, PICTURE_SIDE) for n in shape]
    inner = [slice((n - m) // 2, (n + m) // 2) for n, m in zip(shape, sides, strict=True)]
    depth = shape[0] if "z" in labels.axes else 1
    for time, plane in product(_from_middle(labels.n_times), _from_middle(depth)):
        if "z" in labels.axes:
            inner[0] = slice(plane, plane + 1)
        found = labels.read(0, time, None, inner)[0]
        if found.any():
            break
    else:
        time = labels.n_times // 2
    where = in_image(tuple(inner), config)
    part = image.read(config.level, time, channels, where).astype(np.float32)
    overlay(part, found, path)
    place = [f"time {time + 1} of {labels.n_times}"] if labels.n_times > 1 else []
    place += [f"plane {plane + 1} of {depth}"] if depth > 1 else []
    named = f" ({', '.join(place)})" if place else ""
    return f"The middle of the image{named}, and the outlines of its labels."


def _from_middle(count: int) -> list[int]:
    """A few indices below `count`, those nearest to the middle first."""
    few = np.unique(np.linspace(0, count - 1, min(count, PLACES)).round().astype(int)).tolist()
    middle = count // 2
    return sorted({middle, *few}, key=lambda index: (abs(index - middle), index))


def in_image(region: tuple[slice, ...], config: SegmentConfig) -> tuple[slice, ...]:
    """A region of the labels in voxels of the image, of which they may show a part."""
    offset = [start for start, _ in config.roi] if config.roi else [0] * len(region)
    return tuple(slice(w.start + o, w.stop + o) for w, o in zip(region, offset, strict=True))


def draw_doubts(
    image: Image,
    labels: Image,
    channels: Sequence[int] | None,
    result: SegmentResult,
    config: SegmentConfig,
    path: Path,
) -> bool:
    """Picture of the doubtful matches; False, and no picture, if there are none.

    None either where the network saw the image resampled: the doubts lie on its voxels then.
    """
    views = result.report.with_name("doubts.npz")
    if not views.is_file() or result.summary["plan"].get("resampled", "no") != "no":
        return False
    lead = len(labels.spatial) - 2
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
            when = doubt["time"]
            pixels = image.read(config.level, when, channels, in_image(inner, config)).mean(0)
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
