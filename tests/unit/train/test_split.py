"""Which images are learned from and which are held out, and what is said if there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import DataError
from spoco_zoo.train.data import BACKGROUND, UNKNOWN, Sample, make_sample
from spoco_zoo.train.prepare import prepare
from spoco_zoo.train.remarks import remarks
from spoco_zoo.train.setup import resolve
from spoco_zoo.train.split import split_samples

from .pictures import pair, picture

OBJECTS, STROKES, NOTHING = range(3)


def sample_of(kind: int, name: str) -> Sample:
    labels = np.full((20, 40), BACKGROUND if kind == STROKES else UNKNOWN, np.int32)
    if kind == OBJECTS:
        labels[4:9, ::8] = 1
    return make_sample(name, np.random.default_rng(0).random((1, 20, 40)), labels)


@given(
    st.lists(st.sampled_from([OBJECTS, STROKES, NOTHING]), min_size=1, max_size=70),
    st.integers(0, 9),
    st.sampled_from([0.1, 0.3, 0.95]),
)
def test_images_to_learn_from_and_to_validate_on_hold_objects(
    kinds: list[int], seed: int, fraction: float
) -> None:
    kinds = [OBJECTS, *kinds]
    given = [sample_of(kind, f"{n:02}") for n, kind in enumerate(kinds)]
    split = split_samples(given, TrainConfig(seed=seed, val_fraction=fraction))
    for part in (split.train, split.val):
        assert any(len(sample.centres) for sample in part)
    names = [s.name for part in (split.train, split.val, split.test) for s in part]
    assert len(set(names)) == len(names)
    assert {name[:2] for name in names} == {s.name for s in given}
    assert all(sample.annotated for sample in (*split.val, *split.test))
    assert bool(split.test) == (len(kinds) - kinds.count(NOTHING) >= 50 and kinds.count(0) > 1)


def test_of_many_images_one_with_objects_is_cut_for_validation() -> None:
    given = [sample_of(kind, f"{n}") for n, kind in enumerate([STROKES, OBJECTS, STROKES])]
    split = split_samples(given, TrainConfig())
    assert [s.name for s in split.train] == ["1-train", "0", "2"]
    assert [s.name for s in split.val] == ["1-val"]


def scattered(starts: list[tuple[int, int]]) -> Sample:
    labels = np.zeros((30, 100), np.int32)
    for number, (y, x) in enumerate(starts, start=1):
        labels[y : y + 2, x : x + 2] = number
    return make_sample("one", np.random.default_rng(0).random((1, 30, 100)), labels)


@pytest.mark.parametrize(
    ("starts", "train", "val"),
    [
        ([(4, 10), (4, 90)], (30, 80), (30, 20)),  # the last fifth
        ([(4, 6 * n) for n in range(10)], (30, 91), (30, 9)),  # none in it
        ([(4, 82 + 2 * n) for n in range(9)] + [(9, 90)], (30, 95), (30, 5)),  # all in it
        ([(3 * n, 60) for n in range(10)], (25, 100), (5, 100)),  # along the other axis
        ([(4, 50), (4, 70)], (30, 100), (30, 100)),  # a few
        ([(4, 50)], (30, 100), (30, 100)),
    ],
)
def test_objects_had_to_lie_in_the_last_fifth_of_one_image(
    starts: list[tuple[int, int]], train: tuple[int, int], val: tuple[int, int]
) -> None:
    split = split_samples([scattered(starts)], TrainConfig())
    assert split.train[0].labels.shape == train
    assert split.val[0].labels.shape == val
    assert all(len(sample.centres) for sample in (*split.train, *split.val))
    assert bool(split.remarks) is (train == val)


def test_a_few_objects_are_said_to_be_validated_on(tmp_path: Path) -> None:
    sample = scattered([(4, 50), (8, 60)])
    pair(tmp_path, "a", sample.image[0], sample.labels.astype(np.uint8))
    config = TrainConfig(annotation="sparse")
    split = prepare(tmp_path / "images", tmp_path / "labels", config, None, None)
    setup = resolve(config, split.train, torch.device("cpu"))
    (said,) = remarks(split, config, setup)
    assert "has so few, 2, that none is set apart" in said


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_missing_validation_folder_was_called_that_of_the_training(
    tmp_path: Path, part: str
) -> None:
    pair(tmp_path, "a", *picture())
    places = {name: tmp_path / name for name in ("images", "labels")}
    val = {**places, part: tmp_path / "nothere"}
    with pytest.raises(DataError, match=f"--val-{part} must be a folder"):
        prepare(*places.values(), TrainConfig(), val["images"], val["labels"])


def test_a_damaged_file_was_not_told_from_the_one_of_its_name(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    (tmp_path / "labels" / "a.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"labels/a\.tif"):
        prepare(tmp_path / "images", tmp_path / "labels", TrainConfig(), None, None)


def test_images_of_several_kinds_are_named(tmp_path: Path) -> None:
    image, labels = picture()
    pair(tmp_path, "grey", image, labels)
    pair(tmp_path, "colour", image, labels)
    colours = np.stack([image] * 3, -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "images" / "colour.tif", colours, photometric="rgb")
    with pytest.raises(DataError, match="1 in grey, 3 in colour"):
        prepare(tmp_path / "images", tmp_path / "labels", TrainConfig(), None, None)
