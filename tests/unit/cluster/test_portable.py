"""The travelling script's own promises: slabs, memory, arithmetic, and many objects."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import label

from spoco_zoo.segment.cluster import portable
from spoco_zoo.segment.cluster.tensor_field import TensorField

from .suite import DIM, planted

SETTINGS = {"bandwidth": 1.0, "foreground": 2.0, "smoothness": 0.4, "min_size": 10}


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple)


@pytest.mark.parametrize("shape", [(48, 60), (24, 30, 36)])
@pytest.mark.parametrize("background", [None, [0.0] * DIM])
@pytest.mark.parametrize("slab", [1, 700, 5000])
def test_slabs_do_not_show(
    shape: tuple[int, ...],
    background: list[float] | None,
    slab: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    field, _ = planted(shape, 0, background=background is not None, noise=0.15)
    settings = {**SETTINGS, "background": background, "fill_holes": True}
    whole = portable.cluster(field.numpy(), **settings)
    assert whole.max() > 1
    monkeypatch.setattr(portable, "SLAB", slab)
    np.testing.assert_array_equal(portable.cluster(field.numpy(), **settings), whole)


@given(mask=shapes().flatmap(lambda shape: arrays(bool, shape)), thick=st.integers(1, 40))
def test_parts_are_numbered_across_slabs_as_in_one_piece(mask: np.ndarray, thick: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable, "SLAB", thick)
        labels = np.where(mask, 0, -1).astype(np.int32)
        labels[~mask] = 0
        last = portable.number_parts(labels, lambda slab: (ndimage.label(mask[slab])[0], None))
    expected, count = ndimage.label(mask)
    assert last == count
    np.testing.assert_array_equal(labels, expected)


@given(
    kinds=shapes().flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, 2))),
    thick=st.integers(1, 40),
)
def test_parts_of_several_kinds_are_numbered_in_place(kinds: np.ndarray, thick: int) -> None:
    expected = label(kinds, background=0, connectivity=1)
    labels = kinds.copy()

    def split(slab: slice) -> tuple[np.ndarray, np.ndarray]:
        return label(labels[slab], background=0, connectivity=1), labels[slab]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable, "SLAB", thick)
        portable.number_parts(labels, split)
    np.testing.assert_array_equal(labels, expected)


@given(objects=shapes().flatmap(lambda shape: arrays(bool, shape)))
def test_one_object_is_filled_as_scipy_fills_it(objects: np.ndarray) -> None:
    labels = objects.astype(np.int32)
    portable.close_holes(labels)
    np.testing.assert_array_equal(labels > 0, ndimage.binary_fill_holes(objects))


def test_flat_indices_are_as_wide_as_the_volume_needs() -> None:
    assert portable.index_type((1000, 1000, 1000)) is np.int32
    assert portable.index_type((2048, 1024, 1023)) is np.int32
    # One plane beyond the last voxel must be representable too.
    assert portable.index_type((2047, 1024, 1024)) is np.int64
    assert portable.index_type((2048, 1024, 1024)) is np.int64
    assert portable.index_type((10**6, 10**6)) is np.int64


def test_neighbours_of_far_voxels_have_their_true_index() -> None:
    """Indices beyond 2**31 in a volume of 2**33 voxels, which is not made for that."""
    shape = (2**11, 2**11, 2**11)
    where = np.array([2**33 - 1, 2**32 + 5 * 2**11 + 7, 0], portable.index_type(shape))
    steps = [there for _, there in portable.neighbours(where, shape)]
    assert len(steps) == 6
    assert max(int(there.max()) for there in steps) == 2**33 - 2
    assert {int(there[-1]) for there in steps if len(there) == 2} >= {2**32 + 5 * 2**11 + 7 - 1}


def test_pairs_of_the_largest_labels_do_not_overflow() -> None:
    top = 2**31 - 2
    pairs = portable.unique_pairs(np.array([top, 3], np.int32), np.array([top - 1, top], np.int32))
    assert pairs.tolist() == [[3, top], [top - 1, top]]


@pytest.mark.parametrize("background", [None, [0.0, 0.0]])
def test_working_memory_is_a_few_bytes_per_voxel(background: list[float] | None) -> None:
    """Beside the embeddings, and beside the labels that are returned (4 bytes a voxel)."""
    shape = (64, 256, 256)
    cells = sum((n // 12 % 2) * 2 for n in np.indices(shape, np.int16))
    field = np.stack([cells * 2.0 - 3, np.full(shape, 4.0)]).astype(np.float32)
    del cells
    portable.cluster(field[:, :2], background=background)
    tracemalloc.start()
    labels = portable.cluster(field, background=background, foreground=1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    fixed = 48 * portable.SLAB  # what a slab needs, however many there are
    assert (peak - fixed - labels.nbytes) / labels.size < 3


def test_time_of_a_growing_ring_is_not_paid_by_voxels_that_wait() -> None:
    """A long thin object that is reached voxel by voxel from one seed at its end."""
    field = np.zeros((2, 20, 2_000), np.float32)
    field[0, 8:12, :] = 4.0
    field[1, 8:12, 30:] = 2.0 * (np.arange(1_970) % 2)
    labels = portable.cluster(field, background=[0, 0], foreground=1.0, smoothness=0.2)
    assert (labels[8:12] == 1).all()


def test_a_block_may_hold_fifty_thousand_objects() -> None:
    y, x = np.indices((1130, 1130)) // 5
    field = np.zeros((DIM, *y.shape), np.float32)
    field[0], field[1] = 4.0 * (y % 2), 4.0 * (x % 2)
    labels = portable.cluster(field, background=None, min_size=1)
    assert labels.max() == 226**2


@pytest.mark.parametrize("shape", [(48, 60), (24, 30, 36)])
@pytest.mark.parametrize("background", [None, (0.0,) * DIM])
def test_a_tensor_gives_the_same_objects_as_an_array(
    shape: tuple[int, ...], background: tuple[float, ...] | None
) -> None:
    field, _ = planted(shape, 3, background=background is not None, noise=0.15)
    settings = {**SETTINGS, "background": background}
    np.testing.assert_array_equal(
        portable.cluster(TensorField(field), **settings),
        portable.cluster(field.numpy(), **settings),
    )


@pytest.mark.gpu
def test_embeddings_on_a_gpu_give_the_same_objects() -> None:
    field, _ = planted((24, 30, 36), 3, background=True, noise=0.15)
    settings = {**SETTINGS, "background": (0.0,) * DIM}
    np.testing.assert_array_equal(
        portable.cluster(TensorField(field.cuda()), **settings),
        portable.cluster(field.numpy(), **settings),
    )


def test_channels_that_are_not_contiguous_are_read_as_they_are_meant() -> None:
    field, _ = planted((48, 60), 2, background=True)
    turned = torch.empty((48, 60, DIM)).copy_(field.permute(1, 2, 0)).permute(2, 0, 1)
    assert not turned.is_contiguous()
    settings = {**SETTINGS, "background": [0.0] * DIM}
    np.testing.assert_array_equal(
        portable.cluster(turned.numpy(), **settings), portable.cluster(field.numpy(), **settings)
    )
