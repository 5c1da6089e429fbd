"""Matches near the border of a decision are found, kept and shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo.errors import StoreError
from spoco_zoo.segment.blocks import make_grid
from spoco_zoo.segment.review.doubts import MOST, Doubt, find_doubts, save_views, worst_doubts
from spoco_zoo.segment.rows import rows_of
from spoco_zoo.segment.slabs import block_file, write_sides
from spoco_zoo.segment.stitch import Rule, make_side, match

GRID = make_grid((8, 40), (8, 20), (4, 10))
RULE = Rule(0.5, 2.0)


def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blocks' outer regions and the embeddings of the whole (E, Y, X)."""
    low, high = np.zeros((8, 30), np.uint32), np.zeros((8, 30), np.uint32)
    embeddings = np.zeros((2, 8, 40), np.float32)
    # Seen alike by both: no doubt. The second block's outer region begins at 10.
    low[0:2, 12:28], high[0:2, 2:18] = 1, 1
    # Seen by half by the second block: joined, but only just.
    low[3:5, 14:26], high[3:5, 4:10] = 2, 2
    # Overlapping enough, but of different embeddings in the two views' means.
    low[6:8, 12:20], high[6:8, 2:14] = 3, 3
    embeddings[0, 6:8, 20:24] = 6.1
    return low, high, embeddings


def doubts_of_views() -> list[Doubt]:
    low, high, embeddings = views()
    slab = GRID.slab(0, 1)
    code = embeddings[(slice(None), *slab.slices)]
    sides = [
        make_side(part[slab.within(GRID.outer(n))], code) for n, part in enumerate((low, high))
    ]
    return find_doubts(*sides, match(*sides, RULE), RULE, GRID, 0, 1)


def test_what_is_close_to_the_border_is_in_doubt() -> None:
    found = {doubt.verdict: doubt for doubt in doubts_of_views()}
    assert set(found) == {"joined", "embedding"}
    joined, refused = found["joined"], found["embedding"]
    assert (joined.below, joined.above, joined.iou, joined.doubt) == (2, 2, 0.5, 1.0)
    assert refused.below == refused.above == 3
    assert 2.0 < refused.distance < 2.0 / 0.7
    assert refused.face == 20
    assert 6 <= refused.voxel[0] < 8
    assert 12 <= refused.voxel[1] < 20
    assert Doubt.from_dict(joined.to_dict()) == joined


def test_the_views_of_both_blocks_are_kept(tmp_path: Path) -> None:
    low, high, embeddings = views()
    for n, labels in enumerate((low, high)):
        part = embeddings[(slice(None), *GRID.outer(n).slices)]
        write_sides(tmp_path, GRID, n, labels, part, np.ones(3, np.int64))
    doubt = next(d for d in doubts_of_views() if d.verdict == "joined")
    save_views(tmp_path / "doubts.npz", tmp_path, GRID, [doubt])
    with np.load(tmp_path / "doubts.npz") as file:
        assert file["corner_0"].tolist() == [0, 10]
        assert (file["below_0"] == 2).sum() == 24
        assert (file["above_0"] == 2).sum() == 12
        assert (file["below_0"] == 1).sum() > 0


@pytest.mark.parametrize("keep", [0, 100, None])
def test_a_damaged_view_of_a_slab_ended_in_a_traceback(tmp_path: Path, keep: int | None) -> None:
    low, _, embeddings = views()
    part = embeddings[(slice(None), *GRID.outer(0).slices)]
    write_sides(tmp_path, GRID, 0, low, part, np.ones(3, np.int64))
    path = block_file(tmp_path, 0)
    path.unlink() if keep is None else path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="as it was written"):
        save_views(tmp_path / "doubts.npz", tmp_path, GRID, doubts_of_views())
    assert not (tmp_path / "doubts.npz").exists()


@given(st.permutations(range(40)))
def test_the_worst_do_not_depend_on_the_order(order: list[int]) -> None:
    every = [
        Doubt("joined", 0.7 + 0.1 * (n % 3), 0.5, 0.1, n, 0, 8, 0, 1, 1, (0, 0)) for n in range(40)
    ]
    kept: list[Doubt] = []
    for n in order:
        kept = worst_doubts([*kept, every[n]])
    assert kept == worst_doubts(every)
    assert len(kept) == MOST


@given(st.sets(st.integers(0, 59)), st.integers(1, 7))
def test_rows_hold_neighbours_along_the_last_axis(numbers: set[int], most: int) -> None:
    grid = make_grid((30, 40, 50), (10, 10, 10), (2, 2, 2))
    rows = list(rows_of(sorted(numbers), grid, most))
    assert [n for row in rows for n in row] == sorted(numbers)
    for row in rows:
        assert len(row) <= most
        assert row == tuple(range(row[0], row[0] + len(row)))
        assert len({grid.index(n)[:-1] for n in row}) == 1
