"""Tables of objects: right, and the same whatever the blocks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import regionprops_table
from typer.testing import CliRunner

from spoco_zoo import label_sums, ngff
from spoco_zoo.cli import app
from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.measure import measure
from spoco_zoo.ngff.store import tiles
from spoco_zoo.sums import Sums, joined, sum_voxels
from spoco_zoo.tables import write_table

FIELDS = ("ids", "count", "places", "low", "high", "total", "least", "most")


def in_blocks(ids: np.ndarray, values: np.ndarray, step: tuple[int, ...]) -> Sums:
    parts = []
    for where in tiles(ids.shape, step):
        start = [w.start for w in where]
        parts.append(sum_voxels(ids[where], values[(slice(None), *where)], start))
    return joined(parts).merged()


@given(st.data())
def test_blocks_and_whole_agree(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9))
    ids = data.draw(hnp.arrays(np.uint32, shape, elements=st.sampled_from([0, 0, 1, 2, 5, 2**31])))
    step = tuple(data.draw(st.integers(1, n)) for n in shape)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**16, (2, *shape)).astype(np.uint16)
    whole = sum_voxels(ids, values, [0] * len(shape))
    parts = in_blocks(ids, values, step)
    for name in FIELDS:
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert np.allclose(whole.squares, parts.squares, rtol=1e-9, atol=1e-6)
    # Not only alike, but right.
    for row, label in enumerate(whole.ids):
        inside = values[:, ids == label].astype(np.float64)
        assert whole.count[row] == inside.shape[1]
        assert np.allclose(whole.squares[row] / whole.count[row], inside.var(axis=1))


def test_an_infinite_voxel_leaves_its_own_object_without_deviation() -> None:
    ids = np.repeat([[1, 2]], 4, axis=0)
    values = np.arange(8.0).reshape(1, 4, 2)
    values[0, 0, 0] = np.inf
    found = in_blocks(ids, values, (2, 2))
    assert np.isnan(found.squares[0, 0])
    assert found.most[0, 0] == np.inf
    assert found.squares[1, 0] == pytest.approx(4 * values[0, :, 1].var())


def test_a_large_offset_does_not_drown_the_deviation() -> None:
    values = (1e7 + np.random.default_rng(0).random((1, 50, 60))).astype(np.float64)
    found = in_blocks(np.ones((50, 60), np.uint8), values, (7, 11))
    assert np.sqrt(found.squares[0, 0] / found.count[0]) == pytest.approx(values.std(), rel=1e-6)


@pytest.fixture
def cells(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = np.kron(rng.permutation(24).reshape(2, 3, 4), np.ones((5, 7, 6), int)).astype(int)
    labels[:, 3] = 0
    image = rng.integers(0, 4000, (2, *labels.shape)).astype(np.uint16)
    ngff.write_label_tiff(tmp_path / "labels.tif", labels, (0.5, 0.2, 0.2))
    tifffile.imwrite(
        tmp_path / "image.ome.tif", image.swapaxes(0, 1), photometric="minisblack",
        metadata={"axes": "ZCYX", "Channel": {"Name": ["DAPI", "actin"]}},
    )  # fmt: skip
    return labels, image


@pytest.mark.parametrize("voxels", [2**21, 300])
def test_a_table_is_what_scikit_image_finds(
    cells, tmp_path: Path, voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, image = cells
    monkeypatch.setattr(label_sums, "BLOCK_VOXELS", voxels)
    monkeypatch.setattr(label_sums, "MERGE_ROWS", 10)
    done = []
    table = measure(
        tmp_path / "labels.tif", tmp_path / "image.ome.tif", on_block=lambda d, n: done.append(d)
    )
    assert (len(done) == 1) == (voxels == 2**21)
    truth = regionprops_table(
        labels, np.moveaxis(image, 0, -1), spacing=(0.5, 0.2, 0.2),
        properties=["label", "num_pixels", "area", "centroid", "bbox", "intensity_mean",
                    "intensity_min", "intensity_max", "intensity_std"],
    )  # fmt: skip
    expected = {
        "label": truth["label"],
        "voxels": truth["num_pixels"],
        "volume_um3": truth["area"],
        "diameter_um": (6 / np.pi * truth["area"]) ** (1 / 3),
        **{f"{a}_um": truth[f"centroid-{i}"] for i, a in enumerate("zyx")},
    }
    for i, axis in enumerate("zyx"):
        expected[f"{axis}_start"] = truth[f"bbox-{i}"]
        expected[f"{axis}_stop"] = truth[f"bbox-{i + 3}"]
    for i, name in enumerate(("DAPI", "actin")):
        for key in ("mean", "std", "min", "max"):
            expected[f"{name}_{key}"] = truth[f"intensity_{key}-{i}"]
    assert list(table.columns) == list(expected)
    for name, values in expected.items():
        assert np.allclose(table[name], values), name


def test_regions_levels_and_times_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 99, (2, 60, 80)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image, photometric="minisblack",
        metadata={"axes": "TYX", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3},
    )  # fmt: skip
    ngff.convert(tmp_path / "a.ome.tif", tmp_path / "a.ome.zarr")
    target = ngff.plan_label(
        ngff.open_image(tmp_path / "a.ome.zarr"), name="part", output=tmp_path / "part.ome.zarr",
        roi=((10, 50), (20, 70)),
    )  # fmt: skip
    ngff.create_label(target, dtype=np.uint32, shard=(64, 64), chunk=(64, 64))
    labels = np.zeros((2, 40, 50), np.uint32)
    labels[0, 5:9, 5:9], labels[1, 5:9, 5:9] = 3, 4
    ngff.open_label_array(target, 0)[...] = labels
    ngff.publish_label(target)
    table = measure(tmp_path / "part.ome.zarr", tmp_path / "a.ome.zarr")
    assert table["label"].tolist() == [3, 4]
    assert table["time"].tolist() == [0, 1]
    assert table["y_um"].tolist() == pytest.approx([(10 + 6.5) * 0.3] * 2)
    assert table["channel0_mean"].tolist() == pytest.approx(
        [image[t, 15:19, 25:29].mean() for t in (0, 1)]
    )


@pytest.mark.parametrize(
    "names", [["DAPI"] * 3, ["DAPI", "DAPI", "DAPI_1"], ["0", "channel0", "1"]]
)
def test_channels_of_one_name_each_have_their_columns(tmp_path: Path, names: list[str]) -> None:
    image = np.stack([np.full((8, 9), value, np.uint16) for value in (10, 20, 30)])
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image, photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": names}},
    )  # fmt: skip
    tifffile.imwrite(tmp_path / "l.tif", np.ones((8, 9), np.uint8))
    table = measure(tmp_path / "l.tif", tmp_path / "a.ome.tif")
    means = [float(table[name][0]) for name in table.columns if name.endswith("_mean")]
    assert means == [10, 20, 30]


def test_a_channel_called_like_a_formula_heads_no_column_as_one(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "Channel": {"Name": "=cmd|' /C calc'!A0"}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.ones((8, 9), np.uint16), metadata=metadata)
    tifffile.imwrite(tmp_path / "l.tif", np.ones((8, 9), np.uint8))
    table = measure(tmp_path / "l.tif", tmp_path / "a.ome.tif")
    assert "channel =cmd|' /C calc'!A0_mean" in table
    assert not any(name.startswith("=") for name in table)


@pytest.mark.parametrize("unit", ["meter", "micrometer"])
def test_labels_of_a_level_are_measured_on_that_level(tmp_path: Path, unit: str) -> None:
    # Objects of 6 x 6 pixels, each as bright as its number.
    image = np.kron(np.arange(100**2).reshape(100, 100), np.ones((6, 6))).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image)
    ngff.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    describe(tmp_path / "a.ome.zarr", unit)
    ngff.convert(tmp_path / "a.ome.zarr", tmp_path / "l.ome.zarr", level=1, labels=True)
    table = measure(tmp_path / "l.ome.zarr", tmp_path / "a.ome.zarr")
    coarse = ngff.open_image(tmp_path / "a.ome.zarr").read(1, 0, None, [slice(0, 300)] * 2)
    assert len(table) > 50
    assert (table["channel0_std"] == 0).all()
    assert table["voxels"].sum() == (coarse > 0).sum()
    voxel = (8e-9 * 1e6) ** 2 if unit == "meter" else 8e-9**2
    assert np.allclose(table["area_um2"], table["voxels"] * voxel, rtol=1e-6, atol=0)
    # The same without units: those of the image's level count.
    describe(tmp_path / "l.ome.zarr", None)
    bare = measure(tmp_path / "l.ome.zarr", tmp_path / "a.ome.zarr")
    assert np.allclose(bare["area_um2"], table["area_um2"], rtol=1e-6, atol=0)


def test_labels_in_a_file_lie_where_their_image_does(tmp_path: Path) -> None:
    """A TIFF states no place: positions were those of an image that begins at zero."""
    tifffile.imwrite(tmp_path / "a.tif", np.eye(300, dtype=np.uint16))
    ngff.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    file = tmp_path / "a.ome.zarr" / "zarr.json"
    content = json.loads(file.read_text())
    for axis in content["attributes"]["ome"]["multiscales"][0]["axes"]:
        axis["unit"] = "nanometer"
    for level in content["attributes"]["ome"]["multiscales"][0]["datasets"]:
        scale, shift = level["coordinateTransformations"]
        scale["scale"] = [200 * step for step in scale["scale"]]
        shift["translation"] = [200 * place + 5e6 for place in shift["translation"]]
    file.write_text(json.dumps(content))
    ngff.convert(tmp_path / "a.ome.zarr", tmp_path / "l.ome.zarr", labels=True)
    ngff.convert(tmp_path / "l.ome.zarr", tmp_path / "l.tif")
    stored = measure(tmp_path / "l.ome.zarr", tmp_path / "a.ome.zarr")
    assert stored["x_um"].tolist() == pytest.approx([5000 + 0.2 * 149.5])
    filed = measure(tmp_path / "l.tif", tmp_path / "a.ome.zarr")
    pd.testing.assert_frame_equal(filed, stored)
    part = np.eye(20, dtype=np.uint16)
    ngff.write_label_tiff(tmp_path / "part.tif", part)
    found = measure(tmp_path / "part.tif", tmp_path / "a.ome.zarr", level=0, start=(10, 40))
    assert found["x_um"].tolist() == pytest.approx([5000 + 0.2 * (40 + 9.5)])


def describe(store: Path, unit: str | None) -> None:
    """Give an image of two axes another unit, and voxels of 4e-9 of it; or no unit."""
    file = store / "zarr.json"
    content = json.loads(file.read_text())
    multiscale = content["attributes"]["ome"]["multiscales"][0]
    for axis in multiscale["axes"]:
        axis.pop("unit", None)
        axis |= {"unit": unit} if unit else {}
    if unit:
        for k, level in enumerate(multiscale["datasets"]):
            scale = {"type": "scale", "scale": [4e-9 * 2**k] * 2}
            level["coordinateTransformations"] = [scale]
    file.write_text(json.dumps(content))


def test_labels_of_two_channels_are_refused(tmp_path: Path) -> None:
    labels = np.ones((2, 8, 9), np.uint16)
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="minisblack", ome=True,
                     metadata={"axes": "CYX"})  # fmt: skip
    with pytest.raises(DataError, match="one channel"):
        measure(tmp_path / "l.tif", tmp_path / "l.tif")


def test_nothing_found_is_an_empty_table(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8))
    table = measure(tmp_path / "a.tif", tmp_path / "a.tif")
    assert len(table) == 0
    assert "area_px2" in table.columns


def test_labels_of_another_image_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9), np.uint8))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 10), np.uint8))
    with pytest.raises(DataError, match="8, 10"):
        measure(tmp_path / "a.tif", tmp_path / "b.tif")


def test_background_below_zero_was_an_object(tmp_path: Path) -> None:
    labels = np.full((8, 9), -1, np.int16)
    labels[2:4, 2:4] = 1
    tifffile.imwrite(tmp_path / "l.tif", labels)
    tifffile.imwrite(tmp_path / "i.tif", np.ones((8, 9), np.uint8))
    with pytest.raises(DataError, match=r"positive for objects .*; found -1 .*Number"):
        measure(tmp_path / "l.tif", tmp_path / "i.tif")


def test_ids_beyond_63_bits_became_negative(tmp_path: Path) -> None:
    labels = np.zeros((8, 9), np.uint64)
    labels[2:4, 2:4] = 2**63 + 5
    tifffile.imwrite(tmp_path / "l.tif", labels)
    tifffile.imwrite(tmp_path / "i.tif", np.ones((8, 9), np.uint8))
    with pytest.raises(DataError, match=r"below 2\^63"):
        measure(tmp_path / "l.tif", tmp_path / "i.tif")


def test_the_command_writes_what_pandas_reads(cells, tmp_path: Path) -> None:
    out = tmp_path / "objects.csv"
    files = [str(tmp_path / "labels.tif"), str(tmp_path / "image.ome.tif")]
    done = CliRunner().invoke(app, ["measure", *files, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["objects"] == 23
    read = pd.read_csv(out)
    pd.testing.assert_frame_equal(read, measure(*files))
    bad = CliRunner().invoke(app, ["measure", *files, "--out", str(tmp_path / "o.xlsx")])
    assert bad.exit_code == 2
    assert ".parquet" in bad.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "image.ome.tif", "labels.tif", "objects.csv", "objects.csv.config.yaml",
    ]  # fmt: skip


def test_parquet_is_the_same_table(cells, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    table = measure(tmp_path / "labels.tif", tmp_path / "image.ome.tif")
    write_table(table, tmp_path / "objects.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "objects.parquet"), table)


def test_parquet_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the import system finds for a package that is not there.
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"spoco-zoo\[parquet\]"):
        write_table(pd.DataFrame(), tmp_path / "a.parquet")


def test_a_first_voxel_without_its_level_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((9, 9), np.uint16))
    with pytest.raises(ConfigError, match="counts on a level"):
        measure(tmp_path / "a.tif", tmp_path / "a.tif", start=(1, 1))


def plane_of_stack(place: Path, unit: str | None, values: np.ndarray) -> None:
    """A plane with a z axis, as converters of whole slides store it; z counts in `unit`."""
    group = zarr.open_group(place, mode="w", zarr_format=3)
    array = group.create_array(
        "0", shape=(1, *values.shape), dtype=values.dtype, dimension_names=["z", "y", "x"]
    )
    array[...] = values[None]
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    axes[0].pop("unit")
    axes[0] |= {"unit": unit} if unit else {}
    scale = [{"type": "scale", "scale": [3.0, 500.0, 500.0]}]
    block = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "image-label": {}, "multiscales": [block]}


@pytest.mark.parametrize("unit", [None, "micrometer"])
def test_a_stack_of_one_plane_has_areas(tmp_path: Path, unit: str | None) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[4:8, 10:20] = 1
    plane_of_stack(tmp_path / "a.ome.zarr", unit, labels)
    row = measure(tmp_path / "a.ome.zarr", tmp_path / "a.ome.zarr", level=0).iloc[0]
    assert row["area_um2"] == pytest.approx(40 * 0.25)
    assert row["diameter_um"] == pytest.approx((4 / np.pi * 10) ** 0.5)
    assert row["x_um"] == pytest.approx(14.5 * 0.5)
    assert row["z_um" if unit else "z_px"] == 0
    assert row["z_stop"] == 1


def test_a_voxel_size_that_is_asked_for_counts(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[4:8, 10:20] = 1
    tifffile.imwrite(tmp_path / "a.tif", labels)
    ngff.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr", labels=True)
    for place in (tmp_path / "a.tif", tmp_path / "a.ome.zarr"):
        row = measure(place, tmp_path / "a.tif", voxel_size=(0.5, 0.25)).iloc[0]
        assert row["area_um2"] == 40 * 0.125
        assert (row["y_um"], row["x_um"]) == (5.5 * 0.5, 14.5 * 0.25)
        with pytest.raises(ConfigError, match="for each of y, x"):
            measure(place, tmp_path / "a.tif", voxel_size=(0.5, 0.5, 0.5))


def test_a_suffix_in_capitals_is_one(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"label": [1]}), tmp_path / "M.CSV")
    assert (tmp_path / "M.CSV").read_text() == "label\n1\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"voxel_size": 0.5}, "voxel_size must have one positive number"),
        ({"voxel_size": "0.5,0.5"}, "voxel_size must have one positive number"),
        ({"level": 7}, "the level must be 0 to 0"),
        ({"level": -1}, "the level must be 0 to 0"),
        ({"level": "0"}, "the level must be 0 to 0"),
        ({"level": 0, "start": (1, 1)}, "labels must lie inside the level"),
        ({"level": 0, "start": (0, 0, 0)}, "labels must lie inside the level"),
    ],
)
def test_places_and_sizes_that_there_are_not_are_refused(tmp_path: Path, asked, said) -> None:
    labels = np.pad(np.ones((4, 6), np.uint8), 3)
    for name in ("l.tif", "a.tif"):
        tifffile.imwrite(tmp_path / name, labels)
    with pytest.raises((ConfigError, DataError), match=said):
        measure(tmp_path / "l.tif", tmp_path / "a.tif", **asked)
    sizes = np.array([0.5, 0.25], np.float32)
    assert measure(tmp_path / "l.tif", tmp_path / "a.tif", voxel_size=sizes).area_um2[0] == 3
