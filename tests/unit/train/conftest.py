"""Images to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def data(
    draw_pairs: Callable[[Path, int, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of three images of 32 pixels a side, and their labels."""
    return draw_pairs(tmp_path_factory.mktemp("pairs"), 3, 32)
