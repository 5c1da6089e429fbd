"""How large the steps of a training are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spoco_zoo.config import TrainConfig

__all__ = ["learning_rate"]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine to 1 % of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.iterations - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
