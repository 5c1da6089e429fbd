"""Image in, label image out: the same whatever the blocks, the workers and their order."""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import (
    code_model,
    exact_cluster,
    read_labels,
    same_partition,
    split_connected,
    store_bytes,
    tissue,
    write_image,
)

from spoco_zoo import __version__, ngff
from spoco_zoo.config import ClusteringConfig, SegmentConfig
from spoco_zoo.errors import (
    ConfigError,
    DataError,
    Interrupted,
    LedgerError,
    SpocoError,
    StoreError,
)
from spoco_zoo.locking import RunLock
from spoco_zoo.segment import Event, SegmentResult, dry_run, guess_time, open_labels, segment
from spoco_zoo.segment.execute import make_executor

CELLS = 300
SMALL = SegmentConfig(block=(128, 128), overlap=(16, 16), patch=(64, 64), halo=(12, 12))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return tissue((512, 500), CELLS, seed=1)


@pytest.fixture
def image(tmp_path: Path, truth: np.ndarray) -> Path:
    return write_image(tmp_path / "image.ome.zarr", truth, "YX")


def test_what_a_users_own_clustering_leaves_out_was_not_too_small(
    image: Path, truth: np.ndarray
) -> None:
    def halved(embeddings: Any, *rest: Any, **others: Any) -> np.ndarray:
        labels = exact_cluster(embeddings, *rest, **others)
        return np.where(labels % 2, labels, 0)

    result = segment(image, code_model(truth), SMALL, cluster=halved)
    assert 0 < result.objects < CELLS
    assert result.summary["hint"] == ""


def test_300_of_300_gap_free_cells(image: Path, truth: np.ndarray, tmp_path: Path) -> None:
    events: list[Event] = []
    result = segment(image, code_model(truth), SMALL, cluster=exact_cluster, on_event=events.append)
    label = image / "labels" / "spoco"
    assert result.output == str(label)
    assert result.objects == CELLS
    labels = read_labels(label)
    assert same_partition(labels, truth)
    assert labels.dtype == np.uint32
    assert np.unique(labels).tolist() == list(range(1, CELLS + 1))
    assert [e.phase for e in events if e.done == e.total] == [
        "blocks", "faces", "relabel", "level 1",
    ]  # fmt: skip
    shown = open_labels(image)
    assert shown.shape == truth.shape
    assert int(shown[100:110, 7].values.max()) == labels[100:110, 7].max()
    # Only the report stays beside the label.
    assert [p.name for p in result.report.parent.iterdir()] == ["segment.json"]


def test_the_report_counts_what_is_there(image: Path, truth: np.ndarray) -> None:
    result = segment(image, code_model(truth), SMALL, cluster=exact_cluster)
    report = json.loads(result.report.read_text())
    sizes = np.bincount(truth.ravel())[1:]
    assert report["objects"] == report["sizes"]["objects"] == CELLS
    assert report["sizes"]["voxels"] == truth.size
    assert report["sizes"]["largest"] == sizes.max()
    assert report["sizes"]["smallest"] == sizes.min()
    assert report["sizes"]["histogram"]["512"] == ((sizes >= 512) & (sizes < 1024)).sum()
    assert report["blocks"]["blocks"] == 16
    assert report["faces"]["faces"] == 24
    assert report["faces"]["cut"] == report["faces"]["refused_embedding"] == 0
    assert report["faces"]["accepted"] >= report["blocks"]["local_objects"] - CELLS
    assert report["failures"] == []


@pytest.mark.parametrize(
    ("settings", "workers"),
    [({}, 0), ({"block": (96, 80), "roi": ((30, 400), (17, 500))}, 0), ({}, 2)],
)
def test_a_dry_run_counts_the_patches_and_guesses_the_time(
    image: Path, truth: np.ndarray, tmp_path: Path, settings: dict, workers: int
) -> None:
    model, config = code_model(truth), SMALL.model_copy(update=settings)
    output = tmp_path / "o.zarr"
    plan = dry_run(image, model, config, output=output)
    guess = guess_time(plan, model, exact_cluster, workers=workers or 1)
    assert not output.exists()
    assert not plan.folder.exists()
    result = segment(
        image, model, config, output=output, cluster=exact_cluster, workers=workers, dashboard=False
    )
    assert guess.forwards == result.summary["blocks"]["patches"]
    assert guess.seconds > 0
    assert f"{guess.forwards} patches" in guess.text()


@pytest.mark.parametrize("block", [(40, 512), (96, 80), (512, 512), (61, 127)])
def test_blocks_do_not_show(image: Path, truth: np.ndarray, tmp_path: Path, block) -> None:
    config = SMALL.model_copy(update={"block": block})
    segment(image, code_model(truth), config, output=tmp_path / "o.zarr", cluster=exact_cluster)
    assert same_partition(read_labels(tmp_path / "o.zarr"), truth)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_volumes_with_time_and_channels(tmp_path: Path, version: str) -> None:
    times = [tissue((20, 70, 60), 40, seed) for seed in (1, 2)]
    values = np.stack([np.stack([np.zeros_like(t), t]) for t in times])
    image = write_image(tmp_path / "a.ome.zarr", values, "TCZYX", version)
    config = SegmentConfig(
        block=(12, 32, 32), overlap=(4, 8, 8), patch=(16, 32, 32), halo=(2, 4, 4), channel=1
    )
    # Both time points are normalised on their own; the model undoes the one of the first.
    same = np.stack([values[0], values[0][:, ::-1, ::-1]])
    image = write_image(tmp_path / "b.ome.zarr", same, "TCZYX", version)
    result = segment(image, code_model(times[0]), config, cluster=exact_cluster, label_name="c")
    label = image / "labels" / "c"
    assert ngff.open_image(label).axes == ("t", "z", "y", "x")
    assert ngff.open_image(label).version == version
    first, second = read_labels(label, 0), read_labels(label, 1)
    assert same_partition(first, times[0])
    assert same_partition(second, times[0][::-1, ::-1])
    assert result.objects == 80
    assert set(np.unique(first)).isdisjoint(np.unique(second))
    assert (image / "labels").exists()


def test_a_region_gives_what_the_whole_gives(
    image: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    config = SMALL.model_copy(update={"roi": ((100, 411), (37, 300))})
    segment(image, code_model(truth), config, output=tmp_path / "o.zarr", cluster=exact_cluster)
    labels = read_labels(tmp_path / "o.zarr")
    assert same_partition(labels, split_connected(truth[100:411, 37:300]))
    level = ngff.open_image(tmp_path / "o.zarr").levels[0]
    assert level.translation == (100.0, 37.0)


def test_a_2d_model_on_a_stack_links_its_planes(tmp_path: Path) -> None:
    truth = np.repeat(tissue((120, 110), 30, seed=3)[None], 12, axis=0)
    truth[4:8] = 0  # fewer empty planes would be lost ones
    truth[8:][truth[8:] > 0] += 30
    image = write_image(tmp_path / "a.ome.zarr", truth, "ZYX")
    config = SegmentConfig(block=(3, 64, 64), overlap=(1, 12, 12))
    model = code_model(truth, ndim=2)
    result = segment(image, model, config, cluster=exact_cluster)
    assert result.objects == 60
    assert same_partition(read_labels(image / "labels" / "spoco"), truth)


def test_tiff_in_and_out(tmp_path: Path, truth: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", truth.astype(np.uint16))
    segment(
        tmp_path / "a.tif",
        code_model(truth),
        SMALL,
        output=tmp_path / "labels.tif",
        cluster=exact_cluster,
    )
    assert same_partition(tifffile.imread(tmp_path / "labels.tif"), truth)


def test_the_address_of_a_file_was_taken_for_a_folder_called_file(
    tmp_path: Path, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "a.tif", truth.astype(np.uint16))
    for name in ("labels.tif", "labels.ome.zarr"):
        output = f"file://{tmp_path / name}"
        result = segment(
            tmp_path / "a.tif", code_model(truth), SMALL, output=output, cluster=exact_cluster
        )
        assert result.output == str(tmp_path / name)
        assert result.report.parent == tmp_path / f"{name}.spoco-run"
    assert not (tmp_path / "file:").exists()


def test_two_runs_wrote_one_label_where_a_link_led_to_its_store(
    image: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    link, model = tmp_path / "link.ome.zarr", code_model(truth)
    link.symlink_to(image)
    folder = dry_run(image, model, SMALL).folder
    folder.mkdir()
    with RunLock(folder), pytest.raises(LedgerError, match="one run at a time"):
        segment(link, model, SMALL, cluster=exact_cluster)


@pytest.mark.parametrize("block", [(64, 64), (128, 128)])
def test_objects_finer_than_a_pixel_of_the_label_had_ids_that_no_pixel_has(
    tmp_path: Path, block: tuple[int, int]
) -> None:
    """Between two cells the enlarged image has values of others: objects of a network's pixel."""
    cells = tissue((32, 32), 12, seed=3)
    image, model = write_image(tmp_path / "a.ome.zarr", cells, "YX"), code_model(cells)
    config = SMALL.model_copy(update={"zoom": 4, "block": block, "halo": (4, 4)})
    result = segment(image, model, config, cluster=exact_cluster)
    ids = np.unique(read_labels(image / "labels" / "spoco"))
    assert ids[ids > 0].tolist() == list(range(1, result.objects + 1))
    assert result.summary["sizes"]["objects"] == result.objects


def test_a_constant_image_has_no_objects(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.ome.zarr", np.full((64, 300), 7), "YX")
    model = code_model(np.arange(100).reshape(10, 10))
    result = segment(image, model, SegmentConfig(), cluster=exact_cluster)
    assert result.objects == 0
    assert not read_labels(image / "labels" / "spoco").any()


def test_a_value_that_is_not_finite_is_named_before_any_block(tmp_path: Path) -> None:
    values = np.zeros((64, 64), np.float32)
    values[5, 9] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    model = code_model(np.arange(100).reshape(10, 10))
    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match="5,9"):
        segment(tmp_path / "a.tif", model, output=tmp_path / "o.zarr", cluster=exact_cluster)
    assert set(tmp_path.iterdir()) == before


def test_workers_that_were_refused_left_a_ledger_that_bound_the_next_run(
    image: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    begin = partial(segment, image, code_model(truth), cluster=exact_cluster)
    with pytest.raises(ConfigError, match="brings its own workers"):
        begin(scheduler="tcp://127.0.0.1:9", workers=2)
    assert set(tmp_path.iterdir()) == before
    assert begin(SMALL).objects == CELLS


@pytest.mark.parametrize("device", ["cuda:7", "gpu"])
def test_a_device_that_is_not_there_gave_an_empty_label(
    image: Path, truth: np.ndarray, device: str
) -> None:
    with pytest.raises(ConfigError, match="cuda or cuda:I, and be there"):
        segment(image, code_model(truth), cluster=exact_cluster, device=device)
    assert not (image / "labels").exists()


def test_a_clustering_that_the_model_cannot_do_gave_an_empty_label(
    image: Path, truth: np.ndarray
) -> None:
    config = SegmentConfig(clustering=ClusteringConfig(method="consistency"))
    for act in (segment, dry_run):
        with pytest.raises(ConfigError, match="momentum network"):
            act(image, code_model(truth), config)
    assert not (image / "labels").exists()


def test_an_image_of_few_blocks_that_all_failed_got_an_empty_label(
    image: Path, truth: np.ndarray
) -> None:
    def cluster(*embeddings: object, **momentum: object) -> np.ndarray:
        raise ValueError("every block is bad")

    with pytest.raises(SpocoError, match=r"no block has a result; .*every block is bad") as caught:
        segment(image, code_model(truth), cluster=cluster)
    assert caught.value.exit_code == 1
    assert not (image / "labels").exists()


def stop(event: Event) -> None:
    """Interrupt a run at its third block."""
    if event.phase == "blocks" and event.done == 3:
        raise KeyboardInterrupt


def test_refused_workers_cost_what_an_unfinished_run_had_done(
    image: Path, truth: np.ndarray
) -> None:
    begin = partial(segment, image, code_model(truth), SMALL, cluster=exact_cluster)
    with pytest.raises(Interrupted):
        begin(on_event=stop)
    with pytest.raises(ConfigError, match="brings its own workers"):
        begin(scheduler="tcp://127.0.0.1:9", workers=2, overwrite=True)
    assert begin().resumed >= 2


@pytest.mark.parametrize("phase", ["number", "sizes", "clear"])
def test_what_the_driver_does_by_itself_was_silent_and_deaf(
    image: Path, truth: np.ndarray, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For many minutes, of a million blocks."""
    monkeypatch.setattr("spoco_zoo.segment.bookkeeping.OFTEN", 3)
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if event.phase == phase and event.done == 3:
            signal.raise_signal(signal.SIGINT)

    begin = partial(segment, image, code_model(truth), SMALL, cluster=exact_cluster)
    with pytest.raises(Interrupted):
        begin(on_event=listen)
    assert [event.done for event in seen if event.phase == phase] == [3]
    assert begin().objects == CELLS


def test_a_partial_as_clustering_could_not_be_gone_on_with(image: Path, truth: np.ndarray) -> None:
    def begin(base: int, **options: Any) -> SegmentResult:
        def decode(*arguments: Any, base: int, momentum: Any = None) -> np.ndarray:
            return exact_cluster(*arguments, momentum=momentum, base=base)

        # Another object every time, as in another process.
        cluster = partial(decode, base=base)
        return segment(image, code_model(truth), SMALL, cluster=cluster, **options)

    with pytest.raises(Interrupted):
        begin(16, on_event=stop)
    with pytest.raises(LedgerError, match="cluster"):
        begin(8)
    assert begin(16).resumed >= 2


def test_a_run_on_a_gpu_went_on_on_a_cpu_with_another_precision(
    image: Path, truth: np.ndarray
) -> None:
    begin = partial(segment, image, code_model(truth), cluster=exact_cluster, device="cpu")
    with pytest.raises(Interrupted):
        begin(SMALL, on_event=stop)
    with pytest.raises(LedgerError, match="precision was float32 and is now bfloat16"):
        begin(SMALL.model_copy(update={"precision": "bfloat16"}))
    # What `auto` meant can be said, wherever it meant that.
    result = begin(SMALL.model_copy(update={"precision": "float32"}))
    assert result.resumed >= 2
    assert result.summary["config"]["precision"] == "float32"


def test_blocks_of_another_version_are_not_gone_on_with(
    image: Path, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = partial(segment, image, code_model(truth), SMALL, cluster=exact_cluster)
    with pytest.raises(Interrupted):
        begin(on_event=stop)
    with monkeypatch.context() as patch:
        patch.setattr("spoco_zoo.segment.plan.__version__", "0.0.1")
        with pytest.raises(LedgerError, match=f"spoco-zoo was {__version__} and is now 0.0.1"):
            begin()
    assert begin().resumed >= 2


def test_a_finished_label_is_replaced_only_when_asked(image: Path, truth: np.ndarray) -> None:
    model = code_model(truth)
    segment(image, model, SMALL, cluster=exact_cluster)
    before = store_bytes(image)
    with pytest.raises(StoreError, match="--overwrite"):
        segment(image, model, SMALL, cluster=exact_cluster)
    assert store_bytes(image) == before
    segment(image, model, SMALL, cluster=exact_cluster, overwrite=True)
    assert store_bytes(image) == before


def test_two_kinds_of_workers_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="--scheduler"):
        make_executor(2, scheduler="tcp://127.0.0.1:1")


def test_labels_are_no_image(image: Path, truth: np.ndarray) -> None:
    target = ngff.plan_label(ngff.open_image(image), name="f")
    ngff.create_label(target, dtype=np.uint32, shard=(512, 512), chunk=(64, 64))
    ngff.publish_label(target)
    with pytest.raises(ConfigError, match=r"labels of .*image\.ome\.zarr in .*Segment "):
        dry_run(image / "labels" / "f", code_model(truth), SMALL)
