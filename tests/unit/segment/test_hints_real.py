"""What a run tells of real nuclei in 3D that are spoilt: a --zoom was advised of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from benchmarks.altered_stacks import CHANGES
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.segment import dry_run, segment

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def pair(real_data: Path) -> list[NDArray[np.float32]]:
    """Volume 1135, from which `nuclei-confocal-3d` learned, and its labels."""
    names = [real_data / "ovule-nuclei-3d" / kind / "1135.tif" for kind in ("images", "labels")]
    return [tifffile.imread(name).astype(np.float32) for name in names]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("a bright speck with a halo", "debris or glare"),
        ("inverted, --no-invert", "try --invert"),
        ("10 voxels wide", "segment a larger part"),
        ("noise alone", "No objects were found"),
    ],
)
def test_what_is_wrong_is_told_in_place_of_a_zoom(
    pair: list[NDArray[np.float32]], tmp_path: Path, change: str, said: str
) -> None:
    image, labels = pair
    altered = CHANGES[change.split(",")[0]](image, labels.astype(np.int32))
    asked = SegmentConfig(invert=False if "--no-invert" in change else None)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, altered.image, photometric="minisblack", metadata={"axes": "ZYX"})
    result = segment(path, "nuclei-confocal-3d", asked, output=tmp_path / "l.tif")
    told = result.summary["hint"]
    assert said in told
    assert "try --zoom" not in told


def test_a_folder_of_planes_was_sent_to_a_2d_model_without_another_word(tmp_path: Path) -> None:
    path = tmp_path / "z000.tif"
    tifffile.imwrite(path, np.zeros((40, 40), np.uint8))
    with pytest.raises(ConfigError, match="one plane of a stack") as raised:
        dry_run(path, "nuclei-confocal-3d")
    assert "Image Sequence" in str(raised.value)
