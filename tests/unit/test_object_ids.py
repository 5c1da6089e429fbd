"""Grey values in the place of labels are refused, and labels of every kind are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import draw, measure, segmentation
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.errors import DataError
from spoco_zoo.object_ids import check_ids


def smooth(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return noise / noise.std()


def objects(shape: tuple[int, ...], level: float = 0.5) -> NDArray[np.int64]:
    return np.asarray(measure.label(smooth(shape) > level, connectivity=1))


@pytest.mark.parametrize("shape", [(90, 100), (12, 60, 50)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
@pytest.mark.parametrize("deviation", [0.0, 8.0])
def test_images_are_refused(shape: tuple[int, ...], dtype: Any, deviation: float) -> None:
    noise = np.random.default_rng(1).normal(0, 1, shape)
    image = np.clip(90 + 30 * smooth(shape) + deviation * noise, 0, 255).astype(dtype)
    with pytest.raises(DataError, match=r"one number per object; found \d+ numbers .* in a.tif"):
        check_ids(image, "a.tif")
    assert not check_ids(np.zeros_like(image), "a.tif")


@given(st.integers(0, 99), st.sampled_from([2, 5, 11]), st.sampled_from([np.uint16, np.int32]))
def test_labels_are_taken(seed: int, pieces: int, dtype: Any) -> None:
    labels = objects((80, 90))
    assert check_ids(labels.astype(dtype), "a.tif")
    rng = np.random.default_rng(seed)
    # Objects in several pieces, and single pixels.
    few = (labels // pieces + (labels > 0)).astype(dtype)
    assert check_ids(few, "a.tif") == (len(np.unique(few)) > 24)
    points = np.zeros((80, 90), dtype)
    where = rng.choice(points.size, 400, replace=False)
    points.ravel()[where] = rng.permutation(400) + 1
    assert check_ids(points, "a.tif")
    # Classes, of which there are few.
    assert not check_ids((labels % 7).astype(dtype), "a.tif")


def thin(kind: str) -> NDArray[np.int64]:
    """Labels in many pieces, none of which lies close to one of another number."""
    rng = np.random.default_rng(0)
    labels = objects((400, 400))
    if kind == "outlines":
        return labels * segmentation.find_boundaries(labels, mode="inner")
    if kind == "lines":
        found = np.zeros_like(labels)
        for number in range(1, 41):
            found[draw.line(*rng.integers(0, 400, 4))] = number
        return found
    if kind == "dots on the background":
        dots = np.where(labels > 30, 0, labels)
        dots[(rng.random(labels.shape) < 0.003) & (dots == 0)] = 65535
        return dots
    cells = np.kron(np.arange(1, 37).reshape(6, 6), np.ones((70, 70), np.int64))[:400, :400]
    if kind == "organelles by cell":
        return cells * (ndimage.gaussian_filter(rng.normal(size=cells.shape), 1.5) > 0.1)
    return cells * (rng.random(cells.shape) < (0.001 if kind == "few spots by cell" else 0.02))


@pytest.mark.parametrize(
    "kind",
    [
        "outlines",
        "lines",
        "dots on the background",
        "organelles by cell",
        "few spots by cell",
        "many spots by cell",
    ],
)
def test_pieces_that_lie_apart_are_no_grey_values(kind: str) -> None:
    assert check_ids(thin(kind), "a.tif")
    check_ids(np.repeat(thin(kind)[None, :150, :150], 3, 0), "a.tif")


def test_the_middle_of_a_large_image_tells() -> None:
    image = np.zeros((3000, 2000), np.uint8)
    image[1000:2000, 600:1400] = 90 + 30 * smooth((1000, 800))
    with pytest.raises(DataError, match="grey values"):
        check_ids(image, "a.tif")


@pytest.mark.parametrize("verb", ["train", "evaluate", "truth", "measure", "outlines"])
def test_swapped_paths_are_told_of(tmp_path: Path, verb: str) -> None:
    image, labels = tmp_path / "image.tif", tmp_path / "labels.tif"
    noise = np.random.default_rng(1).normal(0, 3, (90, 100))
    tifffile.imwrite(image, np.clip(90 + 30 * smooth((90, 100)) + noise, 0, 255).astype(np.uint8))
    tifffile.imwrite(labels, objects((90, 100)).astype(np.uint16))
    out = str(tmp_path / "out.zip")
    command = {
        "train": ["train", "--images", labels, "--labels", image, "--out", out],
        "evaluate": ["evaluate", image, labels],
        "truth": ["evaluate", labels, image],
        "measure": ["measure", image, labels, "--out", tmp_path / "a.csv"],
        "outlines": ["outlines", image, "--out", out],
    }[verb]
    done = CliRunner().invoke(app, [str(part) for part in command])
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert "labels must be one number per object" in said
    assert "image.tif" in said
    assert not Path(out).exists()
