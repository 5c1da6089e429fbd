"""Eight workers on a laptop were ended by the system, one after the other, and nobody knew why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import psutil
import tifffile
from typer.testing import CliRunner

from spoco_zoo.cli.app import app
from spoco_zoo.segment import remark_memory

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

GIB = 2**30
ALL = psutil.virtual_memory().total


def test_workers_that_fit_the_memory_are_fine() -> None:
    assert remark_memory(0, 2 * ALL) is None  # in this process, without workers
    assert remark_memory(1, GIB // 2) is None


def test_a_line_says_how_many_workers_fit() -> None:
    line = remark_memory(3, int(0.45 * ALL) - GIB)
    assert line is not None
    assert line.startswith("3 workers may need")
    assert line.endswith("Take --workers 2.")


def test_of_blocks_too_large_for_one_worker_smaller_ones_are_asked_for() -> None:
    line = remark_memory(2, 2 * ALL)
    assert line is not None
    assert line.endswith("Take a smaller --block.")


def test_a_dry_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("image.tif", np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8))
    asked = ["segment", "image.tif", "--model", "nuclei-fluo-2d", "--dry-run", "--workers"]
    count, small = str(2 + ALL // GIB), ["--block", "32,32"]
    many = CliRunner().invoke(app, [*asked, count, *small])
    few = CliRunner().invoke(app, [*asked, "1", *small])
    idle = CliRunner().invoke(app, [*asked, count])  # one of them gets the only block
    assert "workers may need" in json.loads(many.stdout)["memory"]
    assert "memory" not in json.loads(few.stdout)
    assert "memory" not in json.loads(idle.stdout)
