"""Training data that are not meant to be what they are: said once, before the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.config import TrainConfig
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.train.data import Sample, Split, load_samples, make_sample
from spoco_zoo.train.files import Pair, pair_files
from spoco_zoo.train.misread import remark_masks
from spoco_zoo.train.remarks import (
    remark_crop,
    remark_few,
    remark_large,
    remark_twins,
    stated_voxel_size,
)
from spoco_zoo.train.setup import fitting_crop, resolve

SMALL = {"features": [4, 8], "embedding_dim": 4, "crop": [16, 16], "precision": "float32"}


def drawn(shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Four objects, numbered."""
    labels = np.zeros(shape, np.uint8)
    for number, (y, x) in enumerate(((2, 2), (2, 20), (18, 2), (18, 20)), start=1):
        labels[y : y + 9, x : x + 8] = number
    return labels


def folder_of(folder: Path, labels: np.ndarray, **options: object) -> Path:
    rng = np.random.default_rng(0)
    for n in range(3):
        image = (labels > 0) * 60.0 + rng.integers(0, 20, labels.shape)
        for what, values in (("images", image.astype(np.float32)), ("labels", labels)):
            (folder / what).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / what / f"{n}.tif", values, **options)
    return folder


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((drawn() > 0).astype(np.uint8) * 255, True),
        (drawn() > 0, True),
        (drawn(), False),
        (np.where(drawn() == 1, 255, 0).astype(np.uint8), False),
        (np.where(drawn() < 3, drawn(), 0), False),
    ],
    ids=["mask", "bool", "numbered", "one object", "two objects"],
)
def test_masks_were_trained_on_as_one_object_without_a_word(
    tmp_path: Path, labels: np.ndarray, said: bool
) -> None:
    data = folder_of(tmp_path, labels)
    samples = load_samples(pair_files(data / "images", data / "labels"), TrainConfig())
    assert ("12 separate pieces in 3 images" in remark_masks(samples)) is said
    assert bool(remark_masks(samples)) is said


@pytest.mark.parametrize(
    ("strokes", "known", "said"),
    [(True, (), True), (True, ("--background-label", "255"), False), (False, (), False)],
)
def test_strokes_over_the_background_were_an_object_without_a_word(
    tmp_path: Path, strokes: bool, known: tuple[str, ...], said: bool
) -> None:
    labels = drawn((48, 48))
    if strokes:
        labels[14:16, 2:40], labels[30:32, 2:40], labels[40:42, 2:40] = 255, 255, 255
    told = train(folder_of(tmp_path, labels), "--annotation", "sparse", *known)
    assert ("in 3 of 3 images one label lies in 3 pieces or more" in told) is said
    assert ("Warning" in told) is said


@pytest.mark.parametrize(
    ("annotation", "taught"),
    [
        ("dense", "all others are trained on as background"),
        ("sparse", "above and below is trained on as no part of the objects"),
    ],
)
@pytest.mark.parametrize("thick", [1, 2])
def test_planes_that_nobody_annotated_were_background_without_a_word(
    tmp_path: Path, thick: int, annotation: str, taught: str
) -> None:
    """Nor does sparse annotation help: it taught objects of one plane."""
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[3 : 3 + thick] = drawn()
    told = train(
        folder_of(tmp_path, labels, metadata={"axes": "ZYX"}),
        "--ndim", "3", "--crop", "8,16,16", "--annotation", annotation,
    )  # fmt: skip
    assert ("one plane thick, and only 3 of 24 planes hold any: " in told) is (thick == 1)
    assert (taught in told) is (thick == 1)


def train(data: Path, *options: str) -> str:
    """What a run of one step says, once it is over."""
    import yaml

    (data / "small.yaml").write_text(yaml.safe_dump({**SMALL, "iterations": 1, "batch_size": 2}))
    folders = ["--images", str(data / "images"), "--labels", str(data / "labels")]
    command = ["train", *folders, "--out", str(data / "run"), "--config", str(data / "small.yaml")]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    return done.stderr


@pytest.mark.parametrize(("edge", "said"), [(24, True), (96, False), (128, False)])
def test_one_small_image_shrank_the_crops_of_all_without_a_word(
    tmp_path: Path, edge: int, said: bool
) -> None:
    data = folder_of(tmp_path, drawn((128, 128)))
    for what in ("images", "labels"):
        path = data / what / "2.tif"
        tifffile.imwrite(path, tifffile.imread(path)[:edge, :edge])
    samples = load_samples(pair_files(data / "images", data / "labels"), TrainConfig())
    setup = resolve(TrainConfig(), samples, torch.device("cpu"))
    crop, factor = setup.crop, pooling_factor(setup.net)
    text = remark_crop(samples, crop, factor)
    assert ("crops of 24 x 24 only, because the smallest image, 2, has 24 x 24" in text) is said
    assert ("leave out images below 128 x 128" in text) is said
    assert bool(text) is said
    assert not remark_crop(samples[2:], crop, factor)  # no other is larger


@pytest.mark.parametrize(
    ("depths", "factor", "said"),
    [
        ((12, 12, 12), (8, 8, 8), False),  # of one size, which is no multiple of the factor
        ((8, 12, 12), (8, 8, 8), False),  # 12 planes would give crops of 8, too
        ((12, 30, 30), (8, 8, 8), True),
        ((12, 12, 12), (1, 8, 8), False),
    ],
)
def test_thin_stacks_of_one_size_were_said_to_be_smaller_than_most(
    depths: tuple[int, ...], factor: tuple[int, int, int], said: bool
) -> None:
    labels = [np.ones((depth, 64, 64), np.int32) for depth in depths]
    samples = [
        make_sample(str(n), np.indices(ids.shape)[:1].astype(np.float32), ids)
        for n, ids in enumerate(labels)
    ]
    text = remark_crop(samples, fitting_crop((min(depths), 64, 64), factor), factor)
    assert bool(text) is said
    if said:
        assert "crops of 8 x 64 x 64 only, because the smallest image, 0, has 12 x 64" in text
        assert "leave out images below 24 x 64 x 64" in text


def test_validation_images_that_are_trained_on_are_told_of(tmp_path: Path) -> None:
    data = folder_of(tmp_path, drawn())
    also = ["--val-images", str(data / "images"), "--val-labels", str(data / "labels")]
    assert "3 of 3 images set apart have the very pixels" in train(data, *also)


def test_a_background_label_that_is_nowhere_is_told_of(tmp_path: Path) -> None:
    strokes = drawn()
    strokes[14:16, ::4] = strokes[14:16, 1::4] = 254  # strokes, in pieces
    data = folder_of(tmp_path, strokes)
    said = train(data, "--annotation", "sparse", "--background-label", "255")
    assert "no label file holds 255, which --background-label says is background" in said
    shutil.rmtree(data / "run")
    said = train(data, "--annotation", "sparse", "--background-label", "254")
    assert "no label file" not in said


def test_what_is_said_of_training_data_is_in_the_report(tmp_path: Path) -> None:
    data = folder_of(tmp_path, (drawn() > 0).astype(np.uint8) * 255)
    assert train(data).count("one value for all objects") == 1
    assert "one value for all objects" in (data / "run/report.html").read_text()


def calibrated(folder: Path, *sizes: float | None, spacing: float | None = None) -> list[Pair]:
    """ImageJ TIFFs (a stack, if there is a spacing) of the given sizes in um."""
    shape = (16, 16) if spacing is None else (4, 16, 16)
    folder.mkdir(exist_ok=True)
    pairs = []
    for n, size in enumerate(sizes):
        options = {} if size is None else {"resolution": (1 / size, 1 / size)}
        header = {} if size is None else {"unit": "um", "axes": "YX" if spacing is None else "ZYX"}
        if spacing:
            header["spacing"] = spacing
        path = folder / f"{n}.tif"
        tifffile.imwrite(path, np.zeros(shape, np.uint8), imagej=True, metadata=header, **options)
        pairs.append(Pair(str(n), path, path))
    return pairs


@pytest.mark.parametrize(
    ("sizes", "expected", "said"),
    [
        ((0.2, 0.2, 0.2), (0.2, 0.2), "0.2 x 0.2 um, as the training images state"),
        ((0.2, 0.2, 0.205), (0.2, 0.2), "0.2 x 0.2 um"),
        ((0.2, 0.2, 0.3), None, "different voxel sizes, 0.2 x 0.2 to 0.3 x 0.3 um"),
        ((0.2, None, 0.2), None, "2 of 3 training images"),
        ((1.0, 1.0), None, "1 um along every axis"),
        ((None, None), None, ""),
    ],
)
def test_the_voxel_size_in_training_files_was_ignored(tmp_path, sizes, expected, said) -> None:
    size, note = stated_voxel_size(calibrated(tmp_path, *sizes), 2)
    assert size == (None if expected is None else pytest.approx(expected))
    assert said in note
    assert bool(said) == bool(note)


def test_training_stacks_without_z_spacing_are_noted(tmp_path: Path) -> None:
    size, note = stated_voxel_size(calibrated(tmp_path, 0.2, 0.2, spacing=0.5), 3)
    assert size == pytest.approx((0.5, 0.2, 0.2))
    flat = {"axes": "ZYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    stack = tmp_path / "0.ome.tif"
    tifffile.imwrite(
        stack, np.zeros((4, 16, 16), np.uint8), photometric="minisblack", metadata=flat
    )
    size, note = stated_voxel_size([Pair("0", stack, stack)], 3)
    assert size is None
    assert "but no z" in note


@pytest.mark.parametrize(
    ("stated", "given", "said"),
    [
        (None, None, ["No training image states a voxel size: 0.2 x 0.2 um is taken"]),
        (0.25, None, ["0.25 x 0.25 um, as the training images state"]),
        (0.25, "0.2,0.05", ["have 0.2 x 0.05 um a voxel", "was trained at 0.2 x 0.2 um"]),
        (None, "0.4,0.4", ["have 0.4 x 0.4 um a voxel", "was trained at 0.2 x 0.2 um"]),
    ],
)
def test_the_scale_of_a_model_to_start_from_was_lost_or_another_one_without_a_word(
    tmp_path: Path, stated: float | None, given: str | None, said: list[str]
) -> None:
    options = {} if stated is None else {"resolution": (1 / stated,) * 2}
    header = {"axes": "YX"} if stated is None else {"axes": "YX", "unit": "um"}
    train(folder_of(tmp_path / "first", drawn()), "--voxel-size", "0.2,0.2")
    data = folder_of(tmp_path / "then", drawn(), imagej=True, metadata=header, **options)
    told = train(
        data, "--init", str(tmp_path / "first/run"), *(("--voxel-size", given) if given else ())
    )
    assert all(text in told for text in said)
    assert ("Warning" in told) is (given is not None)
    size = json.loads((data / "run/model.json").read_text())["voxel_size"]
    assert size == ([float(v) for v in given.split(",")] if given else [stated or 0.2] * 2)


def test_a_run_takes_the_voxel_size_of_its_images_and_goes_on_with_it(tmp_path: Path) -> None:
    metadata = {"unit": "um", "axes": "YX"}
    data = folder_of(tmp_path, drawn(), imagej=True, resolution=(5, 5), metadata=metadata)
    assert train(data).count("0.2 x 0.2 um") == 1
    assert json.loads((data / "run/model.json").read_text())["voxel_size"] == [0.2, 0.2]
    for path in (data / "images").iterdir():
        tifffile.imwrite(path, tifffile.imread(path))
    (data / "run/model.json").unlink()  # it was stopped before its end
    assert "um" not in train(data, "--resume")
    shutil.rmtree(data / "run")
    assert "um" not in train(data, "--voxel-size", "0.3,0.3")


def test_masks_among_numbered_labels_are_told_of() -> None:
    mask = (drawn() > 0).astype(np.int32)
    samples = [made(drawn().astype(np.int32)), made(mask), made(mask)]
    assert "label files have one value" in remark_masks(samples)
    assert "8 separate pieces in 2 images" in remark_masks(samples)


def test_classes_in_place_of_objects_are_told_of() -> None:
    classes = 1 + (drawn() > 0).astype(np.int32)
    assert "2 label files hold two values and no 0" in remark_masks([made(classes)] * 2)
    halves = np.ones((32, 32), np.int32)
    halves[:, 16:] = 2  # tissue without gaps
    assert remark_masks([made(halves)]) == ""


def test_copies_of_training_images_are_no_validation() -> None:
    one, copy, other = (made(drawn().astype(np.int32), seed) for seed in (0, 0, 1))
    assert "1 of 2 images set apart" in remark_twins(Split((one,), (copy, other), ()))
    assert remark_twins(Split((one,), (other,), ())) == ""


def test_of_large_validation_images_a_part_is_judged() -> None:
    large = made(np.ones((2100, 2100), np.int32))
    assert "2^22 voxels of 1 of 2 images" in remark_large([large, made(drawn().astype(np.int32))])
    assert remark_large([made(drawn().astype(np.int32))]) == ""


def made(labels: np.ndarray, seed: int = 0) -> Sample:
    image = np.random.default_rng(seed).normal(size=(1, *labels.shape)).astype(np.float32)
    return make_sample("made", image, labels)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_score_of_a_few_objects_was_told_like_any_other(sparse: bool) -> None:
    image = np.random.default_rng(0).random((1, 32, 32))
    sample = make_sample("few", image, drawn().astype(np.int32))
    said = remark_few([sample], sparse=sparse)
    assert said.startswith("Scores are of 4 validation objects only")
    assert ("nothing is annotated" in said) is sparse
    assert not remark_few([sample] * 5, sparse=sparse)
