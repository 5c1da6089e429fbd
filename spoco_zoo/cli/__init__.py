"""The command line: a module of commands adds them to `app`, in the order of ``--help``."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from spoco_zoo.cli import train, complete, tune  # isort: skip
from spoco_zoo.cli import export, models, segment  # isort: skip
from spoco_zoo.cli import labels, masks, measure, outlines, view  # isort: skip
from spoco_zoo.cli import demo  # isort: skip
from spoco_zoo.cli.app import app

__all__ = [
    "app",
    "complete",
    "demo",
    "export",
    "labels",
    "main",
    "masks",
    "measure",
    "models",
    "outlines",
    "segment",
    "train",
    "tune",
    "view",
]


GONE = "the current folder must be there; found it removed. Go to another."


def main() -> None:
    """Entry point of the console script."""
    # Huge pages for large arrays, where the system has them: clearing small pages took a tenth of
    # a 3D forward. torch asks once, at its first array.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Pictures go to files; what a user's notebooks draw with may not be there.
    os.environ["MPLBACKEND"] = "agg"
    # Processes that are started must not take files of the current folder for modules.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Names and boxes that the terminal has no letters for are shown as ?.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        os.getcwd()
    except OSError:
        sys.stderr.write(f"spoco-zoo: {GONE}\n")
        sys.exit(2)
    sys.exit(app())
