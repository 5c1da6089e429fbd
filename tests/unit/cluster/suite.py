"""What every clustering method must do; each method inherits `ClusteringSuite`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import DataError
from spoco_zoo.metrics import score
from spoco_zoo.segment.cluster import cluster

DIM = 6


def planted(shape: tuple[int, ...], seed: int, *, background: bool, noise: float = 0.08):
    """Touching objects on a grid with embeddings 4 apart, and the truth."""
    rng = np.random.default_rng(seed)
    cells = np.meshgrid(*[np.arange(n) // 12 for n in shape], indexing="ij")
    truth = np.zeros(shape, np.int64)
    for part in cells:
        truth = truth * 50 + part
    truth = np.unique(truth, return_inverse=True)[1].reshape(shape) + 1
    if background:
        outer = np.ones(shape, bool)
        outer[tuple(slice(6, -6) for _ in shape)] = False
        truth[outer] = 0
        truth = np.unique(truth, return_inverse=True)[1].reshape(shape)
    # Colour by parity per axis: neighbours differ, far objects may share an embedding.
    colour = sum((part % 2) * 2**axis for axis, part in enumerate(cells))
    means = np.zeros((8, DIM), np.float32)
    means[np.arange(8), np.arange(8) % DIM] = 4.0
    means[6:, -1] = 4.0
    field = means[colour]
    field[truth == 0] = 0
    field = field + rng.normal(0, noise, field.shape)
    return torch.from_numpy(np.moveaxis(field, -1, 0).astype(np.float32)), truth.astype(np.int32)


class ClusteringSuite:
    """Inherit and set `method`."""

    method: str

    def config(self, **changes: object) -> ClusteringConfig:
        values = {
            "method": self.method,
            "bandwidth": 1.0,
            "foreground": 2.0,
            "min_size": 10,
            **changes,
        }
        return ClusteringConfig.checked(values)

    def run(self, field: torch.Tensor, *, background: bool, **changes: object) -> np.ndarray:
        prototype = (0.0,) * field.shape[0] if background else None
        return cluster(field, self.config(**changes), prototype, momentum=field)

    @pytest.mark.parametrize("shape", [(48, 60), (24, 30, 36)])
    @pytest.mark.parametrize("background", [True, False])
    def test_planted_objects_are_found(self, shape: tuple[int, ...], background: bool) -> None:
        field, truth = planted(shape, 0, background=background)
        labels = self.run(field, background=background)
        assert labels.dtype == np.int32
        assert labels.shape == shape
        assert score(labels, truth).ap75 == 1.0

    def test_far_apart_objects_with_one_embedding_stay_apart(self) -> None:
        field = torch.zeros((DIM, 40, 40))
        field[0, 5:15, 5:15] = field[0, 25:35, 25:35] = 4.0
        labels = self.run(field, background=True)
        assert labels.max() == 2
        assert labels[10, 10] != labels[30, 30]

    def test_labels_are_connected_and_numbered_without_gaps(self) -> None:
        field, _ = planted((48, 60), 1, background=True, noise=0.3)
        labels = self.run(field, background=True)
        assert set(np.unique(labels)) == set(range(labels.max() + 1))
        for index in range(1, labels.max() + 1):
            assert ndimage.label(labels == index)[1] == 1

    def test_the_same_input_gives_the_same_labels(self) -> None:
        field, _ = planted((48, 60), 2, background=True, noise=0.3)
        np.testing.assert_array_equal(
            self.run(field, background=True, sample=500),
            self.run(field, background=True, sample=500),
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_float_types_give_the_same_objects(self, dtype: torch.dtype) -> None:
        field, truth = planted((48, 60), 3, background=True)
        assert score(self.run(field.to(dtype), background=True), truth).ap75 == 1.0

    def test_all_background_gives_no_object(self) -> None:
        assert self.run(torch.zeros((DIM, 9, 9)), background=True).max() == 0

    def test_one_embedding_everywhere_is_one_object(self) -> None:
        labels = self.run(torch.full((DIM, 9, 11), 3.0), background=False)
        assert (labels == 1).all()

    def test_one_voxel(self) -> None:
        one = torch.full((DIM, 1, 1), 3.0)
        assert self.run(one, background=False).tolist() == [[1]]
        assert self.run(one, background=True, min_size=1).tolist() == [[1]]
        assert self.run(one, background=True, min_size=2).tolist() == [[0]]

    def test_nothing_in_nothing_out(self) -> None:
        assert self.run(torch.zeros((DIM, 0, 7)), background=True).shape == (0, 7)

    def test_small_objects_are_dropped(self) -> None:
        field = torch.zeros((DIM, 30, 30))
        field[0, 2:5, 2:5] = field[0, 12:22, 12:22] = 4.0
        assert self.run(field, background=True, min_size=5).max() == 2
        labels = self.run(field, background=True, min_size=20)
        assert labels.max() == 1
        assert labels[15, 15] == 1

    def test_holes_are_filled_on_request_alone(self) -> None:
        field = torch.zeros((DIM, 40, 40))
        field[0, 5:25, 5:25] = 4.0
        field[0, 10:14, 10:14] = 0.0  # a hole
        field[0, 5:9, 15:19] = 0.0  # a bay at the object's side
        field[0, 30:36, 0:8] = 4.0
        field[0, 32:34, 0:3] = 0.0  # open at the border of the block
        open_ones = self.run(field, background=True)
        filled = self.run(field, background=True, fill_holes=True)
        assert not open_ones[10:14, 10:14].any()
        assert (filled[10:14, 10:14] == filled[7, 7]).all()
        outside = np.ones(filled.shape, bool)
        outside[10:14, 10:14] = False
        np.testing.assert_array_equal(filled[outside], open_ones[outside])

    def test_holes_between_two_objects_stay(self) -> None:
        field = torch.zeros((DIM, 30, 30))
        field[0, 5:25, 5:15] = field[1, 5:25, 15:25] = 4.0
        field[:, 12:17, 12:18] = 0.0
        labels = self.run(field, background=True, fill_holes=True)
        assert labels.max() == 2
        assert not labels[12:17, 12:18].any()

    def test_holes_of_volumes_are_closed_on_all_sides(self) -> None:
        field = torch.zeros((DIM, 20, 22, 24))
        field[0, 3:17, 3:19, 3:21] = 4.0
        field[0, 6:9, 6:9, 6:9] = 0.0  # a hole
        field[0, 12:20, 12:15, 12:15] = 0.0  # a tunnel to the outside
        labels = self.run(field, background=True, fill_holes=True)
        assert (labels[6:9, 6:9, 6:9] == 1).all()
        assert not labels[12:20, 12:15, 12:15].any()

    def test_without_background_every_voxel_has_an_object(self) -> None:
        field, _ = planted((48, 60), 4, background=False, noise=0.3)
        assert (self.run(field, background=False, min_size=30) > 0).all()

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_embeddings_that_are_not_finite_are_refused(self, value: float) -> None:
        field = torch.zeros((DIM, 9, 9))
        field[2, 4, 4] = value
        with pytest.raises(DataError, match="embeddings must be finite"):
            self.run(field, background=True)
