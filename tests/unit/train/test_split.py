"""Which images are learned from and which are held out, and what is said if there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import DataError
from spoco_zoo.train.data import BACKGROUND, UNKNOWN, Sample, make_sample, split_samples
from spoco_zoo.train.prepare import prepare

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
