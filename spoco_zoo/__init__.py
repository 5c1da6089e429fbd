"""From a few annotated objects to one consistent label volume, and a tested model bundle.

The submodules are the public interface; importing the package loads none of
them, so that the command line starts without torch.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
