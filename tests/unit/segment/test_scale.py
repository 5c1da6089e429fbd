"""At which size a 2D network sees an image: the rule, the part that is looked at, real runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawn_nuclei import nuclei
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.metrics import score
from spoco_zoo.nets.model import Model
from spoco_zoo.segment import dry_run, embed_part, segment
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.ledger import Ledger
from spoco_zoo.segment.network.models import read_model
from spoco_zoo.segment.scale.decision import Look, choose_scale
from spoco_zoo.segment.scale.looking import EDGE, QUARTERS, part_around, places, scale_is_open

USUAL, LARGEST = 400.0, 2000.0
NUCLEI = "nuclei-fluo-2d"


def scale_of(looks: dict[float, Look]) -> tuple[float, list[tuple[float, float]]]:
    """What is chosen, given what is found at each zoom, nothing at others; and what was asked."""
    asked = []

    def look(zoom: float, reach: float) -> Look:
        asked.append((zoom, reach))
        return replace(looks.get(zoom, Look(())), voxels=round(10**5 * (zoom / reach) ** 2))

    return choose_scale(look, USUAL, LARGEST), asked


def test_debris_between_large_nuclei_hid_how_large_they_are() -> None:
    def look(*sizes: int) -> Look:
        return Look(tuple(sizes))

    debris, pieces = (12,) * 60, (1500, 2500) * 12
    whole = {z: look(*[round(12_000 * z**2)] * 12, *debris) for z in (1 / 2, 1 / 4, 1 / 8)}
    assert scale_of({1: look(*pieces, *debris), **whole})[0] == 1 / 4


def found(size: int, count: int = 20, dropped: tuple[int, int] = (0, 0)) -> Look:
    return Look((size,) * count, *dropped)


CASES = {
    "of the usual size": ({1: found(400), 0.5: found(100)}, 1),
    "rather small, as some of the training": ({1: found(90), 2: found(360)}, 1),
    "small": ({1: found(70, 5, (10, 300)), 2: found(230)}, 2),
    "tiny": ({1: found(60, 2, (15, 400)), 2: found(60, 9, (9, 200)), 4: found(160)}, 4),
    "too tiny": ({1: found(60, 2, (15, 400)), 2: found(60, 9, (9, 200))}, 2),
    "tiny, with larger ones": ({1: found(60, 2), 2: found(60, 9, (9, 200)), 4: found(380)}, 2),
    "crumbs at twice the size": ({1: found(60, 2), 2: found(60, 9, (30, 600))}, 1),
    "crumbs, hardly more": ({1: found(60, 6), 2: found(60, 9, (9, 200))}, 1),
    "noise that is found nowhere": ({1: Look((), 20, 60), 2: found(90), 4: found(90)}, 1),
    "so tiny that all are dropped": ({1: Look((), 20, 400), 2: found(90)}, 2),
    "noise, which is smooth at twice the size": ({1: found(60, 30), 2: found(150, 10)}, 1),
    "nothing": ({}, 1),
    "large, in pieces": ({1: found(600, 25), 0.5: found(1600, 12), 0.25: found(420, 12)}, 0.5),
    "large, of which parts alone are found": ({1: found(1377, 7), 0.5: found(413, 9)}, 0.5),
    "large and whole": ({1: found(2100, 9), 0.5: found(520, 9)}, 0.5),
    "large, but joined at half the size": ({1: found(2100, 9), 0.5: Look(())}, 1),
    "huge": ({1: found(300, 9), 0.5: found(700, 25), 0.25: found(1700, 12)}, 0.25),
    "so large that nothing is found": ({0.5: found(1600, 12), 0.25: found(400, 12)}, 0.5),
    "so large that little is found at half the size, too": ({0.25: found(1600, 12)}, 0.25),
    "large, in very small pieces": ({1: found(60, 2), 2: found(60, 1), 0.5: found(900)}, 0.5),
    "few": ({1: found(500, 3), 0.5: found(130, 3)}, 1),
    "small ones that are joined at half the size": ({1: found(500), 0.5: found(450, 6)}, 1),
    "nothing but specks at half the size": ({1: found(500), 0.5: found(450, 9, (40, 900))}, 1),
    "whole at half the size, but smaller than usual": ({1: found(300), 0.5: found(250)}, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_scale_follows_what_is_found(name: str) -> None:
    looks, expected = CASES[name]
    assert scale_of(looks)[0] == expected


def test_a_larger_part_is_looked_at_from_farther_away() -> None:
    asked = scale_of(CASES["huge"][0])[1]
    first, far = [(0.5, 1), (0.25, 0.5)], [(0.25, 0.5), (0.25, 0.25), (0.125, 0.25)]
    assert asked == [*first, (1, 1), (1, 1), (0.5, 1), (0.5, 0.5), *far]
    assert scale_of(CASES["of the usual size"][0])[1] == first


def test_the_larger_part_must_say_the_same() -> None:
    def look(zoom: float, reach: float) -> Look:
        if reach < 1:
            return Look((200,) * 40, voxels=10**5)
        return Look((270,) * 19, voxels=10**5) if zoom == 1 else Look((740,) * 7, voxels=25000)

    assert choose_scale(look, USUAL, LARGEST) == 1


@given(
    st.tuples(st.integers(0, 50), st.integers(0, 900), st.integers(0, 900)),
    st.tuples(st.integers(1, 9), st.integers(1, 2000), st.integers(1, 2000)),
    st.sampled_from(QUARTERS),
    st.sampled_from([EDGE, 2 * EDGE, 4 * EDGE]),
)
def test_the_part_is_one_plane_inside_the_region(
    start: tuple[int, ...], shape: tuple[int, ...], place: tuple[int, int], edge: int
) -> None:
    region = Box(start, tuple(a + n for a, n in zip(start, shape, strict=True)))
    centres = dict(zip(QUARTERS, places(region), strict=True))
    part = part_around(region, centres[place], edge)
    assert part.shape == (1, *(min(edge, n) for n in shape[1:]))
    assert part.overlap(region) == part
    if place == (2, 2):
        for a, b, c, d in zip(part.start, part.stop, start, region.stop, strict=True):
            assert abs((a + b) - (c + d)) <= 2  # both have one middle


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model(NUCLEI)


@pytest.mark.parametrize(
    ("diameter", "side", "zoom"),
    [(5, 80, 2), (20, 256, None), (80, 700, 0.5), (260, 1100, 0.125)],
)
def test_nuclei_of_any_size_are_found(
    diameter: int, side: int, zoom: float | None, model: Model, tmp_path: Path
) -> None:
    image, truth = nuclei((side, side), diameter)
    tifffile.imwrite(tmp_path / "i.tif", image)
    result = segment(tmp_path / "i.tif", model, output=tmp_path / "o.tif")
    labels = tifffile.imread(result.output).astype(np.int32)
    assert labels.shape == truth.shape
    assert result.summary["config"]["zoom"] == zoom
    assert score(labels, truth).ap50 > 0.9
    if zoom is None:
        assert result.summary["plan"]["notes"] == "none"
        return
    assert "--zoom 1 takes" in result.summary["plan"]["notes"]
    if side > 1000:
        return  # at its own size it takes half a minute, for nothing
    same = SegmentConfig(zoom=1)
    plain = segment(tmp_path / "i.tif", model, same, output=tmp_path / "plain.tif")
    assert score(tifffile.imread(plain.output).astype(np.int32), truth).ap50 < 0.3


def test_a_stack_a_region_and_a_far_corner_are_looked_at(model: Model, tmp_path: Path) -> None:
    small, _ = nuclei((260, 260), 6)
    stack = np.random.default_rng(0).normal(10, 2, (3, 800, 800)).clip(0, 255).astype(np.uint8)
    stack[1, 530:790, 530:790] = small
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    assert dry_run(tmp_path / "s.tif", model, output=tmp_path / "o.tif").config.zoom == 2
    elsewhere = SegmentConfig(roi=((0, 3), (0, 300), (0, 300)))
    assert dry_run(tmp_path / "s.tif", model, elsewhere).config.zoom is None
    there = SegmentConfig(roi=((0, 3), (500, 700), (500, 700)))
    assert dry_run(tmp_path / "s.tif", model, there).config.zoom == 2


def test_a_tile_in_an_empty_mosaic_is_looked_at(model: Model, tmp_path: Path) -> None:
    """Nothing lay in the places that are looked at; the whole tile passed for one large nucleus."""
    mosaic, truth = np.zeros((3000, 3000), np.uint8), np.zeros((3000, 3000), np.int32)
    mosaic[2500:2756, 100:356], truth[2500:2756, 100:356] = nuclei((256, 256), 20)
    tifffile.imwrite(tmp_path / "m.tif", mosaic)
    result = segment(tmp_path / "m.tif", model, output=tmp_path / "o.tif")
    assert result.summary["config"]["zoom"] is None
    assert result.summary["hint"] == ""
    assert score(tifffile.imread(result.output).astype(np.int32), truth).ap50 > 0.9


def test_a_run_that_was_begun_goes_on_at_its_scale(model: Model, tmp_path: Path) -> None:
    image, _ = nuclei((256, 256), 20)
    tifffile.imwrite(tmp_path / "i.tif", image)
    begun = dry_run(tmp_path / "i.tif", model, SegmentConfig(zoom=2))
    begun.folder.mkdir()
    with Ledger(begun.folder, begun.fingerprint("model", "cluster")):
        pass
    assert dry_run(tmp_path / "i.tif", model).config.zoom == 2
    assert dry_run(tmp_path / "i.tif", model, SegmentConfig(zoom=1)).config.zoom == 1
    assert dry_run(tmp_path / "i.tif", model, overwrite=True).config.zoom is None
    (begun.folder / "progress.jsonl").write_text("damaged\n")
    assert dry_run(tmp_path / "i.tif", model).config.zoom is None


def test_noise_is_not_enlarged(model: Model, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).poisson(4, (500, 500)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", noise)
    assert dry_run(tmp_path / "i.tif", model).config.zoom is None


def test_embeddings_to_look_at_are_those_that_are_clustered(model: Model, tmp_path: Path) -> None:
    image, _ = nuclei((96, 96), 6)
    tifffile.imwrite(tmp_path / "i.tif", image)
    assert embed_part(tmp_path / "i.tif", model).embeddings.shape[1:] == (192, 192)
    plain = embed_part(tmp_path / "i.tif", model, SegmentConfig(zoom=1))
    assert plain.embeddings.shape[1:] == (96, 96)


def test_the_scale_is_open_only_where_nothing_tells_it(model: Model, tmp_path: Path) -> None:
    ngff.write_label_tiff(tmp_path / "sized.tif", np.ones((40, 40), np.uint8), (0.5, 0.5))
    tifffile.imwrite(tmp_path / "bare.tif", np.ones((40, 40), np.uint8))
    sized, bare = ngff.open_image(tmp_path / "sized.tif"), ngff.open_image(tmp_path / "bare.tif")
    plain, recipe = SegmentConfig(), model.recipe
    assert scale_is_open(sized, recipe, plain)  # the model does not know its own
    knowing = recipe.model_copy(update={"voxel_size": (0.5, 0.5)})
    assert not scale_is_open(sized, knowing, plain)
    assert scale_is_open(bare, knowing, plain)
    assert not scale_is_open(bare, knowing, SegmentConfig(voxel_size=(1, 1)))
    assert not scale_is_open(bare, recipe, SegmentConfig(zoom=1))
    assert not scale_is_open(bare, recipe, SegmentConfig(rescale=False))
    for missing in ("object_size", "background"):
        assert not scale_is_open(bare, recipe.model_copy(update={missing: None}), plain)
