"""Made-up tissue: reproducible, connected, the same in blocks as whole."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from spoco_zoo.demo import synth
from spoco_zoo.demo.hashed import normal, smooth, uniform
from spoco_zoo.demo.synth import Tissue, crowded_cells, render, write_volume
from spoco_zoo.errors import DataError

WINDOWS = [
    Tissue((150, 170), 3, diameter=14),
    Tissue((90, 100), 4, style="filled", coverage=1.0),
    Tissue((26, 60, 66), 3, anisotropy=2, gaps=0, dtype="uint16", diameter=16),
]


def whole(shape):
    return tuple(slice(0, n) for n in shape)


def pieces(labels):
    """Number of face-connected parts of each object."""
    boxes = ndimage.find_objects(labels.astype(np.int32))
    return [ndimage.label(labels[box] == i)[1] for i, box in enumerate(boxes, 1) if box]


@pytest.mark.parametrize("tissue", WINDOWS, ids=lambda t: f"{len(t.shape)}d-{t.style}-{t.gaps}")
@settings(max_examples=5)
@given(data=st.data())
def test_a_block_equals_its_part_of_the_whole(tissue, data):
    image, ids = render(tissue, whole(tissue.shape))
    where = []
    for n in tissue.shape:
        start = data.draw(st.integers(0, n - 1))
        where.append(slice(start, data.draw(st.integers(start + 1, n))))
    block, block_ids = render(tissue, tuple(where))
    assert np.array_equal(block, image[tuple(where)])
    assert np.array_equal(block_ids, ids[tuple(where)])
    assert block.dtype == tissue.dtype


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gaps", [0, 1, 2.5])
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((200, 180), {"diameter": 10}),
        ((200, 180), {"diameter": 27}),
        ((24, 60, 56), {"diameter": 12, "anisotropy": 2}),
        ((40, 60, 56), {"diameter": 18}),
    ],
)
def test_every_object_is_connected(shape, settings, gaps, seed):
    labels = crowded_cells(shape, seed, gaps=gaps, **settings)[1]
    assert labels.max() >= 5
    assert set(pieces(labels)) == {1}
    assert np.array_equal(np.unique(labels), np.arange(labels.min(), labels.max() + 1))


def test_a_seed_fixes_the_picture_and_another_changes_it():
    one, again, other = (crowded_cells((64, 64), seed)[0] for seed in (7, 7, 8))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_gaps_separate_cells_and_their_absence_lets_them_touch():
    def touching(gaps):
        labels = crowded_cells((128, 128), 0, gaps=gaps, coverage=1)[1].astype(int)
        left, right = labels[:, :-1], labels[:, 1:]
        return np.count_nonzero((left != right) & (left > 0) & (right > 0)), (labels == 0).mean()

    contact, background = touching(0)
    assert contact > 500
    assert background < 0.02
    contact, background = touching(2)
    assert contact == 0
    assert background > 0.1


def test_membranes_are_brighter_than_cells_and_filled_cells_brighter_than_gaps():
    for style, brighter in (("membrane", "outside"), ("filled", "inside")):
        image, labels = crowded_cells((160, 160), 1, style=style, coverage=1, gaps=2)
        inside = ndimage.binary_erosion(labels > 0, iterations=3)
        edge = (labels == 0) & ndimage.binary_dilation(labels > 0, iterations=2)
        means = {"inside": image[inside].mean(), "outside": image[edge].mean()}
        assert max(means, key=means.__getitem__) == brighter
        assert max(means.values()) > 1.3 * min(means.values())


def test_tissue_covers_about_what_was_asked_for():
    covered = []
    for seed in range(4):
        labels = crowded_cells((400, 400), seed, diameter=12, coverage=0.5, gaps=0)[1]
        covered.append((labels > 0).mean())
    assert 0.3 < np.mean(covered) < 0.7


@pytest.mark.parametrize("seed", range(20))
def test_small_windows_are_not_empty(seed):
    assert crowded_cells((48, 48), seed, coverage=0.4)[1].max() > 0


def test_a_volume_is_written_block_by_block(tmp_path):
    tissue = Tissue((20, 50, 60), 2, diameter=12)
    calls = []
    files = write_volume(
        tmp_path / "out", tissue, block=(16, 32, 32), on_block=lambda *n: calls.append(n)
    )
    image, ids = render(tissue, whole(tissue.shape))
    assert np.array_equal(tifffile.imread(files.image), image)
    assert np.array_equal(tifffile.imread(files.labels), ids)
    assert calls == [(n, 8) for n in range(1, 9)]
    with tifffile.TiffFile(files.labels) as file:
        assert file.is_bigtiff
        assert file.series[0].axes == "ZYX"
    assert sorted(p.name for p in files.image.parent.iterdir()) == ["image.tif", "labels.tif"]


def test_an_interrupted_volume_does_not_look_finished(tmp_path, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_volume(tmp_path, WINDOWS[0], block=(64, 64), on_block=stop)
    assert not (tmp_path / "image.tif").exists()
    assert not (tmp_path / "labels.tif").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (10,)},
        {"shape": (10, 0)},
        {"diameter": 5},
        {"anisotropy": 9},
        {"gaps": -1},
        {"coverage": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(DataError):
        Tissue(**{"shape": (64, 64), "seed": 0, **wrong})


def test_random_numbers_have_their_distributions():
    axes = [np.arange(-100, 100), np.arange(150)]
    numbers = uniform(axes, 1, 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.01)
    gauss = normal(axes, 1, 3)
    assert gauss.mean() == pytest.approx(0, abs=0.02)
    assert gauss.std() == pytest.approx(1, abs=0.02)
    # Neighbours, streams and seeds must not follow each other.
    for other in (np.roll(gauss, 1, 0), normal(axes, 1, 4), normal(axes, 2, 3)):
        assert abs(np.corrcoef(gauss.ravel(), other.ravel())[0, 1]) < 0.03
    field = smooth([axis.astype(float) for axis in axes], 4.0, 0, 0)
    assert field.std() == pytest.approx(1, abs=0.15)
    assert abs(np.diff(field, axis=0)).max() < 1.5


def test_the_margin_holds_all_filters():
    """A filter that reaches beyond the margin would make blocks differ from the whole."""
    for steps in ((1.0, 1.0), (1.0, 1.0, 1.0)):
        reach = 4 * synth.PSF_Z, 3 * synth.HAZE
        assert max(reach) + 0.5 < synth.MARGIN * min(steps)
