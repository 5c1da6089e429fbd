"""How blocks are handed to workers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo.segment.execute import FEW, DaskExecutor, InProcess
from spoco_zoo.segment.rows import LONGEST_ROW, ROWS, longest_row


@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_rows_are_bounded_and_every_worker_gets_several(blocks: int, workers: int) -> None:
    most = longest_row(blocks, workers)
    assert 1 <= most <= LONGEST_ROW
    assert most == 1 or blocks // most >= ROWS * workers


def test_few_workers_get_rows_of_a_small_volume_too() -> None:
    assert longest_row(27, workers=1) >= 3
    assert longest_row(27, workers=16) == 1


@pytest.mark.parametrize(
    ("present", "owned", "expected"), [(0, (), FEW), (50, (), 50), (2, ("cluster",), 2)]
)
def test_workers_of_a_running_scheduler_may_still_be_on_their_way(
    present: int, owned: tuple[str, ...], expected: int
) -> None:
    client = SimpleNamespace(
        dashboard_link=None,
        scheduler_info=lambda n_workers: {"workers": dict.fromkeys(range(present))},
    )
    assert DaskExecutor(client, owned).workers == expected  # type: ignore[arg-type]
    assert InProcess().workers == 1
