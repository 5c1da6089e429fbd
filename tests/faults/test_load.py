"""Many items pass the window, and the driver keeps none of them."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from dask.utils import key_split
from distributed import Client, Scheduler

sys.path.insert(0, str(Path(__file__).parent))
import load
from load import pass_items, wrong_cells

from spoco_zoo.segment.execute import AHEAD, FORGETFUL, DaskExecutor, make_executor


def test_the_window_holds_no_more_than_it_should_and_forgets_what_is_done() -> None:
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None
    ) as client:
        found = pass_items(DaskExecutor(client), 1000)
        assert found["items"] == 1000
        assert found["in_flight"] <= AHEAD + 1
        assert found["late"]["files"] <= found["early"]["files"] + 4
        assert len(client.futures) <= AHEAD
        assert found["growth_mib"] < 50


def test_the_driver_grew_with_every_item_that_a_local_cluster_had_done() -> None:
    executor = make_executor(1, dashboard=False)
    assert isinstance(executor, DaskExecutor)
    try:
        assert pass_items(executor, 2 * FORGETFUL + 50)["items"] == 2 * FORGETFUL + 50
        (cluster,) = executor._owned
        spans = cluster.scheduler.extensions["spans"].spans.values()
        # What came after the last time, and what was in flight then.
        assert 0 < sum(len(span.metadata["collections"]) for span in spans) <= 50 + AHEAD
        assert 0 < key_split.cache_info().currsize <= 2 * (50 + AHEAD)
    finally:
        executor.close()


def test_a_closed_cluster_leaves_nothing_in_the_driver() -> None:
    def schedulers() -> int:
        gc.collect()
        return sum(type(thing) is Scheduler for thing in gc.get_objects())

    for _ in range(2):
        make_executor(1, dashboard=False).close()
    assert schedulers() == 0


def test_the_blocks_labels_are_compared_with_the_tissue(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--blocks", "64", "--workers", "0"]
    assert load.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == 64
    assert found["objects"] == found["cells"] == 100
    assert found["wrong_cells"] == 0
    # With eight codes for all cells, neighbours are alike.
    monkeypatch.setattr(load, "BASE", 2)
    assert load.main(command) == 1
    assert json.loads(capsys.readouterr().out)["wrong_cells"] > 10


def test_a_wrong_cell_is_one_that_is_joined_split_or_missing() -> None:
    truth = np.repeat([[1, 2, 3, 4, 5]], 2, axis=0)
    assert wrong_cells(np.array([[9, 8, 7, 6, 5], [9, 8, 7, 6, 5]]), truth) == 0
    assert wrong_cells(np.array([[9, 9, 7, 6, 0], [9, 9, 7, 1, 0]]), truth) == 4
