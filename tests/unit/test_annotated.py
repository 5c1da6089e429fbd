"""Annotated images as `complete` and `tune` show them to a model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parent / "bundle"))
from bundle_runs import disks, make_run, trained_run

from spoco_zoo.annotated import Annotated, at_shape, load_annotated
from spoco_zoo.complete import complete_annotation
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.nets.model import load_run
from spoco_zoo.train.files import pair_files
from spoco_zoo.tuning import tune_model
from spoco_zoo.tuning_result import TuneResult


def write_pair(folder: Path, image: np.ndarray, labels: np.ndarray, size: float | None) -> Path:
    """A folder with ``images/a.tif``, which states its voxel size, and ``labels/a.tif``."""
    stated = {} if size is None else {"resolution": (1 / size, 1 / size)}
    axes = {"axes": "ZYX"[-image.ndim :], **({"unit": "um"} if size else {})}
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    tifffile.imwrite(folder / "images" / "a.tif", image, imagej=True, metadata=axes, **stated)
    tifffile.imwrite(folder / "labels" / "a.tif", labels.astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 0.5 um, and an image of that size, twice as fine, and as fine without saying so."""
    folder = tmp_path_factory.mktemp("annotated")
    make_run(folder / "run", 2)
    image, labels = disks(2)
    fine, fine_labels = (a.repeat(2, axis=0).repeat(2, axis=1) for a in (image[0], labels))
    write_pair(folder / "same", image[0], labels, 0.5)
    write_pair(folder / "fine", fine, fine_labels, 0.25)
    write_pair(folder / "silent", fine, fine_labels, None)
    return folder


def tuned(data: Path, name: str, tmp_path: Path, **flags: object) -> TuneResult:
    places = (data / name / "images", data / name / "labels")
    flags |= {"out": tmp_path / name, "methods": ["instance"], "store": False}
    return tune_model(str(data / "run"), *places, **flags)


def tried(result: TuneResult) -> list[int]:
    """How many objects every setting gave."""
    return [scores.n_predicted for _, scores in result.best.tuning.tried]


def test_tune_ignored_the_voxel_size_of_the_images(data: Path, tmp_path: Path) -> None:
    same, fine = tuned(data, "same", tmp_path), tuned(data, "fine", tmp_path)
    assert tried(fine) == tried(same)
    assert same.warnings == ()
    assert "a.tif: The image has 0.25 x 0.25 um a voxel" in fine.warnings[0]
    silent = tuned(data, "silent", tmp_path)
    assert tried(silent) != tried(same)
    assert silent.warnings == ()
    assert tried(tuned(data, "silent", tmp_path, voxel_size=(0.25, 0.25))) == tried(same)
    plain = tuned(data, "fine", tmp_path, rescale=False)
    assert tried(plain) == tried(silent)
    assert "Not rescaled, as asked" in plain.warnings[0]


def test_complete_ignored_the_voxel_size_of_the_images(data: Path, tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", voxel_size=(0.5, 0.5))
    said: list[str] = []
    results = {}
    for name in ("same", "fine"):
        places = (data / name / "images", data / name / "labels", tmp_path / name)
        results[name] = complete_annotation(run, *places, background_label=255, say=said.append)
        assert shape_of(tmp_path / name) == shape_of(data / name / "images")
    assert results["fine"].found == results["same"].found >= 10
    assert len(said) == 1
    assert "resampled for the network by a factor of 1/2" in said[0]


def shape_of(folder: Path) -> tuple[int, ...]:
    return tifffile.imread(folder / "a.tif").shape


def test_exactly_1_um_is_doubted_as_segment_does(data: Path, tmp_path: Path) -> None:
    image, labels = disks(2)
    places = write_pair(tmp_path / "data", image[0], labels, 1.0)
    recipe = load_run(data / "run").recipe
    pairs = pair_files(places / "images", places / "labels")
    notes = load_annotated(pairs, TrainConfig(ndim=2), recipe)[1]
    assert "programs write that do not know the size" in notes[0]


def test_the_network_sees_images_at_its_own_voxel_size(data: Path) -> None:
    recipe = load_run(data / "run").recipe

    def load(name: str) -> Annotated:
        pairs = pair_files(data / name / "images", data / name / "labels")
        return load_annotated(pairs, TrainConfig(ndim=2), recipe)[0][0]

    fine, same = load("fine"), load("same")
    assert same.seen is same.sample
    assert np.array_equal(fine.seen.labels, same.sample.labels)
    assert np.allclose(fine.seen.image, same.sample.image, atol=1e-5)
    assert np.array_equal(at_shape(fine.seen.labels, fine.sample.labels.shape), fine.sample.labels)


def test_a_size_of_too_few_axes_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one entry per spatial axis y,x"):
        tuned(data, "same", tmp_path, voxel_size=(0.5,))


@pytest.mark.parametrize("ndim", [2, 3])
def test_images_of_other_axes_than_the_models_asked_for_an_option_that_is_not_there(
    ndim: int, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ndim)
    image, labels = disks(5 - ndim)
    places = write_pair(tmp_path / "data", image[0], labels, None)
    for work in (
        lambda: tune_model(str(run), places / "images", places / "labels", out=tmp_path / "tuned"),
        lambda: complete_annotation(
            run, places / "images", places / "labels", tmp_path / "more", background_label=255
        ),
    ):
        text = f"This model is {ndim}D: take a {5 - ndim}D one"
        with pytest.raises(DataError, match=text) as caught:
            work()
        assert "--ndim" not in str(caught.value)
