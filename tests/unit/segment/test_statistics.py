"""One mean and one deviation per volume, read in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from spoco_zoo import ngff
from spoco_zoo.errors import DataError
from spoco_zoo.intensities import Statistics, normalise
from spoco_zoo.segment import normalise as module
from spoco_zoo.segment.normalise import measure


@pytest.mark.parametrize("piece", [50, 10**6])
def test_pieces_give_the_moments_of_the_whole(tmp_path: Path, monkeypatch, piece: int) -> None:
    values = np.random.default_rng(0).normal(3e4, 20, (11, 13, 17)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "ZYX"})
    monkeypatch.setattr(module, "PIECE", piece)
    monkeypatch.setattr(module, "MOST_PIECES", 10**4)
    found = measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-9)
    assert found.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)


def test_a_large_level_is_sampled_evenly(tmp_path: Path, monkeypatch) -> None:
    values = np.add.outer(np.arange(300.0), np.arange(200.0)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    monkeypatch.setattr(module, "PIECE", 100)
    monkeypatch.setattr(module, "MOST_PIECES", 25)
    found = measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))
    assert found.mean == pytest.approx(values.mean(), rel=0.02)
    assert found == measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))


def test_the_voxel_that_is_not_finite_is_named(tmp_path: Path) -> None:
    values = np.zeros((20, 30), np.float32)
    values[7, 21] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(DataError, match="7,21"):
        measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))


def test_normalised_values_have_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(1).integers(0, 65535, (2, 40, 40)).astype(np.uint16)
    scaled = normalise(values, Statistics(float(values.mean()), float(values.std())))
    assert scaled.dtype == np.float32
    assert abs(scaled.mean()) < 1e-5
    assert scaled.std() == pytest.approx(1, abs=1e-5)
