"""Default sizes fit the network, the objects and the memory; a plan says what will be done."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from planted import code_model, write_image

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, SegmentConfig
from spoco_zoo.errors import ConfigError, InputError, StoreError
from spoco_zoo.nets.receptive import exact_halo, pooling_factor
from spoco_zoo.segment.blocks import make_grid
from spoco_zoo.segment.ledger import Ledger
from spoco_zoo.segment.output.target import run_folder
from spoco_zoo.segment.plan import make_plan
from spoco_zoo.segment.rows import rows_of
from spoco_zoo.segment.tiling import (
    BLOCK_VOXELS,
    CHUNK,
    LONGEST_ROW,
    PATCH_VOXELS,
    Tiling,
    choose_block,
    choose_chunk,
    choose_overlap,
    choose_tiling,
)

FLAT = code_model(np.arange(100).reshape(10, 10)).recipe
SOLID = code_model(np.arange(1000).reshape(10, 10, 10)).recipe


@given(st.data())
def test_default_blocks_stay_within_the_memory_and_reach_it_if_they_can(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = [data.draw(st.integers(1, 100_000 if ndim == 2 else 5000)) for _ in range(ndim)]
    core = [8 * data.draw(st.integers(1, 32)) for _ in range(ndim)]
    overlap = [data.draw(st.integers(0, 32)) for _ in range(ndim)]
    halo = [4 * data.draw(st.integers(0, 5)) for _ in range(ndim)]
    patch = tuple(c + 2 * h for c, h in zip(core, halo, strict=True))
    tiling = Tiling(patch, tuple(halo), (4,) * ndim, (data.draw(st.integers(0, 20)),) * ndim)
    block = choose_block(shape, tiling, overlap)
    outer = [min(b + 2 * o, n) for b, o, n in zip(block, overlap, shape, strict=True)]
    one = [min(c + 2 * o, n) for c, o, n in zip(core, overlap, shape, strict=True)]
    assert prod(outer) <= max(BLOCK_VOXELS[ndim], prod(one))
    divided = [i for i in range(ndim) if block[i] < shape[i]]
    assert all(block[i] % core[i] == 0 for i in divided)
    if divided:
        assert prod(shape) > BLOCK_VOXELS[ndim]
    # One block fewer along any axis would not fit.
    for i in divided:
        cores, blocks = -(-shape[i] // core[i]), -(-shape[i] // block[i])
        larger = min(-(-cores // (blocks - 1)) * core[i] + 2 * overlap[i], shape[i])
        assert prod(outer) // outer[i] * larger > BLOCK_VOXELS[ndim]
    # Objects as large as the overlap are not cut by narrow blocks where wide ones have room.
    wide = [min(2 * max(c, o) + 2 * o + c, n) for c, o, n in zip(core, overlap, shape, strict=True)]
    if prod(wide) <= BLOCK_VOXELS[ndim]:
        assert all(block[i] >= 2 * overlap[i] for i in divided)


def test_a_patch_grows_until_a_block_touches_one_core_more_than_it_has() -> None:
    shape, overlap = (500,) * 3, (17, 36, 5)
    tiling = choose_tiling(SOLID, shape, overlap)
    own = choose_tiling(SOLID, (200,) * 3, overlap)
    assert own.patch == SOLID.patch
    assert tiling.halo == own.halo
    assert tiling.patch[2] == own.patch[2]
    assert tiling.patch[:2] > own.patch[:2]
    grid = make_grid(shape, tuple(2 * c for c in tiling.core), overlap)
    field = tiling.field(shape, "linear")
    outer = grid.outer(int(np.ravel_multi_index((1, 1, 1), grid.counts)))
    sides = zip(field.axes, outer.start, outer.stop, strict=True)
    assert [len(axis.touching(a, b)) for axis, a, b in sides] == [3, 3, 3]
    # The memory bounds it, and what a user asked for stays.
    assert prod(choose_tiling(SOLID, (5000,) * 3, (150,) * 3).patch) <= PATCH_VOXELS
    assert choose_tiling(SOLID, shape, overlap, SOLID.patch).patch == SOLID.patch


def test_a_small_image_without_overlap_was_divided_and_then_refused() -> None:
    tiling = choose_tiling(FLAT, (200, 90), (0, 0))
    block = choose_block((200, 90), tiling, (0, 0))
    assert make_grid((200, 90), block, (0, 0)).total == 1


def patches_run(shape, tiling, overlap, block) -> int:
    """Counted one by one, along rows of the longest kind."""
    field = tiling.field(shape, "linear")
    grid = make_grid(shape, block, overlap)
    total = 0
    for row in rows_of(range(grid.total), grid, LONGEST_ROW):
        touched = set()
        for number in row:
            touched |= {patch.index for patch in field.patches(grid.outer(number))}
        total += len(touched)
    return total


@pytest.mark.parametrize("side", [400, 1000])
def test_cubes_as_blocks_ran_patches_of_a_volume_far_more_often(side: int) -> None:
    recipe = SOLID.model_copy(update={"patch": (112, 112, 112)})
    shape, overlap = (side,) * 3, (29,) * 3
    tiling = choose_tiling(recipe, shape, overlap)
    block = choose_block(shape, tiling, overlap)
    cube = tuple(2 * c for c in tiling.core)
    ours = patches_run(shape, tiling, overlap, block)
    assert 1.15 * ours < patches_run(shape, tiling, overlap, cube)


@given(st.lists(st.integers(1, 3000), min_size=2, max_size=3))
def test_chunks_divide_blocks_and_are_not_tiny(block: list[int]) -> None:
    for b, c in zip(block, choose_chunk(block), strict=True):
        assert b % c == 0
        assert 4 * c >= min(b, CHUNK[len(block)])


def test_the_default_halo_is_exact_in_2d_and_bounded_in_3d() -> None:
    assert choose_tiling(FLAT, (500, 500), (16, 16)).halo == exact_halo(FLAT.net)
    tall = SOLID.model_copy(update={"patch": (12, 64, 64)})
    halo = choose_tiling(tall, (50, 500, 500), (8, 8, 8)).halo
    assert halo[0] == 2
    assert halo[1:] == exact_halo(SOLID.net)[1:]


def test_a_thin_patch_had_no_halo_and_the_thinnest_keeps_a_core() -> None:
    factor = pooling_factor(SOLID.net)[0]
    halos = [
        choose_tiling(SOLID, (500, 500, 500), (8, 8, 8), (thin * factor, 64, 64)).halo[0]
        for thin in (1, 2, 3, 4, 5)
    ]
    assert halos == [0, 0, factor, factor, factor]


def test_a_2d_model_takes_a_stack_plane_by_plane() -> None:
    tiling = choose_tiling(FLAT, (30, 500, 500), (8, 90, 90))
    assert tiling.patch == (1, 64, 64)
    assert tiling.halo[0] == tiling.radius[0] == 0


def test_the_overlap_is_the_diameter_of_a_large_object_along_each_axis() -> None:
    ball = SOLID.model_copy(update={"object_size": (1, 1, 4 / 3 * np.pi * 20**3 / 4)})
    assert choose_overlap(ball, (4.0, 1.0, 1.0)) == (10, 40, 40)
    assert choose_overlap(SOLID, (4.0, 1.0, 1.0)) == (8, 8, 8)
    disc = FLAT.model_copy(update={"object_size": (1, 1, np.pi * 15**2)})
    assert choose_overlap(disc, (1.0, 1.0)) == (30, 30)


@pytest.mark.parametrize("size", [(1e-30, 1e30), (1e-99, 1e99), (1e30, 1e-30)])
def test_voxels_of_an_absurd_shape_ended_in_a_traceback(size: tuple[float, float]) -> None:
    disc = FLAT.model_copy(update={"object_size": (1, 1, 1e30)})
    overlap = choose_overlap(disc, size)
    tiling = choose_tiling(FLAT, (64, 64), overlap)
    assert min(choose_block((64, 64), tiling, overlap)) >= 64


@pytest.fixture
def image(tmp_path: Path) -> ngff.Image:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 90, 80), np.uint16), metadata={"axes": "ZYX"})
    return ngff.open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"level": 3}, "level"),
        ({"patch": (64, 64)}, "one entry per spatial axis"),
        ({"roi": ((0, 5), (0, 90), (70, 81))}, "inside the volume"),
        ({"roi": ((0, 5), (5, 5), (0, 80))}, "inside the volume"),
    ],
)
def test_settings_that_do_not_fit_the_image_are_refused(
    image: ngff.Image, tmp_path: Path, settings: dict, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make_plan(image, SOLID, SegmentConfig(**settings), output=tmp_path / "out.zarr")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": (4, 64, 64)}, "its patch must be 1 along z.*--patch 1,64,64"),
        ({"halo": (2, 12, 12)}, "its halo must be 0 along z.*--halo 0,12,12"),
    ],
)
def test_patches_of_several_planes_were_taken_for_a_2d_model(
    image: ngff.Image, tmp_path: Path, settings: dict, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make_plan(image, FLAT, SegmentConfig(**settings), output=tmp_path / "out.zarr")


def test_a_3d_model_does_not_take_a_plane(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((90, 80), np.uint16))
    with pytest.raises(ConfigError, match="3D"):
        make_plan(
            ngff.open_image(tmp_path / "b.tif"), SOLID, SegmentConfig(), output=tmp_path / "o.zarr"
        )


def test_an_output_is_needed_for_a_tiff_and_none_is_replaced(
    image: ngff.Image, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="--output"):
        make_plan(image, SOLID, SegmentConfig())
    (tmp_path / "there.tif").touch()
    with pytest.raises(InputError, match="--overwrite"):
        make_plan(image, SOLID, SegmentConfig(), output=tmp_path / "there.tif")


def test_a_plan_writes_nothing_and_says_all(image: ngff.Image, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    plan = make_plan(image, SOLID, SegmentConfig(), output=tmp_path / "out.zarr")
    text = plan.summary()
    assert set(tmp_path.iterdir()) == before
    assert text["shape"].startswith("5 x 90 x 80")
    assert text["output"] == str(tmp_path / "out.zarr")
    assert {"blocks", "memory per worker", "disk needed", "disk free"} <= set(text)
    assert plan.config.block is not None
    assert plan.disk_bytes < plan.disk_free


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    sizes = []
    for n in (768, 1024):
        path = tmp_path / f"{n}.tif"
        tifffile.memmap(path, shape=(n, n, n), dtype=np.uint8, metadata={"axes": "ZYX"})
        plan = make_plan(ngff.open_image(path), SOLID, SegmentConfig(), output=tmp_path / "o.zarr")
        sizes.append(plan.worker_bytes)
        assert prod(plan.grid.widest) <= BLOCK_VOXELS[3]
    # Blocks are chosen for each volume, and fill the same memory more or less.
    assert max(sizes) < 1.05 * min(sizes)


def test_a_small_run_took_more_disk_than_was_said(tmp_path: Path) -> None:
    """25 blocks of 32 x 32 took 460 KiB where 35.2 KiB at most were needed, as it was said."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((160, 150), np.uint16))
    image, config = ngff.open_image(tmp_path / "a.tif"), SegmentConfig(block=(32, 32))
    for version in ("0.4", "0.5"):
        plan = make_plan(image, FLAT, config, output=tmp_path / "o.ome.zarr", version=version)
        # A file takes up a piece of the disk, however small it is; and there is a page.
        assert plan.disk_bytes > 125 * 4096 + 2**21


def test_the_disk_that_a_run_had_used_itself_kept_it_from_going_on(tmp_path: Path) -> None:
    store = write_image(tmp_path / "a.ome.zarr", np.arange(512).reshape(8, 8, 8), "ZYX")
    metadata = store / "0" / "zarr.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**content, "shape": [2**17] * 3}))
    image, output = ngff.open_image(store), tmp_path / "o.zarr"
    with pytest.raises(StoreError, match="of disk"):
        make_plan(image, SOLID, SegmentConfig(), output=output)
    folder = run_folder(image, output, "spoco")
    folder.mkdir()
    Ledger(folder, {}).close()
    assert make_plan(image, SOLID, SegmentConfig(), output=output).folder == folder


def test_the_second_embedding_of_consistency_clustering_was_not_counted(
    image: ngff.Image, tmp_path: Path
) -> None:
    plans = {
        method: make_plan(
            image,
            SOLID,
            SegmentConfig(clustering=ClusteringConfig(method=method)),
            output=tmp_path / "o.zarr",
        )
        for method in ("meanshift", "consistency")
    }
    more = plans["consistency"].worker_bytes - plans["meanshift"].worker_bytes
    assert more == 4 * 2 * SOLID.net.embedding_dim * 5 * 90 * 80
