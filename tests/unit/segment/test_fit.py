"""Images that a model was not made for: which channel, which voxel size, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig, SegmentConfig
from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.segment.channels import choose_axes, choose_channels, note_planes
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.output.target import default_output
from spoco_zoo.segment.plan import Plan, make_plan
from spoco_zoo.segment.review.audit import count_dropped
from spoco_zoo.segment.scale.fit import Zoom, choose_zoom, stated_size
from spoco_zoo.segment.scale.resize import Stretch


def recipe(*, channels: int = 1, size: tuple[float, ...] | None = (0.5, 0.5)) -> ModelRecipe:
    ndim = len(size) if size else 2
    return ModelRecipe(
        net=NetConfig(ndim=ndim, in_channels=channels, pooling=((2,) * ndim,) * 3),
        delta_var=0.5,
        delta_dist=2.0,
        kernel_threshold=0.5,
        background=None,
        clustering=ClusteringConfig(),
        channel_names=("DAPI", "actin")[:channels] if channels < 3 else ("r", "g", "b"),
        voxel_size=size,
        patch=(64,) * ndim,
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


@pytest.mark.parametrize("known", [(0.5, 0.5), None])
def test_a_voxel_size_of_too_few_numbers_was_not_noticed(known) -> None:
    """By a model that knows no voxel size."""
    for size in ((0.2,), (0.2, 0.2, 0.2)):
        with pytest.raises(ConfigError, match=r"Give 2, as in --voxel-size 0\.2,0\.2"):
            choose_zoom(size, recipe(size=known), "yx")


def test_a_stack_without_z_spacing_lost_its_voxel_size_without_a_word(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    stack = np.zeros((3, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="minisblack", metadata=metadata)
    image = ngff.open_image(tmp_path / "a.ome.tif")
    assert image.voxel_size() is None
    for config, said in (({}, True), ({"voxel_size": (1, 0.5, 0.5)}, False)):
        settings = SegmentConfig.checked(config)
        notes = make_plan(image, recipe(), settings, output=tmp_path / "a.zarr").notes
        assert any("y 0.5 um, x 0.5 um, but no z: none is used" in note for note in notes) is said


def test_a_placeholder_is_doubted_where_it_rescales(tmp_path: Path) -> None:
    size = {"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((16, 16), np.uint8), metadata=size)
    image, output = ngff.open_image(tmp_path / "a.ome.tif"), tmp_path / "a.zarr"
    for known, said in (((0.25, 0.25), True), ((0.9, 0.9), False), (None, False)):
        notes = make_plan(image, recipe(size=known), SegmentConfig(), output=output).notes
        assert any("Exactly 1 um" in note for note in notes) is said


def test_a_placeholder_cost_hours_on_a_stack_of_a_million_voxels(tmp_path: Path) -> None:
    """At 0.28 x 0.13 x 0.13 um it became 218 million for the network."""
    stack, size = np.zeros((10, 16, 16), np.uint8), (0.284, 0.127, 0.127)
    metadata = {"axes": "ZYX"} | {f"PhysicalSize{axis}": 1.0 for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="minisblack", metadata=metadata)
    image, output = ngff.open_image(tmp_path / "a.ome.tif"), tmp_path / "a.zarr"
    known = recipe(size=size)
    plan = make_plan(image, known, SegmentConfig(), output=output)
    assert not plan.rescaled
    (note,) = plan.notes
    assert "Not believed and not rescaled: exactly 1 um along every axis" in note
    # Whoever says so is believed.
    asked = make_plan(image, known, SegmentConfig(voxel_size=(1, 1, 1)), output=output)
    assert asked.rescaled


@pytest.mark.parametrize(("spacing", "said"), [(None, True), (0.9, False), (0.3, False)])
def test_a_step_that_imagej_left_out_is_doubted_where_it_rescales(
    tmp_path: Path, spacing, said
) -> None:
    """Nuclei that came out in slices: AP@0.5 of 0.03 for 0.77."""
    header = {"axes": "ZYX", "unit": "um"} | ({"spacing": spacing} if spacing else {})
    stack, path = np.zeros((10, 16, 16), np.uint8), tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, resolution=(8, 8), metadata=header)
    image, output = ngff.open_image(path), tmp_path / "a.zarr"
    three, flat = recipe(size=(0.284, 0.127, 0.127)), recipe(size=(0.5, 0.5))
    notes = make_plan(image, three, SegmentConfig(), output=output).notes
    assert any("Exactly 1 um from plane to plane" in note for note in notes) is said
    asked = SegmentConfig(voxel_size=(1, 0.125, 0.125))
    assert len(make_plan(image, three, asked, output=output).notes) == 1
    # To a 2D model the step does not matter.
    notes = make_plan(image, flat, SegmentConfig(), output=output).notes
    assert not any("from plane to plane" in note for note in notes)


@pytest.mark.parametrize(("axes", "what"), [("TYX", "time points"), ("CYX", "channels")])
def test_slices_saved_as_something_else_were_advised_to_a_2d_model(
    tmp_path: Path, axes, what
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((7, 16, 16), np.uint8), imagej=True, metadata={"axes": axes})
    with pytest.raises(ConfigError, match=rf"its 7 {what} .* are slices, save it with axes ZYX"):
        make_plan(ngff.open_image(path), recipe(size=(1, 1, 1)), SegmentConfig())
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8))
    with pytest.raises(ConfigError, match=r"\. Use a 2D model\. If it is one plane"):
        make_plan(ngff.open_image(path), recipe(size=(1, 1, 1)), SegmentConfig())


@pytest.mark.parametrize(
    ("given", "said"),
    [((0.127, 0.127, 0.284), True), ((0.284, 0.127, 0.127), False), ((0.2, 0.2, 0.2), False)],
)
def test_a_voxel_size_in_the_order_x_y_z_was_taken_without_a_word(tmp_path: Path, given, said):
    """AP@0.5 of 0.45 for 0.69."""
    path, metadata = tmp_path / "a.tif", {"axes": "ZYX"}
    tifffile.imwrite(path, np.zeros((10, 16, 16), np.uint8), imagej=True, metadata=metadata)
    known, settings = recipe(size=(0.284, 0.127, 0.127)), SegmentConfig(voxel_size=given)
    output = tmp_path / "a.zarr"
    notes = make_plan(ngff.open_image(path), known, settings, output=output).notes
    assert any("If they are square, give 0.284,0.127,0.127." in note for note in notes) is said


def test_a_size_of_the_user_that_is_not_believed_is_not_the_images() -> None:
    note = choose_zoom((284.0, 127.0), recipe(), "yx", stated=False).note
    assert "--voxel-size says 284 x 127 um" in note
    assert "in micrometres" in note


@pytest.mark.parametrize("size", [None, (0.5, 0.5, 0.5)])
def test_the_user_decides_about_the_zoom(size) -> None:
    zoom = choose_zoom(size, recipe(), "zyx", zoom=0.25)
    assert zoom.factors == (1, 4, 4)
    assert "0.25 times" in zoom.note
    assert choose_zoom(size, recipe(), "zyx", zoom=1) == Zoom((1, 1, 1))


def planned(path: Path, known: ModelRecipe, **settings: object) -> Plan:
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8))
    config = SegmentConfig.checked(settings)
    return make_plan(ngff.open_image(path), known, config, output=path.with_suffix(".zarr"))


def test_the_overlap_follows_voxels_of_mixed_units(tmp_path: Path) -> None:
    known = recipe(size=None).model_copy(update={"object_size": (100.0, 300.0, 900.0)})
    overlaps = []
    for name, units, scale in (
        ("same", ("micrometer", "micrometer"), (0.1, 0.1)),
        ("mixed", ("nanometer", "micrometer"), (100.0, 0.1)),
    ):
        path = tmp_path / f"{name}.zarr"
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((600, 600), np.uint8))
        ngff.convert(tmp_path / "a.tif", path)
        group = zarr.open_group(path, mode="r+")
        ome = json.loads(json.dumps(group.attrs["ome"]))
        one = ome["multiscales"][0]
        for axis, unit in zip(one["axes"], units, strict=True):
            axis["unit"] = unit
        for dataset in one["datasets"]:
            (found,) = (t for t in dataset["coordinateTransformations"] if t["type"] == "scale")
            found["scale"] = [a * b for a, b in zip(found["scale"], scale, strict=True)]
        group.attrs["ome"] = ome
        config = SegmentConfig(block=(200, 200), halo=(8, 8), zoom=1.0)
        overlaps.append(make_plan(ngff.open_image(path), known, config).config.overlap)
    assert overlaps[0] == overlaps[1]
    assert overlaps[0][0] == overlaps[0][1]


@pytest.mark.parametrize("method", ["instance", "meanshift"])
def test_what_the_clustering_drops_is_counted(method: str) -> None:
    field = torch.zeros(2, 12, 12)
    field[0, 1:6, 1:6] = field[1, 8:10, 2:4] = field[1, 8:10, 7:9] = 4
    config = ClusteringConfig.checked({"method": method, "min_size": 20, "smoothness": 4})
    labels = cluster(field, config, (0.0, 0.0))
    assert labels.max() == 1
    inside = (slice(0, 12), slice(0, 8))  # one column of the second small one
    expected = (2, 6) if method == "instance" else (0, 0)
    assert count_dropped(field, labels, inside, config, (0.0, 0.0)) == expected
    assert count_dropped(field, labels, inside, config, None) == (0, 0)


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


def test_channels_in_another_order_than_the_models_are_told_by_name(tmp_path: Path) -> None:
    def named(*names: str) -> ngff.Image:
        tifffile.imwrite(
            tmp_path / "a.ome.tif", np.zeros((2, 20, 30), np.uint8), photometric="minisblack",
            metadata={"axes": "CYX", "Channel": {"Name": list(names)}},
        )  # fmt: skip
        return ngff.open_image(tmp_path / "a.ome.tif")

    two = recipe(channels=2)
    chosen, note = choose_channels(named("actin", "dapi"), 0, None, two)
    assert (chosen, note[-12:]) == ((1, 0), "dapi, actin.")
    assert choose_channels(named("DAPI", "actin"), 0, None, two) == ((0, 1), "")
    # Names that say nothing, or not enough: in their order.
    for names in (("actin", "GFP"), ("a", "b"), ("actin", "actin")):
        assert choose_channels(named(*names), 0, None, two) == ((0, 1), "")


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


def open_planes(folder: Path, shape: tuple[int, ...], **options: object) -> ngff.Image:
    """An image from a file that names its axes only if the options do."""
    tifffile.imwrite(folder / "a.tif", np.zeros(shape, np.uint8), **options)
    return ngff.open_image(folder / "a.tif")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 60, 50), "3 planes of 60 x 50 pixels are taken as z. If they are channels or times, "),
        ((60, 50, 5), "60 planes of 50 x 5 pixels are taken as z. If they are channels or times, "),
        ((60, 50, 2), "2 planes of 60 x 50 pixels are taken as channels. If they are z, save it "),
    ],
)
def test_planes_without_a_name_were_taken_for_something_without_a_word(
    tmp_path: Path, shape: tuple[int, ...], said: str
) -> None:
    (note,) = open_planes(tmp_path, shape, photometric="minisblack").notes
    assert said in note


@pytest.mark.parametrize("axes", ["ZYX", "CYX", "TYX"])
def test_named_planes_need_no_note(tmp_path: Path, axes: str) -> None:
    image = open_planes(tmp_path, (3, 60, 50), imagej=True, metadata={"axes": axes})
    assert image.notes == ()
    assert choose_axes(image, recipe(channels=3)) is image


def test_a_model_refused_the_kind_of_image_it_was_trained_on(tmp_path: Path) -> None:
    image = open_planes(tmp_path, (3, 60, 50), photometric="minisblack")
    seen = choose_axes(image, recipe(channels=3))
    assert (seen.axes, seen.n_channels, seen.spatial_shape()) == (("c", "y", "x"), 3, (60, 50))
    assert "3 planes of 60 x 50 pixels are taken as channels" in seen.notes[0]
    assert choose_channels(seen, 0, None, recipe(channels=3)) == ((0, 1, 2), "")
    assert choose_axes(image, recipe(channels=2)) is image
    assert choose_axes(image, recipe()) is image


@pytest.mark.parametrize(("planes", "said"), [(1, False), (2, True), (12, True), (13, False)])
def test_blurred_planes_of_one_layer_were_counted_twice_without_a_word(
    planes: int, said: bool
) -> None:
    note = note_planes((planes, 60, 50), recipe())
    assert ("convert IN OUT.ome.zarr --project" in note) is said
    assert note_planes((60, 50), recipe()) == ""


def test_a_channel_of_an_image_without_channels_was_any_plane(tmp_path: Path) -> None:
    image = open_planes(tmp_path, (3, 60, 50), photometric="minisblack")
    with pytest.raises(ConfigError, match="save it with axes CYX"):
        choose_channels(image, 0, 0, recipe())
    named = {"axes": "CYX", "Channel": {"Name": ["DAPI"]}}
    image = open_planes(tmp_path, (1, 60, 50), ome=True, metadata=named)
    assert choose_channels(image, 0, "DAPI", recipe())[0] == (0,)


def test_an_image_without_a_voxel_size_was_taken_for_the_models_without_a_word(
    tmp_path: Path,
) -> None:
    known = recipe().model_copy(update={"voxel_size": (0.5, 0.25)})
    (said,) = planned(tmp_path / "a.tif", known).notes
    assert "states no voxel size: it is taken for the model's, 0.5 x 0.25 um" in said
    assert "--voxel-size y,x" in said
    for settings in ({"voxel_size": (0.5, 0.25)}, {"zoom": 1}, {"rescale": False}):
        assert planned(tmp_path / "b.tif", known, **settings).notes == ()
    unknown = known.model_copy(update={"voxel_size": None})
    assert planned(tmp_path / "c.tif", unknown).notes == ()


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("first", [0, 3, 8])
def test_labels_of_an_enlarged_image_were_moved_by_a_quarter_voxel(ratio: int, first: int) -> None:
    size = 40
    part = Stretch(
        size * ratio, size, None, first, first * ratio, whole=100, whole_fine=100 * ratio
    )
    picks = part.picks(0, size)
    centres = (picks + 0.5) / ratio - 0.5
    assert np.abs(centres - np.arange(size)).max() < 0.5 / ratio + 1e-9
    assert np.mean(centres - np.arange(size)) == pytest.approx(0)
    np.testing.assert_array_equal(part.picks(7, 30), picks[7:30])
    assert (np.diff(picks) > 0).all()


def test_an_unknown_z_does_not_hide_y_and_x_from_a_flat_model() -> None:
    level = ngff.Level("0", (3, 64, 64), (1.0, 100.0, 100.0), (0.0,) * 3)
    image = ngff.Image(
        "a", "ome-zarr", "0.5", tuple("zyx"), (None, "nanometer", "nanometer"), (level,),
        np.dtype(np.uint8), ("0",),
    )  # fmt: skip
    size = stated_size(image, 0, recipe())
    zoom = choose_zoom(size, recipe(), image.spatial)
    assert zoom.factors == pytest.approx((1, 5, 5))
    assert "has 0.1 x 0.1 um a voxel" in zoom.note


def test_a_channel_named_like_the_index_of_another_is_told(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.zeros((2, 32, 32), np.uint8), photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["1", "actin"]}},
    )  # fmt: skip
    image = ngff.open_image(tmp_path / "a.ome.tif")
    chosen, note = choose_channels(image, 0, "1", recipe())
    assert chosen == (0,)
    assert "index of another, actin" in note
    assert choose_channels(image, 0, "actin", recipe()) == ((1,), "")
