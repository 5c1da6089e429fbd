"""Images that a model was not made for: which channel, which voxel size, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig
from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.intensities import Statistics
from spoco_zoo.segment.fit import (
    Zoom,
    choose_channels,
    choose_zoom,
    doubt,
    doubt_light,
    doubt_sizes,
)
from spoco_zoo.segment.resize import Stretch
from spoco_zoo.segment.target import default_output


def recipe(*, channels: int = 1, size: tuple[float, ...] | None = (0.5, 0.5)) -> ModelRecipe:
    return ModelRecipe(
        net=NetConfig(in_channels=channels),
        delta_var=0.5,
        delta_dist=2.0,
        kernel_threshold=0.5,
        background=None,
        clustering=ClusteringConfig(),
        channel_names=("DAPI", "actin")[:channels] if channels < 3 else ("r", "g", "b"),
        voxel_size=size,
        patch=(64, 64),
    )


@pytest.mark.parametrize(
    ("size", "factors", "said"),
    [
        ((0.5, 0.5), (1, 1), ""),
        ((0.4, 0.7), (1, 1), ""),
        ((0.1, 0.1), (5, 5), "a factor of 1/5,"),
        ((1.5, 0.5), (1 / 3, 1), "a factor of 3 x 1,"),
        ((0.01, 0.01), (1, 1), "a factor of 1/50. Not believed"),
        (None, (1, 1), ""),
    ],
)
def test_far_voxel_sizes_are_rescaled(size, factors, said) -> None:
    zoom = choose_zoom(size, recipe(), "yx")
    assert zoom.factors == pytest.approx(factors, rel=1e-5)
    assert said in zoom.note
    assert bool(zoom.note) == bool(said)


def test_a_user_may_forbid_it_and_still_hears_of_it() -> None:
    zoom = choose_zoom((0.1, 0.1), recipe(), "yx", rescale=False)
    assert not zoom.needed
    assert zoom.note.startswith("Warning")


@pytest.mark.parametrize("size", [None, (0.5, 0.5, 0.5)])
def test_the_user_decides_about_the_zoom(size) -> None:
    zoom = choose_zoom(size, recipe(), "zyx", zoom=0.25)
    assert zoom.factors == (1, 4, 4)
    assert "0.25 times" in zoom.note
    assert choose_zoom(size, recipe(), "zyx", zoom=1) == Zoom((1, 1, 1))


def test_objects_of_unusual_size_are_doubted() -> None:
    known = recipe().model_copy(update={"object_size": (40.0, 400.0, 2000.0)})
    assert doubt_sizes({"256": 100, "512": 50}, known) == ""
    assert "try --zoom 0.3" in doubt_sizes({"2048": 5, "4096": 100}, known)
    assert doubt_sizes({"512": 30, "4096": 20}, known) == ""
    assert doubt_sizes({"4096": 9}, known) == ""
    assert "--zoom 0.2" in doubt_sizes({"8192": 30}, known)
    assert "--zoom 4" in doubt_sizes({"16": 30}, known)
    assert doubt_sizes({"8192": 30}, recipe()) == ""
    assert "--zoom 0.2" in doubt_sizes({"8192": 10**13}, known)  # more than any memory could list


@pytest.mark.parametrize(
    ("trained", "leans", "inverted", "said"),
    [
        (-0.4, [0.3], False, "objects are dark"),
        (-0.4, [-0.3], True, "objects are dark"),
        (0.4, [-0.3, -0.2, 0.5], False, "objects are bright"),
        (-0.4, [-0.3], False, ""),
        (-0.4, [0.3], True, ""),
        (-0.4, [0.05], False, ""),
        (0.02, [-0.9], False, ""),
        (None, [0.9], False, ""),
    ],
)
def test_light_the_other_way_round_is_doubted(trained, leans, inverted, said) -> None:
    known = recipe().model_copy(update={"lean": trained})
    seen = [Statistics(0, 1, lean=lean, inverted=inverted) for lean in leans]
    found = doubt_light(seen, known)
    assert said in found
    assert bool(found) == bool(said)


def test_all_doubts_are_said() -> None:
    known = recipe().model_copy(update={"lean": -0.4, "object_size": (40.0, 400.0, 2000.0)})
    found = doubt({"8192": 30}, [Statistics(0, 1, lean=0.3)], known)
    assert "--zoom" in found
    assert "--invert" in found
    assert doubt({"256": 30}, [Statistics(0, 1, lean=-0.3)], known) == ""


def test_a_2d_model_leaves_z_alone() -> None:
    assert choose_zoom((2.0, 0.25, 0.25), recipe(), "zyx").factors == (1, 2, 2)
    assert not choose_zoom((2.0, 0.25, 0.25), recipe(size=None), "zyx").needed
    with pytest.raises(ConfigError, match="voxel_size"):
        choose_zoom((0.2, 0.2), recipe(), "zyx")


def photo(path: Path, values: np.ndarray) -> ngff.Image:
    tifffile.imwrite(path, values, photometric="rgb")
    return ngff.open_image(path)


def test_a_photograph_gives_its_best_colour(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    same = photo(tmp_path / "a.tif", np.stack([grey] * 3, axis=-1))
    assert choose_channels(same, 0, None, recipe()) == (
        (0,), "The image is stored in colour, but it is grey: one channel is used.",
    )  # fmt: skip
    blue = photo(tmp_path / "b.tif", np.stack([grey // 9, grey * 0, grey, grey * 0 + 255], -1))
    chosen, note = choose_channels(blue, 0, None, recipe())
    assert chosen == (2,)
    assert "blue has most contrast" in note
    assert choose_channels(blue, 0, 1, recipe()) == ((1,), "")
    assert choose_channels(blue, 0, None, recipe(channels=3)) == ((0, 1, 2), "")


def test_channels_of_other_images_are_chosen_by_name_or_not_at_all(tmp_path: Path) -> None:
    values = np.zeros((3, 20, 30), np.uint8)
    names = {"axes": "CYX", "Channel": {"Name": ["Actin", "dapi", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata=names, photometric="minisblack")
    image = ngff.open_image(tmp_path / "a.ome.tif")
    assert choose_channels(image, 0, None, recipe())[0] == (1,)
    assert choose_channels(image, 0, None, recipe(channels=2))[0] == (1, 0)
    tifffile.imwrite(tmp_path / "b.ome.tif", values, metadata={"axes": "CYX"},
                     photometric="minisblack")  # fmt: skip
    with pytest.raises(StoreError, match="trained on: DAPI"):
        choose_channels(ngff.open_image(tmp_path / "b.ome.tif"), 0, None, recipe())


def test_labels_of_a_tiff_go_beside_it(tmp_path: Path) -> None:
    for name, expected in (("a.tif", "a.spoco.tif"), ("b.OME.tiff", "b.spoco.tif")):
        tifffile.imwrite(tmp_path / name, np.zeros((8, 8), np.uint8))
        found = default_output(ngff.open_image(tmp_path / name), "spoco")
        assert found == str(tmp_path / expected)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_labels_come_back_from_under_each_voxel(image: int, network: int, data: st.DataObject):
    first = data.draw(st.integers(0, image - 1))
    stop = data.draw(st.integers(first + 1, image))
    low, high = first * network // image, -(-stop * network // image)
    part = Stretch(high - low, stop - first, None, first, low, image, network)
    every = Stretch(network, image, None, 0, 0, image, network)
    picks = part.picks(0, stop - first) + low
    assert np.array_equal(picks, every.picks(first, stop))
    centres = (np.arange(first, stop) + 0.5) * network / image
    assert np.all(np.abs(picks + 0.5 - centres) <= 0.5 + 1e-9)
    window = part.window(0, stop - first)
    assert (window.start, window.stop) == (picks[0] - low, picks[-1] - low + 1)
