"""A line tells of images whose stored pieces blocks read again and again."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import numpy as np
import pytest
import tifffile
from planted import code_model

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.segment import rereading
from spoco_zoo.segment.plan import Plan, make_plan

SOLID = code_model(np.arange(1000).reshape(10, 10, 10)).recipe
SHAPE = (24, 200, 260)
CONFIG = SegmentConfig(
    block=(16, 40, 40), overlap=(4, 4, 4), patch=(16, 24, 24), halo=(4, 4, 4), zoom=1
)


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rereading, "LARGE", prod(SHAPE) // 4)


@pytest.fixture
def planes(tmp_path: Path) -> Path:
    path = tmp_path / "planes.tif"
    tifffile.imwrite(
        path, np.zeros(SHAPE, np.uint16), metadata={"axes": "ZYX"}, compression="zlib",
        rowsperstrip=SHAPE[1],
    )  # fmt: skip
    return path


def planned(path: Path, config: SegmentConfig = CONFIG) -> Plan:
    return make_plan(ngff.open_image(path), SOLID, config, output=path.with_suffix(".out.zarr"))


def reads(plan: Plan) -> float:
    """Planes that blocks read, over those that are segmented, block by block."""
    seen = [
        plan.field.needed(plan.grid.outer(n).shifted(plan.region.start))
        for n in range(plan.grid.total)
    ]
    return sum(box.shape[0] for box in seen) / plan.grid.shape[0]


@pytest.mark.parametrize("roi", [None, ((3, 24), (10, 200), (0, 250))])
def test_planes_that_are_stored_whole_are_counted(planes: Path, roi) -> None:
    plan = planned(planes, CONFIG.model_copy(update={"roi": roi}))
    (note,) = (text for text in plan.notes if "pieces" in text)
    assert "1 x 200 x 260 voxels" in note
    told = re.search(r"some (\d+) times", note)
    assert told is not None
    assert int(told[1]) == round(reads(plan)) > rereading.OFTEN


def test_what_convert_makes_of_them_suits_blocks(planes: Path, tmp_path: Path) -> None:
    target = tmp_path / "planes.ome.zarr"
    ngff.convert(planes, target, chunk=(16, 64, 64))
    assert not any("pieces" in text for text in planned(target).notes)


def test_a_file_that_is_mapped_or_small_is_read_as_it_is(
    planes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = tmp_path / "mapped.tif"
    tifffile.imwrite(mapped, np.zeros(SHAPE, np.uint16), metadata={"axes": "ZYX"})
    assert not any("pieces" in text for text in planned(mapped).notes)
    monkeypatch.setattr(rereading, "LARGE", 2 * prod(SHAPE))
    assert not any("pieces" in text for text in planned(planes).notes)


def test_voxels_of_another_size_are_counted_as_they_are_stored(planes: Path) -> None:
    plan = planned(planes, CONFIG.model_copy(update={"zoom": 0.9}))
    assert plan.rescaled
    (note,) = (text for text in plan.notes if "pieces" in text)
    told = re.search(r"some (\d+) times", note)
    assert told is not None
    assert int(told[1]) == pytest.approx(reads(plan), rel=0.1)
