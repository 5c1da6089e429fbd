"""Images, embeddings and labels as colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["embedding_rgb", "grey_rgb", "label_rgb"]

# Enough for a stable covariance; more would only cost time.
SAMPLE = 1 << 17
GOLDEN = 0.6180339887498949


def grey_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Show an image in grey, its contrast stretched between two quantiles.

    Parameters
    ----------
    image : number, any shape

    Returns
    -------
    uint8, shape (..., 3)
    """
    grey = _stretched(np.asarray(image, dtype=np.float32)[..., None], (0.5, 99.7))
    return np.repeat(grey, 3, axis=-1)


def embedding_rgb(embeddings: NDArray[Any]) -> NDArray[np.uint8]:
    """Show embeddings by their three principal components.

    Parameters
    ----------
    embeddings : float, shape (E, ...)

    Returns
    -------
    uint8, shape (..., 3)
        Equal embeddings have equal colours. The components' signs are fixed, so
        equal input gives equal output; with E < 3 the missing colours are 0.
    """
    flat = np.asarray(embeddings, dtype=np.float32).reshape(len(embeddings), -1)
    sample = flat[:, :: max(flat.shape[1] // SAMPLE, 1)].astype(np.float64)
    centre = sample.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh((sample - centre) @ (sample - centre).T)
    axes = vectors[:, ::-1][:, :3]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    components = (flat - centre.astype(np.float32)).T @ axes.astype(np.float32)
    components = np.pad(components, [(0, 0), (0, 3 - components.shape[1])])
    return _stretched(components, (1, 99)).reshape(*embeddings.shape[1:], 3)


def label_rgb(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Show labels in bright colours on black.

    Parameters
    ----------
    labels : integer, any shape
        0 or less is background.

    Returns
    -------
    uint8, shape (..., 3)
        A label's colour depends on its id alone; successive ids differ clearly.
    """
    labels = np.asarray(labels)
    ids, index = np.unique(labels, return_inverse=True)
    colours = np.where((ids > 0)[:, None], _palette(ids), 0)
    return np.asarray(colours.astype(np.uint8)[index].reshape(*labels.shape, 3))


def _palette(ids: NDArray[Any]) -> NDArray[np.float64]:
    """Hues a golden angle apart, in turns of lightness and strength."""
    from matplotlib.colors import hsv_to_rgb

    number = ids.astype(np.float64)
    hue = number * GOLDEN % 1
    saturation = np.choose(ids.astype(np.int64) % 3, [0.85, 0.55, 0.7])
    value = np.choose(ids.astype(np.int64) // 3 % 2, [1.0, 0.82])
    return np.asarray(np.rint(255 * hsv_to_rgb(np.stack([hue, saturation, value], axis=-1))))


def _stretched(values: NDArray[Any], quantiles: tuple[float, float]) -> NDArray[np.uint8]:
    """Map two quantiles of each channel (last axis) to 0 and 255; a constant channel to 0."""
    flat = values.reshape(-1, values.shape[-1])
    flat = flat[:: max(len(flat) // SAMPLE, 1)]
    low, high = np.percentile(flat, quantiles, axis=0)
    width = np.where(high > low, high - low, np.inf)
    return np.asarray((np.clip((values - low) / width, 0, 1) * 255).astype(np.uint8))
