"""Volumes whose scale or light nobody states: they were shown to 3D networks as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks.altered_stacks import CHANGES
from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.metrics import score
from spoco_zoo.segment import dry_run, segment
from spoco_zoo.segment.network.models import read_model
from spoco_zoo.segment.scale import looking
from spoco_zoo.segment.scale.decision import Look, choose_scale_of_volume
from spoco_zoo.segment.scale.looking import Shown, find_scale, scale_is_open

NUCLEI = "nuclei-confocal-3d"
USUAL = 4000.0


def found(size: int, share: float, count: int = 20) -> Look:
    return Look((size,) * count, voxels=round(size * count / share))


CASES = {
    "of the usual size": ({1: found(4000, 0.25), 0.5: found(1400, 0.34)}, 1),
    "thin, and fuller at half the size": ({1: found(3000, 0.08), 0.5: found(2200, 0.17)}, 1),
    "small": ({1: found(1300, 0.3), 2: found(5000, 0.24)}, 2),
    "rather small": ({1: found(2500, 0.3), 2: found(4500, 0.4)}, 1),
    "small, and unseen at twice the size": ({1: found(1300, 0.3), 2: found(2000, 0.01)}, 1),
    "tiny": ({1: found(200, 0.04), 2: found(1300, 0.3), 4: found(5000, 0.25)}, 4),
    "so tiny that all are dropped": ({1: Look((), 9, 900, 10**5), 2: found(1000, 0.3)}, 2),
    "specks": ({1: Look((3,) * 90, voxels=10**5), 2: found(1000, 0.3)}, 1),
    "large": ({1: found(700, 0.01), 0.5: found(2300, 0.28), 0.25: found(1200, 0.3)}, 0.5),
    "larger": ({1: found(800, 0.02), 0.5: found(500, 0.01), 0.25: found(2200, 0.18)}, 0.25),
    "largest": ({0.25: found(900, 0.2), 0.125: found(4100, 0.25)}, 0.125),
    "one that fills the part": ({1: found(1300, 0.3), 0.5: found(4000, 0.8, 1)}, 1),
    "nothing": ({}, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_scale_follows_what_is_found(name: str) -> None:
    looks, expected = CASES[name]
    asked = []

    def look(zoom: float, reach: float) -> Look:
        asked.append((zoom, reach))
        return looks.get(zoom, Look(()))

    assert choose_scale_of_volume(look, USUAL) == expected
    assert len(asked) == len(set(asked))
    # In voxels of the network no part is much larger than at zoom 1.
    assert all((zoom / reach) ** 3 < 2.4 for zoom, reach in asked)


def test_what_is_more_usual_is_better_either_way() -> None:
    """A part full of pieces, or of what is joined, is not what the model knows."""
    usual = found(4000, 0.3)
    for size in (1000, 16000):
        looks = {1: replace(found(size, 0.5), sizes=(size,) * 20), 0.5: usual}
        zoom = choose_scale_of_volume(lambda z, _, looks=looks: looks.get(z, Look(())), USUAL)
        assert zoom == 1


@pytest.fixture(scope="module")
def pair(real_data: Path) -> list[np.ndarray]:
    """Volume 1136, on which no model was trained, and its labels."""
    names = [real_data / "ovule-nuclei-3d" / kind / "1136.tif" for kind in ("images", "labels")]
    return [tifffile.imread(name).astype(np.float32) for name in names]


@pytest.mark.parametrize(
    ("change", "zoom", "least"), [("half the size", 2.0, 0.5), ("twice the size", 0.5, 0.3)]
)
def test_nuclei_of_another_size_are_shown_as_they_were_learned(
    pair: list[np.ndarray], tmp_path: Path, change: str, zoom: float, least: float
) -> None:
    altered = CHANGES[change](pair[0], pair[1].astype(np.int32))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, altered.image, metadata={"axes": "ZYX"})
    result = segment(path, NUCLEI, output=tmp_path / "l.tif")
    assert result.summary["config"]["zoom"] == zoom
    assert f"at {zoom:g} times its size" in result.summary["plan"]["notes"]
    labels = tifffile.imread(tmp_path / "l.tif").astype(np.int32)
    assert labels.shape == altered.labels.shape
    assert score(labels, altered.labels).ap50 > least


@pytest.mark.parametrize("change", ["none", "inverted", "noise alone", "blur of 2 planes"])
def test_light_and_scale_are_taken_as_they_are_or_the_other_way_round(
    pair: list[np.ndarray], tmp_path: Path, change: str
) -> None:
    altered = CHANGES[change](pair[0], pair[1].astype(np.int32))
    tifffile.imwrite(tmp_path / "a.tif", altered.image, metadata={"axes": "ZYX"})
    plan = dry_run(tmp_path / "a.tif", NUCLEI)
    assert plan.config.zoom is None
    assert plan.config.invert is (change == "inverted")
    assert ("--no-invert" in plan.summary()["notes"]) == (change == "inverted")


@pytest.mark.parametrize("value", [0, 1])
def test_a_volume_of_one_value_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    """At its faces networks see things in it, and all sizes were tried."""
    volume = np.zeros((20, 60, 60), np.uint8)
    volume[:, 5:9, 5:9] = value
    tifffile.imwrite(tmp_path / "a.tif", volume, metadata={"axes": "ZYX"})
    looks, look = [], Shown.look

    def counted(self: Shown, *args: object, **how: object) -> Look:
        looks.append(args)
        return look(self, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Shown, "look", counted)
    image = ngff.open_image(tmp_path / "a.tif")
    assert find_scale(image, read_model(NUCLEI), SegmentConfig())[0] == 1
    assert bool(looks) == bool(value)


def test_what_is_looked_at_again_is_not_read_again(
    pair: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eight chunks of a volume were fetched from a server 14 times each."""
    tifffile.imwrite(tmp_path / "a.tif", pair[0][:, :60, :60], metadata={"axes": "ZYX"})
    reads, read = [], looking._read

    def counted(*where: object) -> np.ndarray:
        reads.append(where[3])
        return read(*where)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "_read", counted)
    find_scale(ngff.open_image(tmp_path / "a.tif"), read_model(NUCLEI), SegmentConfig())
    assert len(reads) == len(set(reads)) > 0


def test_objects_that_are_cut_off_tell_nothing_of_their_scale(tmp_path: Path) -> None:
    recipe = read_model(NUCLEI).recipe
    for depth, expected in ((11, False), (12, True)):
        path = tmp_path / f"{depth}.tif"
        tifffile.imwrite(path, np.zeros((depth, 60, 60), np.uint8), metadata={"axes": "ZYX"})
        image = ngff.open_image(path)
        assert scale_is_open(image, recipe, SegmentConfig()) == expected
        assert not scale_is_open(image, recipe, SegmentConfig(voxel_size=(0.3, 0.1, 0.1)))
