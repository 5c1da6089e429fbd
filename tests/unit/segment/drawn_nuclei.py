"""Images of nuclei that are drawn, with their labels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["nuclei"]


def nuclei(shape: tuple[int, int], diameter: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bright ellipses on dark ground, apart from each other, uint8, and their labels."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    step = int(diameter * 1.6)
    truth, image = np.zeros(shape, np.int32), np.full(shape, 10.0)
    for cy in range(step // 2, shape[0], step):
        for cx in range(step // 2, shape[1], step):
            if rng.random() < 0.3:
                continue
            a, b = diameter / 2 * rng.uniform(0.8, 1.2, 2)
            oy, ox = rng.normal(0, diameter * 0.1, 2)
            inside = ((y - cy - oy) / a) ** 2 + ((x - cx - ox) / b) ** 2 < 1
            inside &= truth == 0
            truth[inside] = truth.max() + 1
            image[inside] = rng.uniform(70, 160)
    image = ndimage.gaussian_filter(image, max(diameter / 12, 0.5)) + rng.normal(0, 2, shape)
    return image.clip(0, 255).astype(np.uint8), truth
