"""Real nuclei in a volume that is noise for the most part: none was found right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks.altered_stacks import middle, within
from spoco_zoo.metrics import score
from spoco_zoo.segment import segment


def test_nuclei_amid_noise_are_found_as_they_are_alone(real_data: Path, tmp_path: Path) -> None:
    image, labels = (
        middle(tifffile.imread(real_data / "ovule-nuclei-3d" / kind / "1135.tif"), 64, 64, 64)
        for kind in ("images", "labels")
    )
    amid = within(6)(image.astype(np.float32), labels.astype(np.int32)).image
    found = {}
    for name, volume in (("alone", image), ("amid", amid)):
        tifffile.imwrite(tmp_path / f"{name}.tif", volume, metadata={"axes": "ZYX"})
        output = tmp_path / f"{name}-labels.tif"
        result = segment(tmp_path / f"{name}.tif", "nuclei-confocal-3d", output=output)
        found[name] = middle(tifffile.imread(output), 64, 64, 64).astype(np.int32)
        share = result.summary["filled"]
        assert share == ([1.0] if name == "alone" else [pytest.approx(1 / 6, abs=0.2)])
    # Nuclei that a face cuts are other ones amid noise; of those inside none was found before.
    inside, truth = middle(found["amid"], 40, 40, 40), middle(found["alone"], 40, 40, 40)
    assert score(inside, truth).ap50 > 0.45
