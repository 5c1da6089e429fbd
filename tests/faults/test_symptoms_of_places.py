"""Outputs that were moved, linked, oddly named or damaged, and once ended a run badly."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import after, code_model, exact_cluster, read_labels, write_image

from spoco_zoo import ngff
from spoco_zoo.cli import app
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import BlocksFailed, Interrupted, LedgerError, StoreError
from spoco_zoo.measure import measure
from spoco_zoo.segment import segment

CONFIG = SegmentConfig(block=(64, 64), overlap=(16, 16), patch=(64, 64), halo=(2, 2))
OBJECTS = 4
TRUTH = np.zeros((64, 160), np.int32)
TRUTH[0, 0] = TRUTH[-1, -1] = 3  # no dark frame, which would not count for the statistics
TRUTH[10:30, 50:80], TRUTH[40:60, 90:120] = 1, 2


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """A run on three blocks, the last of them a part of one."""
    image = write_image(tmp_path / "image.ome.zarr", TRUTH, "YX", "0.4")
    return partial(segment, image, code_model(TRUTH), CONFIG, cluster=exact_cluster)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_shard_that_was_damaged_before_its_ledger_line_could_never_be_written(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output = tmp_path / "o.zarr"
    with pytest.raises(Interrupted):
        run(output=output, on_event=after("blocks", interrupt, 1))
    for part in ("1", "2"):
        shard = tmp_path / "o.zarr.spoco-run" / "local.zarr" / "c" / "0" / "0" / part
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(b"what a power cut has left")
    assert run(output=output).objects == OBJECTS


def test_a_later_time_point_that_was_replaced_gave_labels_of_two_images(tmp_path: Path) -> None:
    truth = np.stack([TRUTH, TRUTH])
    image = write_image(tmp_path / "image.ome.zarr", truth, "TYX")
    begin = partial(segment, image, code_model(TRUTH), CONFIG, cluster=exact_cluster)
    with pytest.raises(Interrupted):
        begin(output=tmp_path / "o.zarr", on_event=after("blocks", interrupt, 4))
    stored = zarr.open_array(image / "0", mode="r+")
    stored[1] = stored[1] // 2 + 7
    with pytest.raises(LedgerError, match="other intensities"):
        begin(output=tmp_path / "o.zarr")


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_damaged_consolidated_metadata_kept_labels_from_being_shown(
    run: Callable[..., Any], tmp_path: Path, damage: str
) -> None:
    image = tmp_path / "image.ome.zarr"
    (image / ".zmetadata").write_text(damage)
    assert run(label_name="mine").objects == OBJECTS
    assert ngff.label_names(ngff.open_image(image)) == ("mine",)


@pytest.mark.parametrize(("listed", "names"), [(None, ()), (5, None)])
def test_a_list_of_labels_that_is_none_ended_in_a_traceback(
    run: Callable[..., Any], tmp_path: Path, listed: int | None, names: tuple[str, ...] | None
) -> None:
    image = tmp_path / "image.ome.zarr"
    zarr.open_group(image / "labels", mode="w", zarr_format=2).attrs["labels"] = listed
    if names is None:
        with pytest.raises(StoreError, match="listed by their names; found 5"):
            ngff.label_names(ngff.open_image(image))
    else:
        assert ngff.label_names(ngff.open_image(image)) == names
        assert run(label_name="mine").objects == OBJECTS


def test_an_output_that_is_a_link_is_written_anew_where_it_leads(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    real, link = tmp_path / "disk" / "o.zarr", tmp_path / "link.zarr"
    real.parent.mkdir()
    run(output=real)
    before = read_labels(real)
    link.symlink_to(real)
    run(output=link, overwrite=True)
    assert link.is_symlink()
    np.testing.assert_array_equal(read_labels(real), before)
    assert sorted(os.listdir(real.parent)) == ["o.zarr", "o.zarr.spoco-run"]


@pytest.mark.parametrize("name", ["o.zarr", "o.tif"])
def test_success_was_told_of_labels_that_had_been_moved_away(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    output = tmp_path / name

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spoco_zoo.segment.phases.clear_folder", stop)
        with pytest.raises(Interrupted):
            run(output=output)
    output.rename(tmp_path / f"away-{name}")
    assert run(output=output).objects == OBJECTS
    assert output.exists()


def test_damaged_labels_of_a_tiff_to_be_ended_in_a_traceback(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output = tmp_path / "o.tif"
    final = tmp_path / "o.tif.spoco-run" / "final-uint32.zarr"

    def damage() -> None:
        (shard, *_) = (p for p in (final / "c").rglob("*") if p.is_file())
        shard.write_bytes(shard.read_bytes()[:-7])

    with pytest.raises(StoreError, match="makes that block again"):
        run(output=output, on_event=after("relabel", damage, 3))
    assert run(output=output).objects == OBJECTS


@pytest.mark.parametrize("in_place", [False, True])
def test_two_colons_in_a_path_were_a_chain_of_file_systems(tmp_path: Path, in_place: bool) -> None:
    folder = tmp_path / "a::b"
    folder.mkdir()
    image = write_image(folder / "image.ome.zarr", TRUTH, "YX")
    output = None if in_place else folder / "run::1.zarr"
    found = segment(image, code_model(TRUTH), CONFIG, output=output, cluster=exact_cluster)
    assert found.objects == OBJECTS
    labels = ngff.find_labels(found.output)
    assert len(np.unique(labels.read(0, 0, None, [slice(0, 64), slice(0, 160)]))) == OBJECTS + 1


def test_a_shown_label_with_a_bad_block_that_lost_its_metadata_goes_on(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output = tmp_path / "o.zarr"

    def cluster(embeddings: Any, *settings: Any, momentum: Any = None) -> np.ndarray:
        labels = exact_cluster(embeddings, *settings)
        if (labels > 0).sum() > 700:  # the middle block
            raise ValueError("a bad block")
        return labels

    for _ in range(2):
        with pytest.raises(BlocksFailed, match="1 without result"):
            run(output=output, cluster=cluster)
        assert read_labels(output).any()
        (output / "0" / "zarr.json").unlink(missing_ok=True)
        (output / "0" / ".zarray").unlink(missing_ok=True)


def test_a_ledger_that_begins_with_something_else_is_refused(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    output = tmp_path / "o.zarr"
    with pytest.raises(Interrupted):
        run(output=output, on_event=after("blocks", interrupt, 1))
    ledger = tmp_path / "o.zarr.spoco-run" / "progress.jsonl"
    rest = ledger.read_text().partition("\n")[2]
    for first in (5, None):
        ledger.write_text(json.dumps({"fingerprint": first}) + "\n" + rest)
        with pytest.raises(LedgerError, match="--overwrite"):
            run(output=output)


def test_a_plane_of_a_stack_as_tiff_ended_in_a_traceback_after_all_the_work(tmp_path: Path) -> None:
    stack = np.stack([TRUTH[:, :64] * k for k in (1, 20, 3)]).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "stack.ome.tif",
        stack,
        metadata={"axes": "ZYX", **{f"PhysicalSize{axis}": 0.5 for axis in "XYZ"}},
        photometric="minisblack",
    )
    # As above, but without names of axes: its planes may be channels.
    tifffile.imwrite(tmp_path / "bare.tif", stack, photometric="minisblack")
    for name in ("stack.ome.tif", "bare.tif"):
        output = tmp_path / f"{name}-labels.tif"
        command = ["segment", str(tmp_path / name), "--model", "nuclei-fluo-2d", "--measure"]
        command += ["--roi", "1:2,0:64,0:64", "--output", str(output)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.stderr
        table = measure(output, tmp_path / name, level=0, start=(1, 0, 0))
        assert len(table) == len(np.unique(tifffile.imread(output))) - 1 > 0
        assert {"channel0_mean", "z_um" if name[0] == "s" else "z_px"} <= set(table.columns)
        assert table["channel0_max"].isin([20, 40, 60]).all()
