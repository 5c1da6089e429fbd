"""Labels in torch alone are those of the script that travels in bundles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from spoco_zoo.nets.instances import Instances, SpocoUNetWithLabels
from spoco_zoo.segment.cluster import portable

SHAPES = {2: (40, 33), 3: (9, 22, 19)}


def planted(seed: int, shape: tuple[int, ...], dim: int = 6) -> tuple[np.ndarray, list[float]]:
    """Embeddings (E, [Z,] Y, X) of overlapping balls on a background, blurred, with noise."""
    rng = np.random.default_rng(seed)
    labels, grid = np.zeros(shape, int), np.indices(shape)
    for i in range(1, 11):
        centre = [rng.integers(0, n) for n in shape]
        distance = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
        labels[distance < rng.integers(2, 9) ** 2] = i
    # Objects 9 and 10 share an embedding: where they touch they are one.
    centres = 2 * rng.standard_normal((11, dim))
    centres[10] = centres[9]
    field = np.moveaxis(centres[labels], -1, 0)
    field = np.stack([ndimage.gaussian_filter(channel, 0.7) for channel in field])
    field += 0.1 * rng.standard_normal(field.shape)
    return field.astype(np.float32), [float(value) for value in centres[0]]


def parameters(background: list[float] | None, **others: float) -> dict:
    standard = {"bandwidth": 1.0, "foreground": 1.0, "smoothness": 0.4, "min_size": 15}
    return {"background": background, **standard, **others}


def head_labels(head: torch.nn.Module, fields: list[np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        result = head(torch.from_numpy(np.stack(fields)))
    assert result.dtype == torch.int32
    assert result.shape == (len(fields), 1, *fields[0].shape[1:])
    return result[:, 0].numpy()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.one_of(
        st.tuples(*[st.integers(1, 40)] * 2),
        st.tuples(st.integers(1, 8), *[st.integers(1, 20)] * 2),
    ),
    with_background=st.booleans(),
    smoothness=st.sampled_from([0.0, 0.2, 0.4, 5.0]),
    min_size=st.sampled_from([1, 15, 400]),
    fill_holes=st.booleans(),
)
def test_labels_equal_those_of_the_script(
    seed: int,
    shape: tuple[int, ...],
    with_background: bool,
    smoothness: float,
    min_size: int,
    fill_holes: bool,
) -> None:
    field, prototype = planted(seed, shape)
    settings = parameters(
        prototype if with_background else None,
        smoothness=smoothness,
        min_size=min_size,
        fill_holes=fill_holes,
    )
    expected = portable.cluster(field, **settings)
    assert np.array_equal(head_labels(Instances(**settings), [field])[0], expected)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("with_background", [True, False])
def test_items_of_a_batch_do_not_touch(ndim: int, with_background: bool) -> None:
    fields = [planted(seed, SHAPES[ndim])[0] for seed in (1, 2, 3)]
    fields[1][:] = 0  # an item without any object, or of one
    settings = parameters([0.0] * 6 if with_background else None, fill_holes=True)
    expected = [portable.cluster(field, **settings) for field in fields]
    assert expected[0].max() > 2
    assert np.array_equal(head_labels(Instances(**settings), fields), np.stack(expected))


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("with_background", [True, False])
def test_torchscript_gives_the_same(ndim: int, with_background: bool) -> None:
    field, prototype = planted(4, SHAPES[ndim])
    settings = parameters(prototype if with_background else None, fill_holes=True)
    scripted = torch.jit.script(Instances(**settings))
    expected = portable.cluster(field, **settings)
    for _ in range(3):  # the first calls are profiled, later ones run optimised
        assert np.array_equal(head_labels(scripted, [field])[0], expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), ndim=st.integers(2, 3), share=st.sampled_from([0.3, 0.6, 0.8]))
def test_holes_of_any_form_are_closed_as_by_the_script(seed: int, ndim: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, *SHAPES[ndim])
    labels = np.where(rng.uniform(size=shape) < share, rng.integers(1, 3, shape), 0)
    labels = ndimage.zoom(labels[..., ::3, ::3], (1,) * (ndim - 1) + (3, 3), order=0)
    head = Instances(**parameters([0.0]))
    closed = head.closed(torch.from_numpy(labels.astype(np.int64))).numpy()
    for before, after in zip(labels.astype(np.int32), closed, strict=True):
        portable.close_holes(before)
        assert np.array_equal(after, before)


def test_a_long_winding_object_is_one() -> None:
    """A spiral, whose ends are a thousand steps apart along it."""
    snake = np.zeros((47, 47), bool)
    snake[::4] = True
    snake[1:4, -1] = snake[5:8, 0] = True
    for row in range(8, 44, 8):
        snake[row + 1 : row + 4, -1] = True
        snake[row + 5 : row + 8, 0] = True
    assert ndimage.label(snake)[1] == 1
    field = np.where(snake, 3.0, 0.0).astype(np.float32)[None].repeat(2, axis=0)
    settings = parameters([0.0, 0.0], smoothness=100.0, min_size=1)
    labels = head_labels(Instances(**settings), [field])[0]
    assert np.array_equal(labels, portable.cluster(field, **settings))
    assert labels.max() == 1


def test_weights_are_those_of_the_network_without_labels() -> None:
    network = SpocoUNetWithLabels(2, 1, 4, (4, 6), ((2, 2),), **parameters([0.0] * 4))
    assert not [name for name in network.state_dict() if "instances" in name]
    embeddings, labels = network.eval()(torch.zeros(2, 1, 13, 10))
    assert embeddings.shape == (2, 4, 13, 10)
    assert labels.shape == (2, 1, 13, 10)
