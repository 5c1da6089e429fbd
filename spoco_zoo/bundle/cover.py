"""The picture of a bundle, made from the model's own result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
        _grey(_middle(example.image[0].mean(axis=0))),
        _principal_colours(np.stack([_middle(channel) for channel in example.embeddings[0]])),
        _label_colours(_middle(example.labels)),
    ]
    return np.concatenate([_fit(panel) for panel in panels], axis=1)


def write_cover(path: Path, example: Example) -> None:
    """Write `cover_image` as PNG."""
    from PIL import Image

    Image.fromarray(cover_image(example)).save(path, optimize=True)


def _middle(volume: NDArray[Any]) -> NDArray[Any]:
    """The plane itself in 2D, the middle slice in 3D."""
    return volume if volume.ndim == 2 else volume[volume.shape[0] // 2]


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map the 1 % to 99.5 % quantile of each channel (..., channel) to 0..255."""
    axes = (0, 1)
    low, high = np.percentile(values, (1, 99.5), axis=axes)
    scaled = (values - low) / np.maximum(high - low, 1e-12)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def _grey(plane: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(_stretch(plane[..., None]), 3, axis=-1)


def _principal_colours(embeddings: NDArray[Any]) -> NDArray[np.uint8]:
    """The three strongest principal components of (E, Y, X) as red, green and blue."""
    points = embeddings.reshape(len(embeddings), -1).T.astype(np.float64)
    points -= points.mean(axis=0)
    _, vectors = np.linalg.eigh(points.T @ points)
    vectors = vectors[:, ::-1][:, :3]
    # The sign of an eigenvector is arbitrary; fixed, the same run gives the same picture.
    strongest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[strongest, np.arange(vectors.shape[1])])
    colours = np.zeros((points.shape[0], 3))
    colours[:, : vectors.shape[1]] = points @ vectors
    return _stretch(colours.reshape(*embeddings.shape[1:], 3))


def _label_colours(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Black background, and hues a golden angle apart for successive labels."""
    from matplotlib.colors import hsv_to_rgb

    count = int(labels.max(initial=0))
    hue = np.arange(count) * 0.618033988749895 % 1
    table = np.zeros((count + 1, 3))
    table[1:] = hsv_to_rgb(np.stack([hue, np.full(count, 0.65), np.full(count, 0.95)], axis=-1))
    return np.asarray(table[labels] * 255, dtype=np.uint8)


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
