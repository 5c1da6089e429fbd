"""How well predicted objects agree with true ones, counted region by region."""

from spoco_zoo.metrics.contingency import Contingency
from spoco_zoo.metrics.scores import Scores, best_ious, mean, pooled, score, score_counts

__all__ = ["Contingency", "Scores", "best_ious", "mean", "pooled", "score", "score_counts"]
