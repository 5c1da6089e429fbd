"""Pictures in colour and models of one channel: the colour with clear objects is shown to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawn_nuclei import nuclei
from PIL import Image
from scipy import ndimage

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.metrics import score
from spoco_zoo.nets.model import Model
from spoco_zoo.segment import dry_run, embed_part, segment
from spoco_zoo.segment.ledger import Ledger
from spoco_zoo.segment.network.models import read_model
from spoco_zoo.segment.scale.colours import choose_colour, likeness

RED, GREEN, BLUE = range(3)


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model("nuclei-fluo-2d")


def fibres(shape: tuple[int, int]) -> np.ndarray:
    """Bright lines that cross, as of a cytoskeleton."""
    rng, image = np.random.default_rng(1), np.zeros(shape)
    for _ in range(60):
        (y, x), turn = rng.uniform(0, shape), rng.uniform(0, np.pi)
        steps = np.arange(80)
        rows, columns = (
            (y + steps * np.sin(turn)).astype(int),
            (x + steps * np.cos(turn)).astype(int),
        )
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        image[rows[inside], columns[inside]] = 1
    image = ndimage.gaussian_filter(image, 1.0)
    return (image / image.max() * 250).astype(np.uint8)


def texture(shape: tuple[int, int]) -> np.ndarray:
    """A stain without objects."""
    image = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal(shape), 4)
    image -= image.min()
    return (image / image.max() * 250).astype(np.uint8)


def merge(path: Path, **colours: np.ndarray) -> Path:
    """A picture of which some colours hold something."""
    even = np.zeros((256, 256), np.uint8)
    rgb = np.stack([colours.get(name, even) for name in ("red", "green", "blue")], axis=-1)
    tifffile.imwrite(path, rgb, photometric="rgb")
    return path


@pytest.mark.parametrize("other", [fibres, texture])
@pytest.mark.parametrize(
    ("mine", "theirs"), [("blue", "green"), ("red", "green"), ("green", "red")]
)
def test_a_brighter_stain_hid_the_nuclei(
    other, mine: str, theirs: str, model: Model, tmp_path: Path
) -> None:
    """AP@0.5 was 0.07: the colour with most contrast was segmented, whatever it showed."""
    dim, truth = nuclei((256, 256), 20)
    bright = other((256, 256))
    assert bright.std() > (dim // 2).std()
    image = merge(tmp_path / "a.tif", **{mine: dim // 2, theirs: bright})
    result = segment(image, model, output=tmp_path / "labels.tif")
    assert f"{mine}, in which it finds clear objects" in result.summary["plan"]["notes"]
    assert score(tifffile.imread(result.output).astype(np.int32), truth).ap50 > 0.85


def test_nuclei_are_blue_where_another_stain_shows_objects_too(
    model: Model, tmp_path: Path
) -> None:
    dim, truth = nuclei((256, 256), 20)
    cells = ndimage.gaussian_filter(ndimage.grey_dilation(truth, 13) > 0, 2.0) * 220.0
    image = merge(tmp_path / "a.tif", blue=dim // 2, green=cells.astype(np.uint8))
    assert dry_run(image, model).channels == (BLUE,)
    # A tinted picture shows the same in all colours: the one with most contrast is best.
    image = merge(tmp_path / "b.tif", red=dim // 2, green=dim, blue=dim // 3)
    assert dry_run(image, model).channels == (GREEN,)


def test_a_jpeg_is_a_picture_too(model: Model, tmp_path: Path) -> None:
    dim, _ = nuclei((256, 256), 20)
    rgb = np.stack([texture(dim.shape), dim * 0, dim // 2], axis=-1)
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=90)
    assert dry_run(tmp_path / "a.jpg", model).channels == (BLUE,)


def test_what_the_user_asks_for_or_a_run_began_with_is_used(model: Model, tmp_path: Path) -> None:
    dim, _ = nuclei((256, 256), 20)
    image = merge(tmp_path / "a.tif", blue=dim, green=fibres(dim.shape))
    plan = dry_run(image, model)
    assert (plan.channels, plan.config.channel) == ((BLUE,), BLUE)
    asked = dry_run(image, model, SegmentConfig(channel=GREEN))
    assert asked.channels == (GREEN,)
    assert not any("colour" in note for note in asked.notes)
    asked.folder.mkdir()
    with Ledger(asked.folder, asked.fingerprint("model", "cluster")):
        pass
    assert dry_run(image, model).channels == (GREEN,)
    assert dry_run(image, model, overwrite=True).channels == (BLUE,)
    assert embed_part(image, model).image.channel_names == ngff.open_image(image).channel_names


def test_where_nothing_is_clear_contrast_decides(model: Model, tmp_path: Path) -> None:
    image = merge(tmp_path / "a.tif", red=fibres((256, 256)) // 4)
    plan = dry_run(image, model)
    assert plan.channels == (RED,)
    even = merge(tmp_path / "b.tif")
    assert dry_run(even, model).channels == (RED,)


def test_a_picture_with_a_blank_middle_is_not_grey(model: Model, tmp_path: Path) -> None:
    """Its middle alone was looked at, whatever the region."""
    dim, truth = nuclei((256, 256), 20)
    rgb = np.zeros((1600, 1600, 3), np.uint8)
    rgb[:256, :256, BLUE] = dim
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    there = SegmentConfig(roi=((0, 256), (0, 256)))
    result = segment(tmp_path / "a.tif", model, there, output=tmp_path / "l.tif")
    assert score(tifffile.imread(result.output).astype(np.int32), truth).ap50 > 0.85
    assert dry_run(tmp_path / "a.tif", model).channels == (BLUE,)


def test_cells_hid_small_nuclei_and_light_that_bleeds_through() -> None:
    """AP@0.5 was 0.01 and below: green had more contrast, and was clearer, or like blue."""
    assert choose_colour([0.0, 58.0, 23.0], [0.0, 0.98, 0.84], [0.0, 0.58, 1.0]) == BLUE
    assert choose_colour([33.0, 63.0, 40.0], [0.34, 1.0, 0.97], [0.08, 0.9, 1.0]) == BLUE
    # Small nuclei in red, beside texture in blue.
    assert choose_colour([14.0, 0.0, 25.0], [0.85, 0.0, 0.61], [0.01, 0.0, 1.0]) == RED


def test_likeness_of_even_colours_is_none() -> None:
    ramp = np.arange(12.0).reshape(1, 3, 4)
    assert likeness(np.concatenate([ramp * 0, -ramp, ramp])) == pytest.approx([0, -1, 1])
    assert likeness(np.concatenate([ramp, ramp, ramp * 0])) == [0, 0, 0]
    assert likeness(np.concatenate([ramp, ramp])) == [0, 0]
