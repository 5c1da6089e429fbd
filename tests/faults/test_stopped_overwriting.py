"""Runs that were told to replace labels, and stopped: the same command goes on with them."""

from __future__ import annotations

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
from spoco_zoo.errors import Interrupted
from spoco_zoo.segment import Event, segment

CONFIG = SegmentConfig(block=(64, 64), overlap=(16, 16), patch=(64, 64), halo=(2, 2))


@pytest.fixture
def truth() -> np.ndarray:
    return tissue((128, 128), 30, seed=3)


@pytest.fixture
def run(truth: np.ndarray, tmp_path: Path) -> Callable[..., Any]:
    """A run on four blocks."""
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    return partial(segment, image, code_model(truth), cluster=exact_cluster)


def interrupt() -> Callable[[Event], None]:
    return after("blocks", lambda: signal.raise_signal(signal.SIGINT), done=2)


@pytest.mark.parametrize("name", ["o.zarr", "o.tif"])
def test_a_run_that_replaces_labels_began_anew_after_each_stop(
    run: Callable[..., Any], truth: np.ndarray, tmp_path: Path, name: str
) -> None:
    output = tmp_path / name
    run(CONFIG, output=output)
    before = output.read_bytes() if output.is_file() else store_bytes(output)
    with pytest.raises(Interrupted, match="same command"):
        run(CONFIG, output=output, overwrite=True, on_event=interrupt())
    # The old labels are there until there are others.
    assert before == (output.read_bytes() if output.is_file() else store_bytes(output))
    result = run(CONFIG, output=output, overwrite=True)
    assert result.resumed == 2
    assert before == (output.read_bytes() if output.is_file() else store_bytes(output))
    # A finished run is no longer gone on with.
    assert run(CONFIG, output=output, overwrite=True).resumed == 0
    found = tifffile.imread(output) if output.is_file() else read_labels(output)
    assert same_partition(found, truth)


def test_what_was_begun_otherwise_is_begun_again(run: Callable[..., Any], tmp_path: Path) -> None:
    output, notes = tmp_path / "o.zarr", []

    def listen(event: Event) -> None:
        notes.append(event.message)

    with pytest.raises(Interrupted):
        run(CONFIG, output=output, on_event=interrupt())  # without --overwrite
    with pytest.raises(Interrupted):
        run(CONFIG, output=output, overwrite=True, on_event=interrupt())
    other = CONFIG.model_copy(update={"overlap": (12, 12)})
    assert run(other, output=output, overwrite=True, on_event=listen).resumed == 0
    assert any("Begun again" in note and "overlap" in note for note in notes)


@pytest.mark.parametrize("damage", ["ledger", "image"])
def test_what_can_only_be_begun_again_is(
    run: Callable[..., Any], tmp_path: Path, damage: str
) -> None:
    output = tmp_path / "o.zarr"
    with pytest.raises(Interrupted):
        run(CONFIG, output=output, overwrite=True, on_event=interrupt())
    ledger = tmp_path / "o.zarr.spoco-run" / "progress.jsonl"
    if damage == "ledger":
        lines = ledger.read_text().splitlines()
        ledger.write_text("\n".join([lines[0], "no JSON", *lines[1:]]) + "\n")
    else:
        stored = zarr.open_array(tmp_path / "image.ome.zarr" / "0", mode="r+")
        stored[...] = stored[...] // 2 + 7
    assert run(CONFIG, output=output, overwrite=True).resumed == 0
