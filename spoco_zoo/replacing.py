"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a name beside `path` to write under, and move it into place if all went well.

    Parameters
    ----------
    path : Path
        The file to be made or replaced; its folder must be there.
    shared : bool
        Whether several processes may write it at once, each under a name of its own.
        The one name of a single writer is used again after a kill, so nothing piles up.
    """
    mark = f".{os.getpid()}-{uuid4().hex[:8]}" if shared else ""
    partial = path.with_name(f"{path.name}{mark}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
