"""Runs that went on after a failure, and once did so wrongly or not at all."""

from __future__ import annotations

import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import (
    after,
    code_model,
    exact_cluster,
    read_labels,
    same_partition,
    store_bytes,
    tissue,
    write_image,
)

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import BlocksFailed, GoneError, Interrupted, LedgerError, StoreError
from spoco_zoo.segment import Event, segment

CONFIG = SegmentConfig(block=(64, 64), overlap=(16, 16), patch=(64, 64), halo=(2, 2))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """A run on two blocks and five objects, one of them across the face."""
    truth = np.zeros((64, 128), np.int32)
    truth[0, 0] = truth[-1, -1] = 3  # no dark frame, which would not count for the statistics
    truth[10:30, 50:80], truth[40:50, 10:20], truth[40:60, 90:120] = 1, 2, 3
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    return partial(segment, image, code_model(truth), cluster=exact_cluster)


@pytest.mark.parametrize("zoom", [None, 0.5])
def test_a_face_that_failed_once_left_the_object_cut_after_the_retry(
    run: Callable[..., Any], tmp_path: Path, zoom: float | None
) -> None:
    config = CONFIG.model_copy(update={"zoom": zoom, "block": (64, 64) if not zoom else (32, 32)})
    output, obstacle = tmp_path / "o.zarr", tmp_path / "o.zarr.spoco-run" / "faces"
    run(config, output=tmp_path / "alone.zarr")
    with pytest.raises(BlocksFailed, match="faces block 0"):
        run(config, output=output, on_event=after("blocks", obstacle.touch))
    obstacle.unlink()
    assert run(config, output=output).objects == 5
    assert store_bytes(output) == store_bytes(tmp_path / "alone.zarr")


@pytest.mark.parametrize("zoom", [None, 0.5])
def test_a_block_that_was_not_relabelled_once_stayed_empty_in_other_levels_after_the_retry(
    run: Callable[..., Any], tmp_path: Path, zoom: float | None
) -> None:
    config = CONFIG.model_copy(update={"zoom": zoom, "block": (64, 64) if not zoom else (32, 32)})
    output, away = tmp_path / "o.zarr", tmp_path / "away"
    shard = tmp_path / "o.zarr.spoco-run" / "local.zarr" / "c" / "0" / "0" / "1"
    run(config, output=tmp_path / "alone.zarr")
    with pytest.raises(BlocksFailed, match="relabel block 1"):
        run(config, output=output, on_event=after("faces", lambda: shard.rename(away)))
    again = run(config, output=output)  # still away: the block is made again
    assert (again.objects, again.resumed) == (5, 1)
    assert store_bytes(output) == store_bytes(tmp_path / "alone.zarr")


def test_damaged_views_of_a_slab_were_a_riddle_that_the_same_command_did_not_solve(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output, alone = tmp_path / "o.zarr", tmp_path / "alone.zarr"
    file = tmp_path / "o.zarr.spoco-run" / "blocks" / "000000" / "000000001.npz"
    whole = run(CONFIG, output=alone)

    def damage() -> None:
        with zipfile.ZipFile(file) as views:
            members = {name: views.read(name) for name in views.namelist()}
        with zipfile.ZipFile(file, "w") as views:
            for name, content in members.items():
                views.writestr(name, content[:-9] if "labels" in name else content)

    with pytest.raises(BlocksFailed, match=r"faces block 0 .*makes that block again"):
        run(CONFIG, output=output, on_event=after("blocks", damage))
    again = run(CONFIG, output=output)
    assert (again.objects, again.resumed) == (5, 1)
    assert store_bytes(output) == store_bytes(alone)
    # A block that was made twice counts once.
    counted = ("blocks", "local_objects", "voxels", "kept_voxels")
    assert all(again.summary["blocks"][k] == whole.summary["blocks"][k] for k in counted)


def test_damage_that_the_report_meets_is_mended_by_the_same_command(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output, alone = tmp_path / "o.zarr", tmp_path / "alone.zarr"
    file = tmp_path / "o.zarr.spoco-run" / "blocks" / "000000" / "000000001.npz"
    run(CONFIG, output=alone)
    with pytest.raises(StoreError, match="makes that block again"):
        run(CONFIG, output=output, on_event=after("relabel", file.unlink))
    assert run(CONFIG, output=output).objects == 5
    assert store_bytes(output) == store_bytes(alone)


def test_a_block_is_not_made_again_of_another_image(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output = tmp_path / "o.zarr"
    shard = tmp_path / "o.zarr.spoco-run" / "local.zarr" / "c" / "0" / "0" / "1"
    with pytest.raises(BlocksFailed):
        run(CONFIG, output=output, on_event=after("blocks", shard.unlink))
    stored = zarr.open_array(tmp_path / "image.ome.zarr" / "0", mode="r+")
    stored[...] = stored[...] // 2 + 7
    with pytest.raises(LedgerError, match="other intensities"):
        run(CONFIG, output=output)


@pytest.mark.parametrize("zoom", [None, 0.5])
@pytest.mark.parametrize(
    "other",
    [
        lambda values: values // 2 + 7,
        # Mean and deviation of these are those of the first.
        lambda values: values[::-1],
        lambda values: np.roll(values, 64, axis=1),
    ],
    ids=["darker", "flipped", "swapped"],
)
def test_labels_were_those_of_two_images_if_it_was_replaced_before_the_retry(
    run: Callable[..., Any],
    tmp_path: Path,
    other: Callable[[np.ndarray], np.ndarray],
    zoom: float | None,
) -> None:
    config = CONFIG.model_copy(update={"zoom": zoom, "block": (64, 64) if not zoom else (32, 32)})
    output, image = tmp_path / "o.zarr", tmp_path / "image.ome.zarr"

    def interrupt(event: Event) -> None:
        if event.phase == "blocks" and event.done == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(config, output=output, on_event=interrupt)
    stored = zarr.open_array(image / "0", mode="r+")
    former = np.asarray(stored[...])
    stored[...] = other(former)
    with pytest.raises(LedgerError, match=r"other intensities in .*image\.ome\.zarr.*--overwrite"):
        run(config, output=output)
    stored[...] = former
    assert run(config, output=output).resumed == 1


def test_eight_blocks_that_stay_bad_kept_a_resumed_run_from_ever_ending(tmp_path: Path) -> None:
    truth = np.zeros((64, 32 * 12), np.int32)
    truth[0, 0] = truth[-1, -1] = 1  # no dark frame, which would not count for the statistics
    for i in range(12):
        truth[10:20, 32 * i + 8 : 32 * i + 24] = i + 1
    image, output = write_image(tmp_path / "image.ome.zarr", truth, "YX"), tmp_path / "o.zarr"

    def cluster(embeddings: Any, *settings: Any, momentum: Any = None) -> np.ndarray:
        labels = exact_cluster(embeddings, *settings)
        if float(embeddings.sum(0).max()) > 4 * 4:
            raise ValueError("a bad block")
        return labels

    def stop(event: Event) -> None:
        if event.phase == "blocks" and event.done == 12:
            raise KeyboardInterrupt

    config = CONFIG.model_copy(update={"block": (64, 32), "overlap": (4, 4)})
    begin = partial(segment, image, code_model(truth), config, output=output, cluster=cluster)
    with pytest.raises(Interrupted):
        begin(on_event=stop)
    for _ in range(2):
        with pytest.raises(BlocksFailed, match="8 without result"):
            begin()
    assert np.unique(read_labels(output)).tolist() == [0, 1, 2, 3, 4, 5]


def test_an_image_of_which_nothing_can_be_read_is_unusable_input(tmp_path: Path) -> None:
    """It was a failure of the work (exit code 1), and a run folder stayed."""
    pixels = np.random.default_rng(0).integers(90, 110, (48, 48)).astype(np.uint16)
    image = write_image(tmp_path / "image.ome.zarr", pixels, "YX")
    (chunk,) = (path for path in (image / "0" / "c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:20])
    call = partial(segment, image, "nuclei-fluo-2d-sparse", output=tmp_path / "o.zarr")
    with pytest.raises(
        StoreError, match=r"must be readable; found .*Copy the image again"
    ) as caught:
        call()
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["image.ome.zarr"]
    chunk.write_bytes(whole)
    assert call().objects == 0


def test_an_image_that_was_moved_while_it_was_segmented_had_no_further_objects(
    tmp_path: Path,
) -> None:
    """The run ended with exit code 0, and a label that was 0 from there on."""
    truth = tissue((64, 192), 9, 1)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    config = CONFIG.model_copy(update={"block": (32, 32)})
    call = partial(segment, image, code_model(truth), config, cluster=exact_cluster)

    def move(event: Event) -> None:
        if event.phase == "blocks" and event.done == 4 and image.exists():
            image.rename(tmp_path / "moved")

    with pytest.raises(GoneError, match="must stay where it is"):
        call(on_event=move)
    assert not image.exists()  # nothing is left where it was
    (tmp_path / "moved").rename(image)
    assert call().objects == 9
    assert same_partition(read_labels(image / "labels" / "spoco"), truth)


@pytest.mark.parametrize("zoom", [None, 0.5])
def test_a_chunk_that_was_deleted_while_an_image_was_segmented_was_zeros(
    tmp_path: Path, zoom: float | None
) -> None:
    truth = tissue((128, 128), 30, 3)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    shutil.rmtree(image / "0")
    options = {"shape": truth.shape, "chunks": (32, 32), "dtype": "u2"}
    stored = zarr.create_array(image / "0", **options, dimension_names=["y", "x"])
    stored[...] = truth
    config = CONFIG.model_copy(update={"block": (32, 32) if zoom else (64, 64), "zoom": zoom})
    call = partial(segment, image, code_model(truth), config, cluster=exact_cluster)
    objects = call(output=tmp_path / "alone.zarr").objects
    chunk, away = image / "0" / "c" / "3" / "3", tmp_path / "away"
    with pytest.raises(BlocksFailed, match="0/c/3/3 was there and is not any more"):
        call(output=tmp_path / "o.zarr", on_event=after("blocks", lambda: chunk.rename(away), 2))
    with pytest.raises(BlocksFailed, match="not any more"):
        call(output=tmp_path / "o.zarr")
    away.rename(chunk)
    assert call(output=tmp_path / "o.zarr").objects == objects
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "alone.zarr")
    # One that was never written may be absent: its voxels have the fill value.
    chunk.unlink()
    assert call(output=tmp_path / "other.zarr").objects > 0


def test_one_damaged_chunk_kept_all_the_rest_from_being_segmented(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(90, 110, (320, 320)).astype(np.uint16)
    for y, x in np.ndindex(8, 8):
        pixels[40 * y + 10 : 40 * y + 26, 40 * x + 12 : 40 * x + 28] += 400
    image = write_image(tmp_path / "image.ome.zarr", pixels, "YX")
    shutil.rmtree(image / "0")
    level = zarr.create_array(
        image / "0", shape=pixels.shape, chunks=(64, 64), dtype="u2", dimension_names=["y", "x"]
    )
    level[...] = pixels
    chunk = image / "0" / "c" / "4" / "4"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:40])
    config = SegmentConfig(block=(64, 64), overlap=(16, 16), patch=(64, 64), halo=(8, 8))
    told: list[str] = []
    call = partial(segment, image, "nuclei-fluo-2d-sparse", config, output=tmp_path / "o.zarr")
    with pytest.raises(BlocksFailed, match="must be readable"):
        call(on_event=lambda event: told.append(event.message))
    assert any("a part of the image cannot be read" in text for text in told)
    first = read_labels(tmp_path / "o.zarr")
    assert len(np.unique(first[:192, :192])) == 26  # 5 x 5 squares begin there
    assert not first[256:, 256:].any()
    chunk.write_bytes(whole)
    assert call().objects == 64
    # All blocks are normalised alike, by all of the image.
    plain = config.model_copy(update={"zoom": 1.0})  # it could not be looked at
    segment(image, "nuclei-fluo-2d-sparse", plain, output=tmp_path / "alone.zarr")
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "alone.zarr")


def test_two_runs_in_threads_of_one_process_took_each_other_s_model(tmp_path: Path) -> None:
    truths = [tissue((64, 192), 9, seed) for seed in (1, 2)]
    images = [
        write_image(tmp_path / f"{n}.ome.zarr", truth, "YX") for n, truth in enumerate(truths)
    ]
    models = [code_model(truth) for truth in truths]
    call = partial(segment, config=CONFIG, cluster=exact_cluster)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(call, images, models))
    for result, image, truth in zip(results, images, truths, strict=True):
        assert result.objects == 9
        assert same_partition(read_labels(image / "labels" / "spoco"), truth)
