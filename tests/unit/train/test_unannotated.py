"""Labels that lack objects, or lie turned on their image, are told of, and no others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.train.data import BACKGROUND, Sample, make_sample
from spoco_zoo.train.misread import TURNS, remark_turned
from spoco_zoo.train.unannotated import count_alike, remark_unannotated


def nuclei(ndim: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Bright blobs of many sizes, blurred and noisy, and all of their labels."""
    rng = np.random.default_rng(seed)
    shape = (200, 220) if ndim == 2 else (30, 70, 80)
    points = np.zeros(shape)
    points.ravel()[rng.choice(points.size, 90, replace=False)] = rng.uniform(0.5, 2, 90)
    blobs = ndimage.gaussian_filter(points, 5 if ndim == 2 else 3)
    labels = measure.label(blobs > 0.3 * blobs.max())
    image = ndimage.gaussian_filter((labels > 0) * 200.0, 1) + rng.normal(50, 20, shape)
    return image.astype(np.float32), labels.astype(np.int32)


def sample(image: NDArray[np.float32], labels: NDArray[np.int32]) -> Sample:
    return make_sample("a", image[None], np.where(labels > 0, labels, BACKGROUND).astype(np.int32))


def some_of(labels: NDArray[np.int32], every: int) -> NDArray[np.int32]:
    kept = (labels % every == 1 % every) & (labels > 0)
    return np.where(kept, labels // every + 1, 0).astype(np.int32)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_objects_that_nobody_annotated_are_counted(ndim: int, sign: int) -> None:
    image, labels = nuclei(ndim)
    count = labels.max()
    assert count >= 15
    assert count_alike(sample(sign * image, labels)) == (0, count)
    few = sample(sign * image, some_of(labels, 4))
    alike, annotated = count_alike(few)
    assert annotated == -(-count // 4)
    assert 0.5 * (count - annotated) <= alike <= count - annotated
    said = remark_unannotated([few, few])
    assert f"{2 * alike} regions" in said
    assert f"the {2 * annotated} annotated objects" in said
    assert remark_unannotated([sample(sign * image, labels)]) == ""


def test_noise_textures_and_tissue_are_not_taken_for_objects() -> None:
    image, labels = nuclei(2)
    noise = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    assert remark_unannotated([sample(noise, some_of(labels, 2))]) == ""
    tissue, cells = crowded_cells((32, 64, 64), seed=3)
    assert remark_unannotated([sample(tissue.astype(np.float32), cells.astype(np.int32))]) == ""
    everywhere = np.ones_like(labels)
    assert count_alike(sample(image, everywhere)) == (0, 1)
    assert count_alike(sample(image, 0 * labels)) == (0, 0)
    for seed in range(9):
        texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=labels.shape), 4)
        assert remark_turned([sample(texture.astype(np.float32), labels)]) == ""
    assert remark_turned([sample(image, 0 * labels), sample(image, everywhere)]) == ""


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("ndim", [2, 3])
def test_turned_labels_are_told_of(ndim: int, every: int) -> None:
    drawn = [nuclei(ndim, seed) for seed in range(4)]
    side = 200 if ndim == 2 else 70
    for name, turn in TURNS.items():
        # Square, so that rows and columns can be taken for each other.
        square = [(i[..., :side, :side], some_of(a, every)[..., :side, :side]) for i, a in drawn]
        assert remark_turned([sample(i, a) for i, a in square]) == ""
        said = remark_turned([sample(i, turn(a)) for i, a in square])
        assert f"labels lie better on their images {name}" in said
    assert remark_turned([sample(i, some_of(a, every)) for i, a in drawn]) == ""


@pytest.mark.parametrize(("annotation", "told"), [("dense", True), ("sparse", False)])
def test_the_command_asks_for_the_flag(tmp_path: Path, annotation: str, told: bool) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for seed in range(3):
        image, labels = nuclei(2, seed)
        tifffile.imwrite(tmp_path / "images" / f"{seed}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"{seed}.tif", some_of(labels, 3).astype(np.uint8))
    (tmp_path / "small.yaml").write_text("features: [4, 8]\ncrop: [32, 32]\n")
    command = ["train", "--images", tmp_path / "images", "--labels", tmp_path / "labels"]
    command += ["--annotation", annotation, "--iterations", 1, "--out", tmp_path / "run"]
    done = CliRunner().invoke(app, [*map(str, command), "--config", str(tmp_path / "small.yaml")])
    assert done.exit_code == 0, done.output
    assert ("--annotation sparse" in " ".join(done.output.split())) == told
