"""Figures as PNG files, drawn without a screen."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.replacing import replacing
from spoco_zoo.report.colours import embedding_rgb, grey_rgb, label_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["contact_sheet", "curves", "new_figure", "outlined", "overlay", "preview", "save_figure"]

# Larger images are cut to their middle: shrunk, their cells would be specks.
LARGEST = 1024
SHEET_COLUMNS = 3
TALLEST = 2.5  # height of a panel over its width
INK, PAPER = "#1f2430", "#ffffff"
NOT_LOSSES = ("step", "seconds", "learning_rate")


def preview(
    image: NDArray[Any],
    truth: NDArray[Any],
    embedding: NDArray[Any],
    labels: NDArray[Any],
    path: Path,
) -> None:
    """Draw image, truth, embeddings and labels side by side.

    Parameters
    ----------
    image : number, shape (C, [Z,] Y, X) or ([Z,] Y, X)
        Several channels are averaged.
    truth, labels : integer, shape ([Z,] Y, X)
        0 or less is background or not annotated.
    embedding : float, shape (E, [Z,] Y, X)
    path : Path
        PNG to write. Of a volume the slice is shown that holds most objects of the truth.
    """
    image = _one_channel(image, labels.ndim)
    here = ""
    if labels.ndim == 3:
        at, here = _fullest(truth), " here"
        image, truth, labels = image[at], truth[at], labels[at]
        embedding = embedding[:, at]
    grey = grey_rgb(_plane(image, 2))
    panels = {
        "image": grey,
        f"truth ({_count(truth)}{here})": outlined(grey, _plane(truth, 2)),
        "embedding": embedding_rgb(_plane(embedding, 2)),
        f"labels ({_count(labels)}{here})": label_rgb(_plane(labels, 2)),
    }
    _save_panels(panels, path)


def overlay(image: NDArray[Any], labels: NDArray[Any], path: Path) -> None:
    """Draw an image and, beside it, the same with the outlines of its labels.

    Parameters
    ----------
    image : number, shape (C, [Z,] Y, X) or ([Z,] Y, X)
        Several channels are averaged.
    labels : integer, shape ([Z,] Y, X)
    path : Path
        PNG to write. Of a volume the middle slice is shown.
    """
    grey = grey_rgb(_plane(_one_channel(image, labels.ndim), labels.ndim))
    found = outlined(grey, _plane(labels, labels.ndim))
    _save_panels({"image": grey, f"labels ({_count(labels)} here)": found}, path)


def contact_sheet(pictures: Sequence[tuple[str, Path]], path: Path) -> None:
    """Draw pictures in rows of three, each under its title.

    Parameters
    ----------
    pictures : sequence of (str, Path)
        Titles and PNG files, one at least.
    path : Path
        PNG to write.
    """
    from matplotlib.image import imread

    columns = min(len(pictures), SHEET_COLUMNS)
    count = -(-len(pictures) // columns)
    panels = [(title, imread(file)) for title, file in pictures]
    height = max(panel.shape[0] / panel.shape[1] for _, panel in panels)
    figure = new_figure(4.0 * columns, (4.0 * min(height, TALLEST) + 0.3) * count)
    for axes in (every := figure.subplots(count, columns, squeeze=False).ravel()):
        axes.set_axis_off()
    for axes, (title, panel) in zip(every, panels, strict=False):
        axes.imshow(panel, interpolation="antialiased")
        axes.set_title(title, fontsize=9, color=INK, parse_math=False)
    with warnings.catch_warnings():  # titles may be of any script
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")
        save_figure(figure, path)


def curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw a training log: loss terms above, validation AP below.

    Parameters
    ----------
    rows : sequence of mapping
        Lines of ``log.jsonl``: `step`, loss terms, and at some steps scores whose
        names begin with ``val_``. What is not finite is left out.
    path : Path
        PNG to write.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in NOT_LOSSES)
    scores = [name for name in names if name.startswith("val_")]
    losses = [name for name in names if name not in scores]
    figure = new_figure(8, 6)
    above, below = figure.subplots(2, 1, sharex=True)
    for name in losses:
        steps, values = _series(rows, name)
        wide = {"linewidth": 2.2, "color": INK} if name in ("loss", "total") else {"linewidth": 1.2}
        above.plot(steps, values, label=name, **wide)
    for name in scores:
        steps, values = _series(rows, name)
        below.plot(steps, values, label=name.removeprefix("val_"), marker="o", markersize=3)
    above.set_ylabel("loss term")
    # Terms differ by orders of magnitude, and a log scale has no place for 0.
    above.set_yscale("symlog", linthresh=1e-2)
    above.set_ylim(bottom=0)
    below.set(xlabel="step", ylabel="validation", ylim=(0, 1))
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    save_figure(figure, path)


def _series(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows that have a finite one."""
    kept = [row for row in rows if name in row and np.isfinite(row[name])]
    return [row["step"] for row in kept], [row[name] for row in kept]


def _one_channel(image: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Average the channels, if there is such an axis."""
    return np.asarray(image.mean(axis=0) if image.ndim == ndim + 1 else image)


def _plane(values: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Middle slice of a volume, cut to its middle if it is large; leading axes are kept."""
    if ndim == 3:
        values = values[..., values.shape[-3] // 2, :, :]
    rows, columns = (slice(start, start + LARGEST) for start in _middle_starts(values.shape[-2:]))
    return values[..., rows, columns]


def _fullest(truth: NDArray[Any]) -> int:
    """The slice of a volume with most objects, of several that nearest to the middle."""
    middle = len(truth) // 2
    return max(range(len(truth)), key=lambda z: (_count(truth[z]), -abs(z - middle)))


def _middle_starts(shape: Sequence[int]) -> list[int]:
    """Where the middle `LARGEST` of each axis begins."""
    return [max((n - LARGEST) // 2, 0) for n in shape]


def _count(labels: NDArray[Any]) -> str:
    """How many objects there are."""
    count = int(np.count_nonzero(np.unique(labels) > 0))
    return f"{count} object{'s' * (count != 1)}"


def outlined(rgb: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """An image with each object's inner outline in the object's colour."""
    from skimage.segmentation import find_boundaries

    objects = np.maximum(labels, 0)
    outline = find_boundaries(objects, mode="inner", background=0)
    return np.where(outline[..., None], label_rgb(objects), rgb)


def _save_panels(panels: Mapping[str, NDArray[np.uint8]], path: Path) -> None:
    """Write RGB panels of equal size in one row, two or three screen pixels to one of theirs."""
    height, width = next(iter(panels.values())).shape[:2]
    side = 4.0
    # Of a strip that stands upright all would be thousands of pixels tall.
    figure = new_figure(side * len(panels), side * min(height / width, TALLEST) + 0.35)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, panel) in zip(row, panels.items(), strict=True):
        axes.imshow(panel, interpolation="nearest" if width < 500 else "antialiased")
        axes.set_title(title, fontsize=11, color=INK)
        axes.set_axis_off()
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, so that no global state of matplotlib is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write under a temporary name and rename, so that a viewer never sees half a picture."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
