"""Files of every kind, paired by name, and one clear line for what cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from spoco_zoo import ngff
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import DataError
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files, read_array

from .pictures import load, pair, picture


def test_hdf5_and_npz_are_read(tmp_path: Path) -> None:
    import h5py

    image, labels = picture()
    for what, array in (("images", image), ("labels", labels)):
        (tmp_path / what).mkdir()
        with h5py.File(tmp_path / what / "a.h5", "w") as file:
            file["volume/raw"] = array
        np.savez(tmp_path / what / "b.npz", array)
    first, second = load(tmp_path)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_of_several_time_points_only_the_first_was_trained_on(tmp_path: Path) -> None:
    image, labels = picture()
    movie, stack = tmp_path / "a.zarr", np.stack([image, image, image])
    tifffile.imwrite(tmp_path / "m.tif", stack, metadata={"axes": "TYX"}, imagej=True)
    ngff.convert(tmp_path / "m.tif", movie)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    (pair,) = pair_files(movie, tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"one time point; found 3 in a\.zarr"):
        load_samples([pair], TrainConfig())


def test_a_tiff_of_several_images_is_refused_and_a_thumbnail_is_not_an_image(
    tmp_path: Path,
) -> None:
    image, labels = picture()
    for name, others in (("two", [image]), ("one", [image[:8, :8]])):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for each in (image, *others):
                file.write(each)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    (pair,) = pair_files(tmp_path / "one.tif", tmp_path / "labels.tif")
    (sample,) = load_samples([pair], TrainConfig())
    assert sample.labels.shape == image.shape
    (pair,) = pair_files(tmp_path / "two.tif", tmp_path / "labels.tif")
    with pytest.raises(DataError, match=r"must hold one image; found 2 of shape \(24, 30\) in two"):
        load_samples([pair], TrainConfig())


def test_as_many_planes_as_channels_of_a_hyperstack_changed_places(tmp_path: Path) -> None:
    stack = np.arange(4 * 4 * 24 * 30, dtype=np.uint16).reshape(4, 4, 24, 30)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_array(path), stack.swapaxes(0, 1))


def test_transparency_was_a_channel_to_train_on(tmp_path: Path) -> None:
    """A model of four channels refuses every photograph without transparency."""
    image, _ = picture()
    colours = np.stack([image, image // 2, image // 3, np.full_like(image, 255)], -1)
    Image.fromarray(colours).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_array(tmp_path / "a.png"), colours[..., :3])
    np.testing.assert_array_equal(
        read_array(tmp_path / "a.tif"), np.moveaxis(colours[..., :3], -1, 0)
    )


@pytest.mark.parametrize("shape", [(4, 24, 30), (24, 30, 4), (2, 4, 24, 30)])
def test_four_channels_or_planes_are_not_taken_for_transparency(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """Arrays of these shapes are written as colours with transparency, if nothing else is said."""
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(tmp_path / "a.tif", array)
    found = read_array(tmp_path / "a.tif")
    expected = np.moveaxis(array, -1, 0) if shape[-1] == 4 else array
    np.testing.assert_array_equal(found, expected)


def test_hidden_files_of_macos_were_taken_for_images(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    (tmp_path / "images" / "._a.tif").write_bytes(b"\0\5\x16\7")
    (tmp_path / "labels" / "._b.tif").write_bytes(b"\0\5\x16\7")
    found = pair_files(tmp_path / "images", tmp_path / "labels")
    assert [one.name for one in found] == ["a"]


def test_an_image_without_label_file_is_named(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    tifffile.imwrite(tmp_path / "images" / "lonely.tif", picture()[0])
    with pytest.raises(DataError, match="lonely"):
        load(tmp_path)


def test_names_that_match_nowhere_are_counted(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    (tmp_path / "labels/a.tif").rename(tmp_path / "labels/b.tif")
    with pytest.raises(DataError, match="1 of 1 without, the first is 'a'"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link", "file", "zarr"])
def test_images_were_taken_for_their_own_labels(tmp_path: Path, kind: str) -> None:
    pair(tmp_path, "a", *picture())
    images = labels = tmp_path / "images"
    if kind == "link":
        labels = tmp_path / "other"
        labels.symlink_to(images)
    elif kind == "file":
        images = labels = images / "a.tif"
    elif kind == "zarr":
        (tmp_path / "store").mkdir()
        ngff.convert(images / "a.tif", tmp_path / "store" / "a.zarr")
        images = labels = tmp_path / "store"
    with pytest.raises(DataError, match="found the image itself as its labels, a"):
        pair_files(images, labels)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """One of the two would have been lost without a word."""
    pair(tmp_path, "image", *picture())
    pair(tmp_path, "image.ome", *picture())
    with pytest.raises(DataError, match=r"image\.ome\.tif and image\.tif"):
        pair_files(tmp_path / "images", tmp_path / "labels")


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="must hold files of type"):
        load(tmp_path)
    (tmp_path / "images").rmdir()
    with pytest.raises(DataError, match="must be a folder"):
        load(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    pair(tmp_path, "a", *picture())
    whole = (tmp_path / "images" / "a.tif").read_bytes()
    (tmp_path / "images" / "a.tif").write_bytes(whole[:40])
    with pytest.raises(DataError, match=r"a\.tif"):
        load(tmp_path)


def test_names_with_several_dots_were_taken_for_one(tmp_path: Path) -> None:
    """Names of microscopes hold numbers; names of labels, what a program appended."""
    names = {
        "exp 1.0 20x.tif": "exp 1.0 20x.png",
        "exp 1.1 20x.ome.tif": "exp 1.1 20x_cp_masks.tif",
        "B.zarr": "B.spoco.ome.zarr",
    }
    for image, labels in names.items():
        for what, name in (("images", image), ("labels", labels)):
            place = tmp_path / what / name
            place.parent.mkdir(exist_ok=True)
            place.mkdir() if name.endswith("zarr") else place.touch()
    found = pair_files(tmp_path / "images", tmp_path / "labels")
    assert {one.image.name: one.labels.name for one in found} == names
    assert {one.name for one in found} == {"exp 1.0 20x", "exp 1.1 20x", "B"}
