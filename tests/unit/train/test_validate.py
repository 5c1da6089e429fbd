"""What of which image is validated on."""

from __future__ import annotations

import numpy as np
import pytest

from spoco_zoo.train.data import BACKGROUND, Sample, make_sample
from spoco_zoo.train.validate import select_voxels


def sample(labels: np.ndarray) -> Sample:
    """An image of these labels that is dark but for one corner."""
    image = np.zeros((1, *labels.shape), np.float32)
    image.flat[0] = 1
    return make_sample("a", image, labels)


@pytest.mark.parametrize("shape", [(6, 1024, 1024), (1, 2100, 2100), (100, 400, 300)])
def test_of_a_thin_and_wide_stack_nothing_was_validated_on(shape: tuple[int, ...]) -> None:
    labels = np.full(shape, BACKGROUND, np.int32)
    where = select_voxels(sample(labels), (8, 8, 8))
    taken = labels[where].shape
    assert all(0 <= axis.start < axis.stop <= n for axis, n in zip(where, shape, strict=True))
    assert all(n % 8 == 0 or n == whole for n, whole in zip(taken, shape, strict=True))
    assert 2**21 < np.prod(taken) < 2**23
