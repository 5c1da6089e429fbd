"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replacing"]


def _beside(target: Path) -> Path:
    """Return an unused hidden name in the folder of `target`, to write under and rename."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


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
    path = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    partial = _beside(path) if shared else path.with_name(f"{path.name}.partial")
    # A link that came with somebody's images would have the file that it leads to overwritten.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
