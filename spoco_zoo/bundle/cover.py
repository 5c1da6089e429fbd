"""The picture of a bundle, made from the model's own result."""

from __future__ import annotations

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
    """Image, embeddings and labels side by side; the middle slice of a volume.

    Returns
    -------
    uint8, shape (600, 1200, 3)
    """
    panels = [
        grey_rgb(_middle(example.image[0].mean(axis=0))),
        embedding_rgb(np.stack([_middle(channel) for channel in example.embeddings[0]])),
        label_rgb(_middle(example.labels)),
    ]
    return np.concatenate([_fit(panel) for panel in panels], axis=1)


def write_cover(path: Path, example: Example) -> None:
    """Write `cover_image` as PNG."""
    from PIL import Image

    Image.fromarray(cover_image(example)).save(path, optimize=True)


def _middle(volume: NDArray[Any]) -> NDArray[Any]:
    """The plane itself in 2D, the middle slice in 3D."""
    return volume if volume.ndim == 2 else volume[volume.shape[0] // 2]


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
