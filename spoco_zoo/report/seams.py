"""Figure of a segmentation's own audit: matches that were in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.report.colours import grey_rgb
from spoco_zoo.report.figures import INK, new_figure, outlined, save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DoubtView", "doubt_panels"]

OWN, OTHER = (11, 110, 153), (208, 212, 218)
DoubtView = dict[str, Any]
"""One doubt: `title`, `image` (Y, X), `below`, `above` (0 nothing, 1 other, 2 own), `labels`,
and `face`, which is (axis, position) in the picture or None where the face lies in its plane."""


def doubt_panels(views: Sequence[DoubtView], path: Path) -> None:
    """Draw each doubtful match: the image, the two blocks' views of it, the final labels.

    Parameters
    ----------
    views : sequence of DoubtView
    path : Path
        PNG to write.
    """
    figure = new_figure(9, 2.6 * len(views))
    grid = figure.subplots(len(views), 4, squeeze=False)
    for row, view in zip(grid, views, strict=True):
        grey = grey_rgb(view["image"])
        panels = {
            view["title"]: grey,
            "block below sees": _seen(view["below"]),
            "block above sees": _seen(view["above"]),
            "result": outlined(grey, view["labels"]),
        }
        for axes, (title, panel) in zip(row, panels.items(), strict=True):
            axes.imshow(panel, interpolation="nearest")
            axes.set_title(title, fontsize=8, color=INK)
            axes.set_axis_off()
            if view["face"] is not None:
                axis, position = view["face"]
                line = axes.axhline if axis == 0 else axes.axvline
                line(position - 0.5, color="#e08a00", linewidth=1, linestyle="--")
    save_figure(figure, path)


def _seen(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of one block's view: nothing white, others grey, the object in question blue."""
    table = np.array([(255, 255, 255), OTHER, OWN], np.uint8)
    seen: NDArray[np.uint8] = table[view]
    return seen
