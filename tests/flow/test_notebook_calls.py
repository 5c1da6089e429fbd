"""Calls from a notebook or script leave alone what is its own, and speak its language."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import xarray as xr

import spoco_zoo
from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.errors import InputError

MODEL = "nuclei-fluo-2d-sparse"
SMALL = {"iterations": 2, "features": (8, 16), "batch_size": 1, "crop": (32, 32)}


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """An image and its labels."""
    image, labels = crowded_cells((96, 96), seed=1, diameter=20)
    tifffile.imwrite(tmp_path / "image.tif", image)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    return tmp_path


def test_random_numbers_stay_those_of_the_notebook(cells: Path) -> None:
    files = cells / "image.tif", cells / "labels.tif"
    torch.manual_seed(7)
    state = torch.get_rng_state()
    spoco_zoo.segment(files[0], MODEL, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    spoco_zoo.train(*files, cells / "run", progress=False, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    spoco_zoo.export(
        cells / "run", cells / "b.zip", name="Cells", authors="A", formats="pytorch_state_dict"
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_of_an_array_are_those_of_its_file(cells: Path) -> None:
    image = tifffile.imread(cells / "image.tif")
    spoco_zoo.segment(cells / "image.tif", MODEL, progress=False, output=cells / "o.tif")
    expected = tifffile.imread(cells / "o.tif")
    assert expected.max() > 3

    def labels(array: object, **asked: object) -> np.ndarray:
        return spoco_zoo.segment_array(array, MODEL, progress=False, **asked)

    wide = np.zeros((192, 192), image.dtype)
    wide[::2, ::2] = image
    locked = np.asfortranarray(image)
    locked.flags.writeable = False
    for same in (image, locked, wide[::2, ::2], image.astype(">i8"), image.astype(np.longdouble)):
        found = labels(same)
        assert found.dtype.kind == "u"
        np.testing.assert_array_equal(found, expected)
    named = xr.DataArray(image, dims=("y", "x")).T
    np.testing.assert_array_equal(labels(named), expected.T)
    colours = np.stack([np.zeros_like(image), image], -1)
    np.testing.assert_array_equal(labels(colours, axes="yxc", channel=1), expected)
    film = np.stack([image[:1], image[:1]])
    assert labels(film, axes="tyx").shape == film.shape
    assert labels(image[None], axes="zyx").shape == (1, 96, 96)
    part = labels(image, roi=((10, 60), (20, 90)))
    assert part.shape == (50, 70)
    assert labels(image > image.mean()).shape == image.shape


@pytest.mark.parametrize(
    ("array", "axes", "said"),
    [
        (np.zeros((3, 9, 9)), None, 'As in axes="zyx"'),
        (np.zeros((3, 9, 9)), "yx", "'yx' for an array of shape (3, 9, 9)"),
        (np.zeros((9, 9)), "xz", "y and x among them"),
        (np.zeros((9, 9)), 2, "y and x among them"),
        (np.zeros((9, 0)), None, "an image must have voxels"),
        (np.zeros((9, 9), complex), None, "of type complex128"),
        (np.full((9, 9), "a"), None, "an image must hold real numbers"),
        ("image.tif", None, "Files go to `spoco_zoo.segment`"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, axes, said) -> None:
    with pytest.raises(InputError) as caught:
        spoco_zoo.segment_array(array, MODEL, axes=axes, progress=False)
    assert said in str(caught.value)


@pytest.mark.slow
def test_workers_leave_no_environment_behind(cells: Path) -> None:
    before = dict(os.environ)
    spoco_zoo.segment(cells / "image.tif", MODEL, progress=False, workers=1, block=(64, 64))
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f: spoco_zoo.segment(np.zeros((9, 9)), MODEL), "found an array of shape (9, 9)"),
        (lambda f: spoco_zoo.segment([f], MODEL), "image must be a path; found a list"),
        (lambda f: spoco_zoo.segment(f, None), "by its path or id; found None"),
        (lambda f: spoco_zoo.segment(f, MODEL, chanel=0), "Is channel meant?"),
        (lambda f: spoco_zoo.segment(f, MODEL, method="meanshift"), "clustering={'method': ...}"),
        (lambda f: spoco_zoo.segment(f, MODEL, clustering={"bandwith": 1}), "Is bandwidth meant?"),
        (lambda f: spoco_zoo.segment(f, MODEL, bandwith=1), r"as an entry of clustering: cluster"),
        (lambda f: spoco_zoo.segment(f, MODEL, workers="2"), "workers must be a whole number"),
        (lambda f: spoco_zoo.segment(f, MODEL, device=None), "Use device='cpu'"),
        (lambda f: spoco_zoo.segment(f, MODEL, label_name=None), "another with label_name."),
        (lambda f: spoco_zoo.segment(f, MODEL, voxel_size=(1, 2, 3)), "voxel_size=(0.2, 0.2)"),
        (lambda f: spoco_zoo.segment(f, MODEL, output=f), "Choose another output."),
        (
            lambda f: spoco_zoo.segment(f, MODEL, output=f.with_name("labels.tif")),
            "Choose another output, or add overwrite=True.",
        ),
        (lambda f: spoco_zoo.train(None, f, f), "images must be a path; found None"),
        (lambda f: spoco_zoo.train(f, f, f.parent, epochs=3), "setting 'epochs'"),
        (
            lambda f: spoco_zoo.train(f, f.with_name("labels.tif"), "r", resume=True, **SMALL),
            "Start the run without resume=True.",
        ),
        (lambda f: spoco_zoo.train(f, f, "r", init=f, **SMALL), "a bundle must be"),
        (lambda f: spoco_zoo.export(f, "b", name="Cells", authors="A", licence=1), "'licence'"),
        (lambda f: spoco_zoo.export(f, "b", name="Cells", authors=[{}]), "found a dict"),
        (lambda f: spoco_zoo.export(f, "b", name=None, authors="A"), "name must be text"),
        (lambda f: spoco_zoo.evaluate(f, np.zeros((9, 9))), "truth must be a path"),
        (lambda f: spoco_zoo.measure(np.zeros((9, 9)), f), "found an array of shape (9, 9)"),
        (lambda f: spoco_zoo.open_labels(None), "by its path; found None"),
    ],
)
def test_errors_name_keywords(cells, monkeypatch, call, said) -> None:
    monkeypatch.chdir(cells)
    with pytest.raises(InputError) as caught:
        call(cells / "image.tif")
    assert said in str(caught.value)
    assert "--" not in str(caught.value)
    assert (caught.value.rule, caught.value.found, caught.value.remedy) == caught.value.args
    assert {path.name for path in cells.iterdir()} == {"image.tif", "labels.tif"}


def test_a_result_is_no_path_but_has_one(cells: Path) -> None:
    result = spoco_zoo.segment(cells / "image.tif", MODEL, progress=False)
    with pytest.raises(InputError, match="found a SegmentResult"):
        spoco_zoo.evaluate(result, cells / "labels.tif")


def test_notes_name_keywords(cells: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image, _ = crowded_cells((256, 256), seed=1, diameter=70)
    tifffile.imwrite(cells / "large.tif", image)
    spoco_zoo.segment(cells / "large.tif", "nuclei-fluo-2d")
    said = capfd.readouterr()
    assert "zoom=1 takes it as it is" in said.err
    assert "blocks 1/1" in said.err
    assert "--" not in said.err
    assert said.out == ""
