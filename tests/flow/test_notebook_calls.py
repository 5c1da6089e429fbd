"""Calls from a notebook or script leave alone what is its own, and speak its language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tifffile
import torch

import spoco_zoo
from spoco_zoo.demo.synth import crowded_cells

MODEL = "nuclei-fluo-2d-sparse"
SMALL = {"iterations": 2, "features": (8, 16), "batch_size": 1, "crop": (32, 32)}


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """An image and its labels."""
    image, labels = crowded_cells((96, 96), seed=1, diameter=20)
    tifffile.imwrite(tmp_path / "image.tif", image)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    return tmp_path


def test_random_numbers_stay_those_of_the_notebook(cells: Path) -> None:
    files = cells / "image.tif", cells / "labels.tif"
    torch.manual_seed(7)
    state = torch.get_rng_state()
    spoco_zoo.segment(files[0], MODEL, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    spoco_zoo.train(*files, cells / "run", progress=False, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    spoco_zoo.export(
        cells / "run", cells / "b.zip", name="Cells", authors="A", formats="pytorch_state_dict"
    )
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_workers_leave_no_environment_behind(cells: Path) -> None:
    before = dict(os.environ)
    spoco_zoo.segment(cells / "image.tif", MODEL, progress=False, workers=1, block=(64, 64))
    assert dict(os.environ) == before
