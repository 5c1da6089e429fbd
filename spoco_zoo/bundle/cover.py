"""The picture of a bundle, made from the model's own result."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.report.colours import embedding_rgb, grey_rgb, label_rgb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spoco_zoo.bundle.sample import Example

__all__ = ["cover_image", "write_cover"]

PANEL = (600, 400)
"""Height and width of one of three panels; together they have the zoo's ratio of 1:2."""


def cover_image(example: Example) -> NDArray[np.uint8]:
    """Image, embeddings and labels side by side; of a volume the slice with most in it.

    Returns
    -------
    uint8, shape (600, 1200, 3)
    """
    where = fullest_slice(example.labels)
    panels = [
        grey_rgb(example.image[0].mean(axis=0)[where]),
        embedding_rgb(example.embeddings[0][:, where]),
        label_rgb(example.labels[where]),
    ]
    return np.concatenate([_fit(panel) for panel in panels], axis=1)


def write_cover(path: Path, example: Example) -> None:
    """Write `cover_image` as PNG."""
    from PIL import Image

    Image.fromarray(cover_image(example)).save(path, optimize=True)


def fullest_slice(labels: NDArray[Any]) -> EllipsisType | int:
    """The slice of a volume with most voxels in objects, of equals that nearest to the middle.

    In 2D the plane itself.
    """
    if labels.ndim == 2:
        return ...
    filled = np.count_nonzero(labels, axis=(1, 2))
    away = np.abs(np.arange(len(filled)) - len(filled) // 2)
    return int(np.lexsort((away, -filled))[0])


def _fit(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the middle with the panel's proportions and scale it, keeping hard edges."""
    from PIL import Image

    height, width = panel.shape[:2]
    scale = min(height / PANEL[0], width / PANEL[1])
    cut = [max(1, round(side * scale)) for side in PANEL]
    top, left = (height - cut[0]) // 2, (width - cut[1]) // 2
    middle = panel[top : top + cut[0], left : left + cut[1]]
    picture = Image.fromarray(middle).resize((PANEL[1], PANEL[0]), Image.Resampling.NEAREST)
    return np.asarray(picture)
