"""Files of every kind, paired by name, and one clear line for what cannot be read."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from spoco_zoo import ngff
from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import DataError, StoreError
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import left_out, pair_files, read_array

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
    with pytest.raises(DataError, match=r"image\.ome\.tif and .*/image\.tif"):
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


def test_a_stack_was_trained_on_as_channels(tmp_path: Path) -> None:
    image, _ = picture()
    for axes in ("ZYX", "TYX"):
        stack = np.stack([image] * 5).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": axes})
        with pytest.raises(DataError, match=rf"one plane; found 5 along {axes[0]} in a\.tif"):
            read_array(tmp_path / "a.tif", ndim=2)
        assert read_array(tmp_path / "a.tif", ndim=3).shape == stack.shape
    films = np.zeros((2, 5, *image.shape), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", films, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match="one volume; found 2 along T, 5 along Z"):
        read_array(tmp_path / "a.tif", ndim=3)
    tifffile.imwrite(tmp_path / "a.tif", films[0], imagej=True, metadata={"axes": "CYX"})
    assert read_array(tmp_path / "a.tif", ndim=2).shape == films[0].shape


@pytest.mark.parametrize(
    "odd", [np.zeros((0, 0)), np.zeros((8, 8), complex), np.zeros((8, 8), [("a", int)])]
)
def test_images_of_no_real_numbers_are_refused(tmp_path: Path, odd: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", odd)
    np.save(tmp_path / "l.npy", np.zeros(odd.shape, int))
    (pair,) = pair_files(tmp_path / "a.npy", tmp_path / "l.npy")
    with pytest.raises(DataError, match=r"real numbers; found .* in a\.npy"):
        load_samples([pair], TrainConfig())


def test_labels_with_infinity_are_refused(tmp_path: Path) -> None:
    image, labels = picture()
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "l.npy", np.where(labels == labels.max(), np.inf, labels))
    (pair,) = pair_files(tmp_path / "a.npy", tmp_path / "l.npy")
    for annotation in ("dense", "sparse"):
        with pytest.raises(DataError, match="labels must be integers"):
            load_samples([pair], TrainConfig(annotation=annotation))


def test_masks_of_cellpose_may_lie_beside_the_images(tmp_path: Path) -> None:
    image, labels = picture()
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_cp_masks.tif", labels.astype(np.uint16))
    found = pair_files(tmp_path, tmp_path)
    assert [(p.name, p.image.name, p.labels.name) for p in found] == [
        (name, f"{name}.tif", f"{name}_cp_masks.tif") for name in "ab"
    ]


def test_names_of_a_mac_are_those_of_others(tmp_path: Path) -> None:
    image, labels = picture()
    for folder, form, array in (("i", "NFD", image), ("l", "NFC", labels)):
        (tmp_path / folder).mkdir()
        name = unicodedata.normalize(form, "Z\u00e4hler.tif")
        tifffile.imwrite(tmp_path / folder / name, array)
    (found,) = pair_files(tmp_path / "i", tmp_path / "l")
    assert found.image.name != found.labels.name


def test_labels_without_a_readable_image_are_told_of(tmp_path: Path) -> None:
    image, labels = picture()
    for name in "abc":
        pair(tmp_path, name, image, labels)
    assert left_out(tmp_path / "images", tmp_path / "labels") == ""
    (tmp_path / "images" / "b.tif").rename(tmp_path / "images" / "b.jpg")
    (tmp_path / "images" / "c.tif").unlink()
    said = left_out(tmp_path / "images", tmp_path / "labels")
    assert "without an image are left out: 2, such as 'b'" in said
    assert "b.jpg is of a type that is not read" in said


def test_of_several_labels_in_an_ome_zarr_one_is_named(tmp_path: Path) -> None:
    image, labels = picture()
    tifffile.imwrite(tmp_path / "a.tif", image)
    store = tmp_path / "a.ome.zarr"
    ngff.convert(tmp_path / "a.tif", store)
    for name, values in (("mine", labels), ("theirs", labels * 0 + 1)):
        target = ngff.plan_label(ngff.open_image(store), name=name)
        ngff.create_label(target, dtype=np.uint32, shard=labels.shape, chunk=labels.shape)
        ngff.open_label_array(target, 0)[...] = values.astype(np.uint32)
        ngff.publish_label(target)
    pairs = pair_files(store, store)
    with pytest.raises(StoreError, match=r"holds several.*mine, theirs.*--label-name"):
        load_samples(pairs, TrainConfig())
    (sample,) = load_samples(pairs, TrainConfig(label_name="mine"))
    assert len(sample.centres) == len(np.unique(labels)) - 1


def test_numbers_of_colours_are_labels_but_no_image(tmp_path: Path) -> None:
    mixed = np.random.default_rng(0).integers(0, 2**16, (3, 256)).astype(np.uint16)
    _, labels = picture()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, labels.astype(np.uint8), photometric="palette", colormap=mixed)
    np.testing.assert_array_equal(read_array(path, labels=True), labels)
    with pytest.raises(StoreError, match=r"intensities; found numbers of colours.*a\.tif"):
        read_array(path)
    tifffile.imwrite(path, np.zeros((8, 8, 4), np.uint8), photometric="separated")
    with pytest.raises(StoreError, match="red, green and blue; found CMYK"):
        read_array(path)
