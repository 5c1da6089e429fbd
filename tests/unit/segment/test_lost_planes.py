"""Stacks of which some planes hold nothing, with the models that ship."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

from spoco_zoo.config import SegmentConfig
from spoco_zoo.demo.synth import Tissue, draw
from spoco_zoo.errors import Interrupted
from spoco_zoo.intensities import Statistics
from spoco_zoo.metrics import score
from spoco_zoo.segment import Event, SegmentResult, segment
from spoco_zoo.segment.review.light import hint_lost


def segmented(folder: Path, values: np.ndarray, model: str, **asked: object) -> SegmentResult:
    metadata = {"axes": "ZYX"}
    tifffile.imwrite(folder / "a.tif", values, photometric="minisblack", metadata=metadata)
    config = SegmentConfig.checked(asked)
    return segment(folder / "a.tif", model, config, output=folder / "l.tif", overwrite=True)


def precision(result: SegmentResult, truth: np.ndarray) -> float:
    return score(tifffile.imread(result.output).astype(np.int32), truth).ap50


@pytest.mark.parametrize("value", [0, 65535])
def test_nuclei_of_a_stack_with_lost_planes_were_cut_or_missed(
    real_data: Path, tmp_path: Path, value: int
) -> None:
    """Of volume 1135 two black planes left AP@0.5 0.62 of 0.77, two of 65535 nothing at all."""
    folder = real_data / "ovule-nuclei-3d"
    image, truth = (
        tifffile.imread(folder / kind / "1135.tif")[20:80, 20:90, 20:90]
        for kind in ("images", "labels")
    )
    truth = truth.astype(np.int32)
    whole = precision(segmented(tmp_path, image, "nuclei-confocal-3d"), truth)
    spoilt = image.astype(np.uint16)
    spoilt[[20, 30, 31]] = value
    result = segmented(tmp_path, spoilt, "nuclei-confocal-3d")
    assert (
        "Planes 20, 30, 31 of the image (the first is 0) hold one value" in result.summary["hint"]
    )
    assert precision(result, truth) >= whole - 0.05


def test_cells_in_blocks_know_the_lost_planes_of_the_whole(tmp_path: Path) -> None:
    image, truth = draw(Tissue((112,) * 3, 77, 20.0), (slice(32, 80),) * 3)
    spoilt = image.astype(np.uint16)
    spoilt[[23, 24]] = 0  # beside the face of two blocks
    asked = {"block": (24, 48, 48), "patch": (48, 48, 48), "halo": (8, 8, 8)}
    good = segmented(tmp_path, image, "cells-synthetic-3d", **asked)
    whole = precision(good, truth.astype(np.int32))
    assert good.summary["hint"] == ""
    result = segmented(tmp_path, spoilt, "cells-synthetic-3d", **asked)
    assert "Planes 23, 24" in result.summary["hint"]
    assert precision(result, truth.astype(np.int32)) >= whole - 0.05
    labels = tifffile.imread(result.output)

    def stop(event: Event) -> None:
        if event.phase == "blocks" and event.done == 1:
            raise KeyboardInterrupt

    for path in (tmp_path / "l.tif", result.report):
        path.unlink()
    begin = partial(
        segment,
        tmp_path / "a.tif",
        "cells-synthetic-3d",
        SegmentConfig.checked(asked),
        output=tmp_path / "l.tif",
    )
    with pytest.raises(Interrupted):
        begin(on_event=stop)
    again = begin()
    assert again.resumed >= 1
    assert "Planes 23, 24" in again.summary["hint"]
    assert np.array_equal(tifffile.imread(again.output), labels)


def test_lost_planes_are_named_unless_there_are_many() -> None:
    one = Statistics(0, 1, lost=((4, 3),))
    assert hint_lost([Statistics(0, 1)]) == ""
    assert "Plane 4 of the image (the first is 0) holds one value, as" in hint_lost([one])
    many = Statistics(0, 1, lost=tuple((n, n - 1) for n in range(2, 22, 2)))
    assert "Planes 2, 4, 6, 8, 10, ... of the image" in hint_lost([many])
    assert "at some times" in hint_lost([one, Statistics(0, 1)])
