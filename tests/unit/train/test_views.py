"""Geometric crops and photometric views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spoco_zoo.train.augment import Photometry, view
from spoco_zoo.train.crops import CropSampler, Geometry, resample
from spoco_zoo.train.data import Sample, make_sample

STILL = Geometry(bent=0.0)


def scene(shape: tuple[int, ...]) -> Sample:
    """Objects brighter than the background by their label, so that both can be compared."""
    labels = np.full(shape, -1, np.int32)
    labels[..., 4:14, 4:14], labels[..., 20:34, 18:30] = 1, 2
    return make_sample("scene", labels[None].astype(np.float32) * 10, labels)


@pytest.mark.parametrize("shape", [(40, 44), (10, 40, 44)])
def test_image_and_labels_stay_aligned(shape: tuple[int, ...]) -> None:
    sample = scene(shape)
    crop = (16, 16) if len(shape) == 2 else (8, 16, 16)
    geometry = Geometry(anisotropy=(1.0,) * len(shape))
    crops = CropSampler([sample], crop, geometry, seed=0, length=20)
    values = {int(v): sample.image[0][sample.labels == v][0] for v in (-1, 1, 2)}
    for n in range(len(crops)):
        image, labels = crops[n]
        assert image.shape == (1, *crop)
        assert labels.shape == crop
        for value, level in values.items():
            where = labels == value
            # Linear interpolation blurs borders; inside, image and label say the same.
            close = (image[0][where] - level).abs() < 0.7
            assert not bool(where.any()) or float(close.float().mean()) > 0.7


def test_crop_number_i_depends_on_the_seed_and_i_alone() -> None:
    sample = scene((40, 44))
    one = CropSampler([sample], (16, 16), Geometry(), seed=5, length=50)
    two = CropSampler([sample], (16, 16), Geometry(), seed=5, length=80)
    assert torch.equal(one[31][0], two[31][0])
    assert not torch.equal(one[31][0], one[32][0])


def test_crops_hold_annotated_objects() -> None:
    sample = scene((400, 400))
    crops = CropSampler([sample], (32, 32), STILL, seed=0, length=30)
    assert all(bool((crops[n][1] > 0).any()) for n in range(30))


def test_crops_that_are_not_bent_hold_voxels_of_the_image_and_nothing_between() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 40, 44)).astype(np.float32)
    labels = np.arange(40 * 44).reshape(40, 44).astype(np.int32) - 1
    sample = make_sample("noise", image, labels)
    for crop in ((16, 16), (15, 15), (12, 20)):
        crops = CropSampler([sample], crop, STILL, seed=0, length=6)
        for n in range(len(crops)):
            taken, ids = crops[n]
            expected = sample.image[0].ravel()[ids.numpy() + 1]
            np.testing.assert_allclose(taken[0], expected, atol=1e-4)
            assert len(np.unique(ids)) == crop[0] * crop[1]


def test_resampling_at_voxel_positions_is_indexing() -> None:
    sample = scene((40, 44))
    axis = np.arange(8) - 3.5
    straight = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).astype(np.float32)
    image, labels = resample(sample.image, sample.labels, np.array([10.5, 9.5]), straight)
    np.testing.assert_allclose(image[0], sample.image[0, 7:15, 6:14], atol=1e-5)
    np.testing.assert_array_equal(labels, sample.labels[7:15, 6:14])


@pytest.mark.parametrize("shape", [(3, 2, 20, 24), (2, 1, 6, 20, 24)])
def test_two_views_differ_in_intensity_and_keep_the_shape(shape: tuple[int, ...]) -> None:
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    first, second = (view(batch, Photometry(), generator) for _ in range(2))
    assert first.shape == second.shape == batch.shape
    assert not torch.allclose(first, second)
    assert bool(torch.isfinite(first).all())
    again = view(batch, Photometry(), torch.Generator().manual_seed(1))
    assert torch.equal(first, again)


def test_views_keep_a_constant_crop_finite() -> None:
    batch = torch.zeros((2, 1, 16, 16))
    assert bool(torch.isfinite(view(batch, Photometry(), torch.Generator().manual_seed(0))).all())


def test_without_augmentation_a_view_is_the_crop_and_crops_stay_on_the_grid() -> None:
    batch = torch.randn((2, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    none = Photometry().scaled(0.0)
    seen = view(batch, none, torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen, batch, atol=1e-5, rtol=0)
    assert Geometry(bent=0.5, scale=0.3, elastic=2.0).scaled(0.0) == Geometry(0.0, 0.0, 0.0)
    assert Geometry(bent=0.8).scaled(2.0).bent == 1.0


def test_crops_were_turned_where_y_and_x_have_voxels_of_other_sizes() -> None:
    """An object of four rows and twelve columns keeps this shape when crops are not bent."""
    labels = np.full((40, 40), -1, np.int32)
    labels[18:22, 14:26] = 1
    sample = make_sample("oblong", labels[None].astype(np.float32), labels)
    extents = {}
    for units in ((1.0, 1.0), (3.0, 1.0)):
        geometry = Geometry(bent=0.0, anisotropy=units)
        crops = CropSampler([sample], (32, 32), geometry, seed=0, length=30)
        taken = [(crops[n][1] == 1).numpy() for n in range(len(crops))]
        sides = [(int(t.any(1).sum()), int(t.any(0).sum())) for t in taken]
        extents[units] = {side for side in sides if min(side) == 4 and max(side) == 12}
    assert extents == {(1.0, 1.0): {(4, 12), (12, 4)}, (3.0, 1.0): {(4, 12)}}


@pytest.mark.parametrize(("start", "apart"), [(3, True), (0, False)])
def test_a_mirror_image_that_lies_apart_was_the_same_object(start: int, apart: bool) -> None:
    """Beyond the border of an image its mirror image is seen: here of its first ten rows."""
    labels = np.full((40, 40), -1, np.int32)
    labels[start : start + 5, 10:20] = 1
    image = labels[None].astype(np.float32)
    offsets = np.stack(np.meshgrid(*[np.arange(-10.0, 10.0)] * 2, indexing="ij"), -1)
    found = resample(image, labels, np.array([0.0, 15.0]), offsets.astype(np.float32))[1].numpy()
    assert (found[10:] == np.where(labels[:10, 5:25] > 0, 1, -1)).all()
    mirrored = found[:10] > 0
    assert (mirrored == (labels[10:0:-1, 5:25] > 0)).all()
    numbers = set(found[:10][mirrored].tolist())
    assert numbers == ({1} if not apart else numbers - {1})
    assert len(numbers) == 1
