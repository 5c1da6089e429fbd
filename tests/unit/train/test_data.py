"""Readers, pairs, splits and sparse annotation, and one clear line for each kind of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.train.annotation import thin_out
from spoco_zoo.train.crops import CropSampler, Geometry
from spoco_zoo.train.data import (
    BACKGROUND,
    UNKNOWN,
    Split,
    channels_first,
    integer_labels,
    make_sample,
    object_sizes,
)
from spoco_zoo.train.prepare import prepare
from spoco_zoo.train.setup import check_statistics, resolve
from spoco_zoo.train.split import split_samples

from .pictures import load, pair, picture


def samples(count: int) -> list:
    config = TrainConfig()
    pairs = [picture(seed) for seed in range(count)]
    return [
        make_sample(f"{n:03}", i[None].astype(np.float32), integer_labels(m, 2, "x", config))
        for n, (i, m) in enumerate(pairs)
    ]


@pytest.mark.parametrize("shape", [(24, 30), (5, 24, 30)])
def test_dense_labels_know_their_background(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pair(tmp_path, "a", *picture(0, shape))
    (sample,) = load(tmp_path, ndim=len(shape))
    assert set(np.unique(sample.labels)) == {BACKGROUND, 1, 2}
    assert sample.image.mean() == pytest.approx(0, abs=1e-4)
    assert sample.image.std() == pytest.approx(1, abs=1e-3)
    for index, centre in enumerate(sample.centres.astype(int), start=1):
        assert sample.labels[tuple(centre)] == index


def test_training_on_counts_far_above_zero_is_training_on_their_differences(tmp_path: Path) -> None:
    image, labels = picture()
    pair(tmp_path, "a", image, labels)
    pair(tmp_path, "b", image.astype(np.uint32) + 2**31, labels)
    low, high = load(tmp_path)
    assert np.allclose(low.image, high.image, atol=1e-5)


def test_sparse_labels_leave_zero_unknown_and_read_strokes(tmp_path: Path) -> None:
    image, labels = picture()
    labels[0, :] = 99
    pair(tmp_path, "a", image, labels)
    (sample,) = load(tmp_path, annotation="sparse", background_label=99)
    assert set(np.unique(sample.labels)) == {BACKGROUND, UNKNOWN, 1, 2}
    assert (sample.labels[0] == BACKGROUND).all()


def test_a_dense_crop_without_zero_keeps_its_objects() -> None:
    """The reference implementation turns the smallest label of such a crop into background."""
    full = np.array([[3, 3], [8, 8]], np.uint16)
    assert set(np.unique(integer_labels(full, 2, "x", TrainConfig()))) == {1, 2}


def test_channels_last_and_first_give_the_same_image(tmp_path: Path) -> None:
    image, labels = picture()
    rgb = np.stack([image, image // 2, image // 3], axis=-1)
    for name, array in (("a", rgb), ("b", np.moveaxis(rgb, -1, 0))):
        for what in ("images", "labels"):
            (tmp_path / what).mkdir(exist_ok=True)
        np.save(tmp_path / "images" / f"{name}.npy", array)
        np.save(tmp_path / "labels" / f"{name}.npy", labels)
    first, second = load(tmp_path)
    assert first.image.shape == (3, 24, 30)
    np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_channels_between_the_planes_of_a_volume_were_taken_for_another_shape(axis: int) -> None:
    """Fiji writes stacks of several channels so: z, c, y, x."""
    volume = np.arange(6 * 24 * 30).reshape(6, 24, 30)
    stored = np.stack([volume, volume + 1], axis)
    found = channels_first(stored, 3, "a", volume.shape)
    np.testing.assert_array_equal(found, [volume, volume + 1])


def test_five_channels_behind_the_image_were_taken_for_another_shape() -> None:
    plane = np.arange(24 * 30).reshape(24, 30)
    found = channels_first(np.stack([plane + n for n in range(5)], -1), 2, "a", plane.shape)
    np.testing.assert_array_equal(found, [plane + n for n in range(5)])


@pytest.mark.parametrize(
    ("ndim", "shape", "remedy"),
    [
        (2, (5, 3, 24, 30), "Pass --ndim 3."),
        (3, (24, 30), "Pass --ndim 2."),
        (3, (2, 2, 5, 24, 30), "Save one image per file."),
        (2, (30,), "Save one image per file."),
    ],
)
def test_the_advice_for_an_odd_image_was_a_setting_that_does_not_exist(
    ndim: int, shape: tuple[int, ...], remedy: str
) -> None:
    with pytest.raises(DataError) as caught:
        channels_first(np.arange(np.prod(shape)).reshape(shape), ndim, "a.tif")
    assert caught.value.remedy == remedy


@pytest.mark.parametrize("shape", [(1, 1, 24, 30), (1, 24, 30, 1), (1, 5, 24, 30), (5, 1, 24, 30)])
def test_labels_of_one_plane_lost_the_axis_of_the_plane(shape: tuple[int, ...]) -> None:
    """An OME-Zarr of one plane is read as (channel, plane, Y, X)."""
    labels = picture()[1] + np.zeros((5 if 5 in shape else 1, 1, 1), np.uint16)
    config = TrainConfig(ndim=3)
    found = integer_labels(labels.reshape(shape), 3, "a", config)
    np.testing.assert_array_equal(found, integer_labels(labels, 3, "a", config))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda i, m: (i, m[:-1]), "same shape"),
        (lambda i, m: (i, m + 0.5), "labels must be integers"),
        (lambda i, m: (i, m * 0), "labels must hold objects"),
        (lambda i, m: (i * 0 + 3, m), "must not be constant"),
        (lambda i, m: (np.where(m, np.nan, i).astype(np.float32), m), "must be finite"),
        (lambda i, m: (np.where(m, 3e38, -3e38).astype(np.float32), m), "at most 1e"),
        (lambda i, m: (i[0], m), "must have 2 axes"),
        (lambda i, m: (i, m.astype(int) - 1), "must be 0 for background.* found -1 in bad.tif"),
        (lambda i, m: (i, np.stack([m] * 3, -1).astype(np.uint8)), "These are colours: save one"),
        (lambda i, m: (i, np.stack([m] * 8)), "Pass --ndim 3 if this is a volume; else"),
    ],
)
def test_bad_pairs_get_one_clear_line(tmp_path: Path, change: object, line: str) -> None:
    image, labels = change(*picture())  # type: ignore[operator]
    pair(tmp_path, "bad", image, labels)
    with pytest.raises(DataError, match=line) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("planes", "said", "not_said"),
    [
        (lambda m: [m, m * 0, m % 2], ("--ndim 3", "If these are colours"), "These are"),
        (lambda m: [m == n for n in range(4)], ("masks of one object each",), "These are"),
        (lambda m: [m, m, m, m * 0 + 255], ("These are colours",), "--ndim"),
        (lambda m: [m == n for n in range(7)], ("masks of one object each",), "colours"),
    ],
)
def test_colours_were_taken_for_a_volume_and_masks_for_colours(
    kind: type, planes: object, said: tuple[str, ...], not_said: str
) -> None:
    labels = np.stack(planes(picture()[1])).astype(kind)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        integer_labels(labels, 2, "a.tif", TrainConfig())
    assert all(text in str(caught.value) for text in said)
    assert not_said not in str(caught.value)


def test_a_crop_larger_than_the_smallest_image_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    pair(tmp_path, "large", *picture(1, (64, 64)))
    config = TrainConfig(crop=(32, 32))
    with pytest.raises(ConfigError, match=r"\(32, 32\), smallest image \(24, 30\)") as caught:
        resolve(config, load(tmp_path), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    assert resolve(TrainConfig(), load(tmp_path), torch.device("cpu")).crop == (24, 24)


def test_a_step_of_one_coarse_voxel_ended_in_an_error_of_torch(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    device, config = torch.device("cpu"), TrainConfig(crop=(8, 8), batch_size=1)
    setup = resolve(config, load(tmp_path), device)
    with pytest.raises(ConfigError, match=r"one crop of \(8, 8\), pooled by \(8, 8\)"):
        check_statistics(setup, 1)
    check_statistics(setup, 2)
    check_statistics(resolve(TrainConfig(crop=(8, 16)), load(tmp_path), device), 1)


def test_periods_of_position_follow_the_size_of_the_objects(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())

    def rotary(**settings: object) -> tuple[tuple[float, ...], ...]:
        config = TrainConfig.checked(settings)
        return resolve(config, load(tmp_path), torch.device("cpu")).net.rotary

    pooling = ((2, 2), (2, 1))
    small = {"features": (4, 8, 8), "pooling": pooling, "voxel_size": (0.5, 1.0)}
    assert rotary() == ((16.0, 16.0),)  # 62 pixels at the median
    assert rotary(**small) == ((28.0, 14.0),)
    assert rotary(rotary=()) == rotary(embedding_dim=3) == ()
    assert rotary(rotary=((20.0, 30.0),)) == ((20.0, 30.0),)
    with pytest.raises(ConfigError, match="two channels of embedding"):
        rotary(rotary=((20.0, 30.0),), embedding_dim=3)


def test_training_images_without_annotated_objects_are_refused(tmp_path: Path) -> None:
    image, labels = picture()
    pair(tmp_path, "a", image, labels * 0)
    pair(tmp_path, "b", image, labels)
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "val": ["b"]}')
    with pytest.raises(DataError, match="training images must hold annotated objects"):
        prepare(tmp_path / "images", tmp_path / "labels", TrainConfig(split=str(split)), None, None)


def test_split_is_disjoint_seeded_and_sets_test_images_aside() -> None:
    given = samples(60)
    one, two = (split_samples(given, TrainConfig(seed=3)) for _ in range(2))
    names = [[s.name for s in part] for part in (one.train, one.val, one.test)]
    assert names == [[s.name for s in part] for part in (two.train, two.val, two.test)]
    assert sorted(name for part in names for name in part) == [s.name for s in given]
    assert [len(part) for part in names] == [48, 6, 6]
    other = split_samples(given, TrainConfig(seed=4))
    assert [s.name for s in other.val] != names[1]


def test_one_image_is_cut_for_validation() -> None:
    image, labels = picture(0, (24, 60))
    labels[5:12, 52:58] = 9
    sample = make_sample(
        "one", image[None].astype(np.float32), integer_labels(labels, 2, "x", TrainConfig())
    )
    split = split_samples([sample], TrainConfig())
    assert split.train[0].labels.shape == (24, 48)
    assert split.val[0].labels.shape == (24, 12)
    assert len(split.val[0].centres) == 1


@pytest.mark.parametrize("shape", [(40, 120), (20, 20, 120)])
def test_sizes_are_those_of_whole_objects(shape: tuple[int, ...]) -> None:
    labels = np.zeros(shape, np.int32)
    middle = tuple(slice(n // 2, n // 2 + 4) for n in shape[:-1])
    for number in range(12):
        labels[(*middle, slice(10 * number, 10 * number + 4))] = number + 1
    labels[..., 1:4] = 0  # of the first object, the layer of voxels at the border is left
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    whole = 4 ** len(shape)
    assert object_sizes([make_sample("many", image, labels)]) == (whole, whole, whole)
    few = np.where(labels <= 2, labels, 0)
    assert object_sizes([make_sample("few", image, few)])[0] < whole


def test_thinning_keeps_the_asked_share_and_forgets_the_rest() -> None:
    sparse = TrainConfig(annotation="sparse")
    given = [
        make_sample(str(n), i[None].astype(np.float32), integer_labels(m, 2, "x", sparse))
        for n, (i, m) in enumerate(picture(s) for s in range(20))
    ]
    kept = thin_out(given, ratio=0.25, max_objects=None, seed=1)
    again = thin_out(given, ratio=0.25, max_objects=None, seed=1)
    assert sum(len(s.centres) for s in kept) == 10
    for one, two in zip(kept, again, strict=True):
        np.testing.assert_array_equal(one.labels, two.labels)
        assert len(np.unique(one.labels[one.labels > 0])) == len(one.centres)
    other = thin_out(given, ratio=0.25, max_objects=None, seed=2)
    assert [len(s.centres) for s in other] != [len(s.centres) for s in kept]
    assert BACKGROUND not in np.concatenate([np.unique(s.labels) for s in kept])


def test_a_small_budget_is_spread_over_many_images() -> None:
    kept = thin_out(samples(20), ratio=1.0, max_objects=15, seed=0)
    counts = [len(sample.centres) for sample in kept]
    assert sum(counts) == 15
    assert max(counts) == 1
    both = thin_out(samples(20), ratio=0.1, max_objects=15, seed=0)
    assert sum(len(sample.centres) for sample in both) == 4  # a tenth of 40 is the smaller one


def test_the_objects_that_are_kept_do_not_change_while_training() -> None:
    """Drawn once: every crop of a run sees the same annotation."""
    (kept,) = thin_out(samples(1), ratio=0.5, max_objects=None, seed=0)
    crops = CropSampler([kept], (16, 16), Geometry(bent=0.0), seed=0, length=40)
    seen = {int(v) for n in range(40) for v in crops[n][1].unique() if v > 0}
    assert seen == {int(v) for v in np.unique(kept.labels) if v > 0}
    assert len(seen) == 1


def prepared(folder: Path, **settings: object) -> Split:
    return prepare(folder / "images", folder / "labels", TrainConfig.checked(settings), None, None)


@pytest.mark.parametrize("thinning", [{"instance_ratio": 0.5}, {"max_objects": 2}])
def test_the_background_of_thinned_labels_outlined_the_objects_left_out(
    tmp_path: Path, thinning: dict[str, float]
) -> None:
    """Known zeros around a hole in the shape of an object say that an object is there."""
    for seed in range(3):
        pair(tmp_path, str(seed), *picture(seed))
    split = prepared(tmp_path, **thinning)
    assert all(BACKGROUND not in sample.labels for sample in split.train)
    assert sum(len(sample.centres) for sample in split.train) == 2
    assert split.kept == 0.5
    assert split.background
    # Scores stay comparable with those of any other share.
    assert all(UNKNOWN not in sample.labels for sample in split.val)


def test_strokes_of_thinned_sparse_labels_stay(tmp_path: Path) -> None:
    for seed in range(3):
        image, labels = picture(seed)
        labels[0] = 99
        pair(tmp_path, str(seed), image, labels)
    sparse = {"annotation": "sparse", "background_label": 99}
    split = prepared(tmp_path, instance_ratio=0.5, **sparse)
    assert all((sample.labels[0] == BACKGROUND).all() for sample in split.train)
    assert sum(len(sample.centres) for sample in split.train) == 2
    assert split.kept == 1  # of how many there are nobody knows


def test_thinned_tissue_without_gaps_was_given_a_background(tmp_path: Path) -> None:
    for seed in range(3):
        image, labels = picture(seed)
        pair(tmp_path, str(seed), image, labels + 1)
    for thinning in ({}, {"instance_ratio": 0.5}, {"max_objects": 3}):
        assert not prepared(tmp_path, **thinning).background
    assert prepared(tmp_path, annotation="sparse").background


@pytest.mark.parametrize("thinning", [{"instance_ratio": 0.5}, {"max_objects": 2}])
def test_images_without_objects_could_not_be_thinned(
    tmp_path: Path, thinning: dict[str, float]
) -> None:
    """Of one such image an index was out of range; of such images alone a loop had no end."""
    image, labels = picture()
    for name, mask in (("empty", labels * 0), ("a", labels), ("b", labels)):
        pair(tmp_path, name, image, mask)
    split = tmp_path / "split.json"
    split.write_text('{"train": ["empty", "a"], "val": ["b"]}')
    kept = prepared(tmp_path, split=str(split), **thinning).train
    assert [len(sample.centres) for sample in kept if sample.name == "empty"] == [0]
    split.write_text('{"train": ["empty"], "val": ["b"]}')
    with pytest.raises(DataError, match="training images must hold annotated objects"):
        prepared(tmp_path, split=str(split), **thinning)


def test_an_image_without_annotation_was_drawn_for_validation(tmp_path: Path) -> None:
    """Of ten images three are annotated, and whichever is held out is one of them."""
    for n in range(10):
        image, labels = picture(n)
        pair(tmp_path, str(n), image, labels if n in (1, 4, 7) else labels * 0)
    for seed in range(4):
        split = prepared(tmp_path, annotation="sparse", seed=seed)
        assert [len(sample.centres) for sample in split.val] == [2]
        assert len(split.train) == 9


def test_validation_images_without_objects_are_refused(tmp_path: Path) -> None:
    image, labels = picture()
    pair(tmp_path, "a", image, labels)
    pair(tmp_path, "b", image, labels * 0)
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "val": ["b"]}')
    for annotation in ("dense", "sparse"):
        with pytest.raises(DataError, match="validation images must hold annotated objects"):
            prepared(tmp_path, split=str(split), annotation=annotation)


def test_validation_images_of_other_channels_ended_in_a_traceback(tmp_path: Path) -> None:
    image, labels = picture()
    pair(tmp_path / "train", "a", image, labels)
    pair(tmp_path / "val", "b", np.stack([image, image]), labels)
    train, val = ((tmp_path / p / "images", tmp_path / p / "labels") for p in ("train", "val"))
    with pytest.raises(DataError, match=r"those to train on \(1\); found 2 in b"):
        prepare(*train, TrainConfig(), *val)


def test_a_value_of_background_and_none_at_all_contradict_each_other(tmp_path: Path) -> None:
    config = TrainConfig(annotation="sparse", background_label=255, no_background=True)
    with pytest.raises(ConfigError, match="--background-label 255"):
        prepare(tmp_path, tmp_path, config, None, None)
