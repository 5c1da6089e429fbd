"""The command line: a module of commands adds them to `app`, in the order of ``--help``."""

from __future__ import annotations

import os
import sys

from spoco_zoo.cli import train, complete, tune  # isort: skip
from spoco_zoo.cli import export, models, segment  # isort: skip
from spoco_zoo.cli import labels, measure, view  # isort: skip
from spoco_zoo.cli import demo  # isort: skip
from spoco_zoo.cli.app import app

__all__ = [
    "app",
    "complete",
    "demo",
    "export",
    "labels",
    "main",
    "measure",
    "models",
    "segment",
    "train",
    "tune",
    "view",
]


def main() -> None:
    """Entry point of the console script."""
    # Huge pages for large arrays, where the system has them: clearing small pages took a tenth of
    # a 3D forward. torch asks once, at its first array.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    sys.exit(app())
