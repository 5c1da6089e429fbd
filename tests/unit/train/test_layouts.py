"""The folders of CVPPP and Cityscapes, OME-Zarr with labels, and lists of names as a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from skimage.io import imsave

from spoco_zoo.config import TrainConfig
from spoco_zoo.errors import ConfigError, DataError, InputError
from spoco_zoo.train.data import BACKGROUND, UNKNOWN, load_samples
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.layouts import find_pairs
from spoco_zoo.train.prepare import prepare


def rgb(seed: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (24, 30, channels)).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, array, check_contrast=False)


@pytest.fixture
def plants(tmp_path: Path) -> Path:
    """Leaves in colours; the second image has an alpha channel, and indexed labels."""
    colours = np.zeros((24, 30, 3), np.uint8)
    colours[2:8, 3:9], colours[12:20, 11:22] = (255, 0, 10), (0, 255, 10)
    indexed = np.zeros((24, 30), np.uint8)
    indexed[4:9, 4:9] = 5
    for n, (image, labels) in enumerate([(rgb(0), colours), (rgb(1, 4), indexed)]):
        save(tmp_path / "A1" / f"plant00{n}_rgb.png", image)
        save(tmp_path / "A1" / f"plant00{n}_label.png", labels)
    return tmp_path / "A1"


def test_cvppp_is_read_from_one_folder_with_colours_as_objects(plants: Path) -> None:
    config = TrainConfig(layout="cvppp")
    first, second = load_samples(find_pairs(plants, plants, config), config)
    assert (first.name, second.name) == ("plant000", "plant001")
    assert first.image.shape == second.image.shape == (3, 24, 30)
    assert set(np.unique(first.labels)) == {BACKGROUND, 1, 2}
    assert len(np.unique(first.labels[2:8, 3:9])) == 1
    assert len(second.centres) == 1


def test_colours_without_black_are_all_objects(plants: Path) -> None:
    labels = np.zeros((24, 30, 3), np.uint8)
    labels[:12], labels[12:] = (1, 2, 3), (3, 2, 1)
    save(plants / "plant000_label.png", labels)
    config = TrainConfig(layout="cvppp")
    first, _ = load_samples(find_pairs(plants, plants, config), config)
    assert set(np.unique(first.labels)) == {1, 2}


def test_the_palette_of_indexed_labels_was_read_in_place_of_their_numbers(tmp_path: Path) -> None:
    """Two of the three objects have the same colour."""
    indexed = np.zeros((24, 30), np.uint8)
    indexed[2:8, 3:9], indexed[12:20, 3:9], indexed[12:20, 15:22] = 1, 2, 7
    labels = Image.fromarray(indexed)
    labels.putpalette([0, 0, 0, 200, 0, 0, 200, 0, 0, *([0, 200, 0] * 5)])
    names = {"pairs": ("a.png", "a.png"), "cvppp": ("a_rgb.png", "a_label.png")}
    for layout, (image_name, label_name) in names.items():
        images, masks = tmp_path / layout / "images", tmp_path / layout / "labels"
        save(images / image_name, rgb(0))
        masks.mkdir()
        labels.save(masks / label_name)
        config = TrainConfig.checked({"layout": layout})
        (sample,) = load_samples(find_pairs(images, masks, config), config)
        assert sample.image.shape == (3, 24, 30)
        assert len(sample.centres) == 3
        np.testing.assert_array_equal(sample.labels > 0, indexed > 0)


@pytest.fixture
def streets(tmp_path: Path) -> tuple[Path, Path]:
    """Two cars, a person, a group of cars that nobody took apart, and road."""
    ids = np.full((24, 30), 7, np.uint16)
    ids[2:8, 3:9], ids[12:20, 11:22] = 26000, 26001
    ids[2:6, 20:25], ids[21:23, 2:8] = 24000, 26
    for n, city in enumerate(("aachen", "bonn")):
        name = f"{city}_00000{n}_000019"
        save(tmp_path / "leftImg8bit/train" / city / f"{name}_leftImg8bit.png", rgb(n))
        save(tmp_path / "gtFine/train" / city / f"{name}_gtFine_instanceIds.png", ids)
    return tmp_path / "leftImg8bit/train", tmp_path / "gtFine/train"


@pytest.mark.parametrize(
    ("classes", "objects"), [(("car",), 2), (("person",), 1), (("car", "person"), 3)]
)
def test_cityscapes_has_the_instances_of_the_classes_asked_for(
    streets: tuple[Path, Path], classes: tuple[str, ...], objects: int
) -> None:
    config = TrainConfig(layout="cityscapes", classes=classes)
    samples = load_samples(find_pairs(*streets, config), config)
    assert [s.name for s in samples] == ["aachen_000000_000019", "bonn_000001_000019"]
    assert [len(s.centres) for s in samples] == [objects, objects]
    assert (samples[0].labels[21:23, 2:8] == BACKGROUND).all()


def test_cityscapes_sparse_leaves_other_classes_unknown(streets: tuple[Path, Path]) -> None:
    config = TrainConfig(layout="cityscapes", annotation="sparse")
    sample = load_samples(find_pairs(*streets, config), config)[0]
    assert set(np.unique(sample.labels)) == {UNKNOWN, 1, 2}


def test_layouts_refuse_what_does_not_fit(streets: tuple[Path, Path], plants: Path) -> None:
    with pytest.raises(ConfigError, match="--classes must be among"):
        find_pairs(*streets, TrainConfig(layout="cityscapes", classes=("tree",)))
    with pytest.raises(DataError, match=r"_rgb\.png"):
        find_pairs(*streets, TrainConfig(layout="cvppp"))
    with pytest.raises(ConfigError, match="--background-label"):
        find_pairs(plants, plants, TrainConfig(layout="cvppp", background_label=3))
    (plants / "plant001_label.png").unlink()
    with pytest.raises(DataError, match="plant001"):
        find_pairs(plants, plants, TrainConfig(layout="cvppp"))


def ome_zarr(path: Path, image: np.ndarray, labels: np.ndarray) -> None:
    """Written with bare zarr: an image with its labels in it."""
    axes = [{"name": a, "type": "space"} for a in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for where, array, extra in (
        (group, image, {}),
        (group.create_group("labels/cells"), labels, {"image-label": {"version": "0.4"}}),
    ):
        where.create_array("0", data=array)
        multiscale = {
            "version": "0.4",
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }
        where.attrs.update({"multiscales": [multiscale], **extra})
    group["labels"].attrs["labels"] = ["cells"]


def test_ome_zarr_is_read_with_the_labels_in_it(tmp_path: Path) -> None:
    labels = np.zeros((24, 30), np.uint16)
    labels[4:9, 4:9] = 3
    for name in ("a", "b"):
        ome_zarr(tmp_path / "data" / f"{name}.ome.zarr", rgb(0)[..., 0], labels)
    both = load_samples(pair_files(tmp_path / "data", tmp_path / "data"), TrainConfig())
    one = tmp_path / "data/a.ome.zarr"
    (alone,) = load_samples(pair_files(one, one), TrainConfig())
    for sample in (*both, alone):
        assert sample.image.shape == (1, 24, 30)
        np.testing.assert_array_equal(sample.labels > 0, labels > 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = np.zeros((24, 30), np.uint16)
    labels[4:9, 4:9] = 3
    for n in range(4):
        for what, array in (("images", rgb(n)[..., 0]), ("labels", labels)):
            (tmp_path / what).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / what / f"{n}.tif", array)
    return tmp_path


@pytest.fixture
def with_split(folder: Path) -> Callable[[object], list[list[str]]]:
    """Prepare with a split file of the given content; the names of the three parts."""

    def parts(content: object) -> list[list[str]]:
        file = folder / "split.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        config = TrainConfig(split=str(file))
        split = prepare(folder / "images", folder / "labels", config, None, None)
        return [[s.name for s in part] for part in (split.train, split.val, split.test)]

    return parts


def test_a_split_file_says_which_image_is_for_what(
    with_split: Callable[[object], list[list[str]]],
) -> None:
    assert with_split({"train": ["2", "0"], "val": ["3"]}) == [["0", "2"], ["3"], []]
    lists = {"train": ["1"], "val": ["3"], "test": ["0"]}
    assert with_split(lists) == [["1"], ["3"], ["0"]]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "readable JSON"),
        ([1], "lists of names"),
        ({"train": ["0"]}, "lists of names"),
        ({"train": ["0"], "val": [1]}, "lists of names"),
        ({"train": ["0"], "val": ["0"]}, "name each image once"),
        ({"train": ["0"], "val": ["9"]}, "name images that are there.*'9'"),
    ],
)
def test_a_bad_split_file_gets_one_clear_line(
    with_split: Callable[[object], list[list[str]]], content: object, line: str
) -> None:
    with pytest.raises(InputError, match=line) as caught:
        with_split(content)
    assert "\n" not in str(caught.value)


def test_the_fixed_split_of_the_nuclei_is_that_of_seed_0(repository: Path) -> None:
    """The names alone are enough: the split depends on their number and order."""
    lists = json.loads((repository / "benchmarks/splits/dsb2018-fluo.json").read_text())
    every = sorted(name for part in lists.values() for name in part)
    order = np.random.default_rng([0, 7]).permutation(len(every))
    assert [len(lists[part]) for part in ("train", "val", "test")] == [389, 49, 49]
    assert lists["val"] == sorted(every[i] for i in order[:49])
    assert lists["test"] == sorted(every[i] for i in order[49:98])
