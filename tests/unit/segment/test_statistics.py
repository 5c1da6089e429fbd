"""One mean and one deviation per volume, read in pieces."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from spoco_zoo import intensities, ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import DataError, StoreError
from spoco_zoo.intensities import Statistics, normalise
from spoco_zoo.segment import normalise as module
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.segment.network.models import ModelRef
from spoco_zoo.segment.normalise import checksum, measure, read_normalised
from spoco_zoo.segment.run import dry_run
from spoco_zoo.segment.tasks import make_common, read_block
from spoco_zoo.train.data import make_sample


@pytest.mark.parametrize("piece", [50, 10**6])
def test_pieces_give_the_moments_of_the_whole(tmp_path: Path, monkeypatch, piece: int) -> None:
    values = np.random.default_rng(0).normal(3e4, 20, (11, 13, 17)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "ZYX"})
    monkeypatch.setattr(intensities, "PIECE", piece)
    monkeypatch.setattr(module, "MOST_PIECES", 10**4)
    found = measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-9)
    assert found.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)


def test_a_large_level_is_sampled_evenly(tmp_path: Path, monkeypatch) -> None:
    values = np.add.outer(np.arange(300.0), np.arange(200.0)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    monkeypatch.setattr(intensities, "PIECE", 100)
    monkeypatch.setattr(module, "MOST_PIECES", 25)
    found = measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))
    assert found.mean == pytest.approx(values.mean(), rel=0.02)
    assert found == measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))


def test_a_checksum_tells_images_of_the_same_moments_apart(tmp_path: Path, monkeypatch) -> None:
    values = np.random.default_rng(0).integers(0, 99, (2, 30, 40)).astype(np.uint16)
    values[1] = values[0, ::-1]
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, metadata={"axes": "TYX"})
    monkeypatch.setattr(intensities, "PIECE", 100)
    image = ngff.open_image(tmp_path / "a.tif")
    seen = ngff.rescale_image(image, 0, (0.5, 0.5))
    for view, times in ((image, (0, 1)), (seen, (1,))):
        for time in times:
            assert checksum(view, 0, time, (0,)) == measure(view, 0, time, (0,)).checksum != 0
    assert checksum(image, 0, 0, (0,)) != checksum(image, 0, 1, (0,)) == checksum(seen, 0, 1, (0,))


@pytest.mark.parametrize("shape", [(1, 40, 50), (2, 40, 50), (40, 2, 50), (9, 15, 16)])
def test_of_a_thin_stack_as_much_is_read_as_of_any_image(
    tmp_path: Path, monkeypatch, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "ZYX"})
    monkeypatch.setattr(intensities, "PIECE", 64)
    found = measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))
    assert found[:2] == pytest.approx((values.mean(dtype=np.float64), values.std()), rel=1e-6)


def test_what_a_sample_of_one_value_has_missed_is_found(tmp_path: Path, monkeypatch) -> None:
    values = np.zeros((400, 400), np.uint16)
    values[111:130, 111:130] = np.random.default_rng(0).integers(1, 9, (19, 19))
    tifffile.imwrite(tmp_path / "a.tif", values)
    tifffile.imwrite(tmp_path / "b.tif", values * 0)
    monkeypatch.setattr(intensities, "PIECE", 100)
    monkeypatch.setattr(module, "MOST_PIECES", 4)
    told = []
    tell = lambda *call: told.append(call)  # noqa: E731
    assert measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,), tell=tell).std > 1
    assert told == [(n, 1600) for n in range(1600)]
    assert measure(ngff.open_image(tmp_path / "b.tif"), 0, 0, (0,)).std == 0


def test_a_chunk_that_cannot_be_read_hides_nothing_else(tmp_path: Path, monkeypatch) -> None:
    values = np.full((60, 60), 7, np.uint16)
    values[32:36, 22:26] = 100
    tifffile.imwrite(tmp_path / "a.tif", values)
    ngff.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    shutil.rmtree(tmp_path / "a.ome.zarr" / "0")
    zarr.create_array(tmp_path / "a.ome.zarr" / "0", data=values, chunks=(10, 10))
    chunk = tmp_path / "a.ome.zarr" / "0" / "c" / "2" / "3"
    chunk.write_bytes(b"no chunk")
    monkeypatch.setattr(intensities, "PIECE", 100)
    monkeypatch.setattr(module, "MOST_PIECES", 4)
    image, told = ngff.open_image(tmp_path / "a.ome.zarr"), []
    found = measure(image, 0, 0, (0,), on_unread=told.append)
    assert found.std > 0
    assert found.checksum == 0
    assert len(told) == 1
    with pytest.raises(StoreError, match="must be readable"):
        measure(image, 0, 0, (0,))


def test_the_voxel_that_is_not_finite_is_named(tmp_path: Path) -> None:
    values = np.zeros((20, 30), np.float32)
    values[7, 21] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(DataError, match="7,21"):
        measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))


def test_normalised_values_have_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(1).integers(0, 65535, (2, 40, 40)).astype(np.uint16)
    scaled = normalise(values, Statistics(float(values.mean()), float(values.std())))
    assert scaled.dtype == np.float32
    assert abs(scaled.mean()) < 1e-5
    assert scaled.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("factor", [2.0, 1.7, 0.5, 0.2])
@pytest.mark.parametrize("spoilt", ["frame", "grey frame", "hot"])
@pytest.mark.parametrize("kind", ["u2", "f8"])
def test_resampling_does_not_spread_what_does_not_count(
    tmp_path: Path, factor: float, spoilt: str, kind: str
) -> None:
    rng = np.random.default_rng(0)
    body = rng.normal(1000, 100, (200, 210)).astype(kind)
    other = body.copy()
    if spoilt == "hot":
        other[[7, 90, 150], [40, 3, 201]] = 65535
    else:
        other = np.pad(body, 13, constant_values=0 if spoilt == "frame" else 137)

    def measured(values: np.ndarray) -> Statistics:
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
        view = ngff.rescale_image(ngff.open_image(tmp_path / "a.tif"), 0, (factor, factor))
        return measure(view, 0, 0, (0,))

    plain, found = measured(body), measured(other)
    assert found.mean == pytest.approx(plain.mean, abs=0.05 * plain.std)
    assert found.std == pytest.approx(plain.std, rel=0.05)
    assert measured(np.full((40, 50), 0.1 if kind == "f8" else 137).astype(kind)).std == 0


def test_a_later_time_point_of_a_coarser_level_has_its_own(tmp_path: Path) -> None:
    """With a frame whose width the factor between levels does not divide."""
    rng = np.random.default_rng(0)
    body = rng.normal(1000, 100, (2, 120, 130))
    body[1] = 3 * body[1] + 500
    framed = np.pad(body, [(0, 0), (13, 13), (13, 13)]).astype(np.uint16)
    for name, values in (("body", body.astype(np.uint16)), ("framed", framed)):
        group = zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="w", zarr_format=2)
        group.create_array("0", data=values)
        means = values.reshape(2, values.shape[1] // 2, 2, values.shape[2] // 2, 2).mean((2, 4))
        group.create_array("1", data=means.astype(np.uint16))
        axes = [{"name": "t", "type": "time"}, *({"name": a, "type": "space"} for a in "yx")]
        levels = [
            {
                "path": str(n),
                "coordinateTransformations": [{"type": "scale", "scale": [1, 2**n, 2**n]}],
            }
            for n in range(2)
        ]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    body_image, image = (ngff.open_image(tmp_path / f"{n}.ome.zarr") for n in ("body", "framed"))
    plain, found = (measure(one, 1, 1, (0,)) for one in (body_image, image))
    assert found.std == pytest.approx(plain.std, rel=0.03)
    assert found.std == pytest.approx(150, rel=0.1)
    view = measure(ngff.rescale_image(image, 1, (1.5, 1.5)), 0, 1, (0,))
    assert view.mean == pytest.approx(3500, rel=0.01)


def test_blocks_are_read_as_they_were_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 100, (200, 210)).astype(np.uint16)
    seen = []
    for hot in (False, True):
        if hot:
            values[[7, 90, 150], [40, 3, 201]] = 65535
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
        plan = dry_run(tmp_path / "a.tif", "nuclei-fluo-2d", SegmentConfig(zoom=0.5))
        statistics = (measure(plan.image, plan.level, 0, plan.channels),)
        common = make_common(plan, statistics, None, ModelRef("", ""), cluster, "cpu")
        seen.append(read_block(common, 0).pixels)
    assert np.abs(seen[1] - seen[0]).max() < 3  # 300 without being mended first


@pytest.mark.parametrize("factor", [1, 2, 0.4])
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_hot_pixels_are_mended_alike_in_every_region(
    tmp_path: Path, factor: float, share: float
) -> None:
    """What is cut off at a neighbour was another value if that was mended by what was not read."""
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 100, (60, 70)).astype(np.uint16)
    values[rng.random(values.shape) < share] = 65535
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    image = ngff.open_image(tmp_path / "a.tif")
    if factor != 1:
        image = ngff.rescale_image(image, 0, (factor, factor))
    found = measure(image, 0, 0, (0,))
    if share == 0.1:
        found = found._replace(spike=500, high=1200, cut_spike=500, cut_high=1200)
    shape = image.spatial_shape()
    whole = read_normalised(image, 0, 0, (0,), Box((0, 0), shape), found)
    for y, x in product(range(0, shape[0] - 8, 7), range(0, shape[1] - 9, 8)):
        part = read_normalised(image, 0, 0, (0,), Box((y, x), (y + 8, x + 9)), found)
        assert np.array_equal(part, whole[:, y : y + 8, x : x + 9])


@pytest.mark.parametrize("factor", [2, 1.25])
def test_single_photons_of_an_image_that_is_resampled_were_spikes(
    tmp_path: Path, factor: float
) -> None:
    counted = np.random.default_rng(0).poisson(0.02, (200, 210)).astype(np.uint8)
    counted[40:100, 50:150] = np.random.default_rng(1).poisson(0.4, (60, 100))
    tifffile.imwrite(tmp_path / "a.tif", counted, photometric="minisblack")
    view = ngff.rescale_image(ngff.open_image(tmp_path / "a.tif"), 0, (factor, factor))
    found = measure(view, 0, 0, (0,))
    assert (found.spike, found.cut_spike) == (np.inf, np.inf)


def test_an_image_is_normalised_alike_for_training(tmp_path: Path, monkeypatch) -> None:
    """Large images in pieces, of which each is left without lines of one value."""
    monkeypatch.setattr(intensities, "PIECE", 40 * 40)
    values = np.zeros((120, 90), np.uint16)
    values[5:20, 10:20] = np.random.default_rng(0).integers(500, 900, (15, 10))
    values[100:110, 60:80] = 700
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    sample = make_sample("a", values[None].astype(np.float32), np.ones(values.shape, np.int32))
    found = measure(ngff.open_image(tmp_path / "a.tif"), 0, 0, (0,))
    assert sample.statistics == found._replace(checksum=0)
