"""How blocks are handed to workers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from math import sqrt
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo.errors import SpocoError
from spoco_zoo.segment.blocks import BlockGrid
from spoco_zoo.segment.execute import FEW, NOBODY, DaskExecutor, InProcess
from spoco_zoo.segment.rows import LONGEST_ROW, longest_row, rows_of


@given(st.tuples(*map(st.integers, (1, 1, 1), (12, 12, 60))), st.integers(1, 1000))
def test_rows_are_bounded_equal_and_leave_work_for_every_worker(
    counts: tuple[int, int, int], workers: int
) -> None:
    grid = BlockGrid(counts, (1, 1, 1), (0, 0, 0))
    most = longest_row(grid, workers)
    assert 1 <= most <= min(LONGEST_ROW, counts[-1])
    rows = list(rows_of(range(grid.total), grid, most))
    assert most == 1 or len(rows) >= min(2 * workers, sqrt(grid.total * workers / 2))
    lengths = {len(row) for row in rows}
    assert max(lengths) - min(lengths) < -(-counts[-1] // most)
    assert sum(map(len, rows)) == grid.total


def test_few_workers_get_rows_of_a_small_volume_too() -> None:
    grid = BlockGrid((3, 3, 3), (1, 1, 1), (0, 0, 0))
    assert longest_row(grid, workers=1) >= 3
    assert longest_row(grid, workers=16) == 1


@pytest.mark.parametrize(
    ("counts", "workers", "expected"),
    # What a simulation of all lengths with real patches found best, or within a twentieth of it.
    [((3, 1, 3), 2, 3), ((3, 1, 3), 8, 1), ((3, 1, 7), 2, 4), ((7, 4, 7), 8, 7), ((2, 6), 8, 1)],
)
def test_rows_of_a_small_volume_share_patches_too(
    counts: tuple[int, ...], workers: int, expected: int
) -> None:
    ones = (1,) * len(counts)
    assert longest_row(BlockGrid(counts, ones, ones), workers) == expected


@pytest.mark.parametrize(
    ("present", "owned", "expected"), [(0, (), FEW), (50, (), 50), (2, ("cluster",), 2)]
)
def test_workers_of_a_running_scheduler_may_still_be_on_their_way(
    present: int, owned: tuple[str, ...], expected: int
) -> None:
    client = SimpleNamespace(
        status="running",
        scheduler_info=lambda n_workers: {"workers": dict.fromkeys(range(present))},
    )
    assert DaskExecutor(client, owned).workers == expected  # type: ignore[arg-type]
    assert InProcess().workers == 1


def test_a_full_disk_that_another_library_made_its_own_error_of_ended_in_a_traceback() -> None:
    def write(item: int) -> None:
        try:
            with open("/dev/full", "w") as file:
                file.write("text")
        except OSError as error:
            raise RuntimeError("cannot write") from error

    done: list[Any] = []
    with pytest.raises(SpocoError, match="the disk is full: No space left on device"):
        InProcess().run(write, [1, 2], done.append, done.append)
    assert done == []


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Of two workers, in threads of this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as started:
        started.wait_for_workers(2)
        yield started


class BusyClient(Client):
    """Its own question, which it asks every two seconds, is answered after everyone else's."""

    def scheduler_info(self, **options: Any) -> Any:
        super().scheduler_info(**options)
        self.sync(self._update_scheduler_info)
        return self._scheduler_identity


def test_workers_of_a_busy_scheduler_were_taken_to_be_gone(cluster: LocalCluster) -> None:
    """One count in eight, of a scheduler that answered once a second."""
    with BusyClient(cluster.scheduler_address) as client:
        assert DaskExecutor(client, [cluster]).workers == 2


def test_workers_that_went_again_were_not_told_of(cluster: LocalCluster) -> None:
    told: list[str] = []
    with Client(cluster.scheduler_address) as client:
        executor = DaskExecutor(client)
        executor.tell = told.append

        def scale(workers: int) -> None:
            cluster.scale(workers)
            while len(cluster.scheduler.workers) != workers:
                client.sync(client.scheduler.identity)
            executor._counted = -math.inf

        for _ in range(2):
            scale(0)
            executor._watch()
            scale(1)
            assert executor._present() == 1  # as it hands out items
    assert told == [NOBODY, NOBODY]


def test_a_scheduler_that_is_gone_was_asked_for_half_a_minute() -> None:
    """Before the run ended, in which time SLURM kills what it has cancelled."""
    client = SimpleNamespace(status="connecting")
    assert DaskExecutor(client).workers == FEW  # type: ignore[arg-type]
