"""What a person sees: progress in the terminal, figures, and pages that hold them."""

from __future__ import annotations

from spoco_zoo.report.colours import embedding_rgb, grey_rgb, label_rgb
from spoco_zoo.report.figures import curves, overlay, preview
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.report.progress import Display, progress

__all__ = [
    "Display",
    "Figure",
    "Section",
    "curves",
    "embedding_rgb",
    "grey_rgb",
    "html_page",
    "label_rgb",
    "overlay",
    "preview",
    "progress",
]
