"""From a few annotated objects to one consistent label volume, and a tested model bundle.

>>> import spoco_zoo
>>> callable(spoco_zoo.segment), callable(spoco_zoo.load_model)
(True, True)

``train``, ``export``, ``segment``, ``segment_array``, ``evaluate``, ``measure``, ``load_model`` and
``open_labels`` are all that a notebook needs; `spoco_zoo.api` documents them. Importing the package
loads none of them, so that the command line starts without torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What type checkers and editors know of what is loaded at its first use.
    from spoco_zoo.api import (
        evaluate,
        export,
        load_model,
        measure,
        open_labels,
        segment,
        segment_array,
        train,
    )

__all__ = [
    "__version__",
    "evaluate",
    "export",
    "load_model",
    "measure",
    "open_labels",
    "segment",
    "segment_array",
    "train",
]

__version__ = "0.1.0"

if os.name == "nt":
    raise ImportError(
        "spoco-zoo needs the file locks and signals of Linux; found Windows; install it in WSL 2 "
        "(wsl --install, then as on Linux)"
    )

# Its library would tell its maker's server about this machine, and keep a number for it in HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = ("evaluate", "measure", "segment", "train")
"""Parts that are called by their own names."""


def __getattr__(name: str) -> Any:
    """Load a function at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    """The public names, loaded or not; what this file itself imports is none of them."""
    own = {name for name in globals() if name not in ("Any", "TYPE_CHECKING", "annotations")}
    return sorted({*own, *__all__} - {"importlib", "os", "_MODULES"})
