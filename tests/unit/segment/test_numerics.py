"""What the number of threads and the precision change: nothing, and how little."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))
from bundle_runs import disks, make_run

from spoco_zoo import ngff
from spoco_zoo.nets.model import load_run
from spoco_zoo.segment import segment
from spoco_zoo.segment.network.inference import made_ready

BFLOAT16 = 0.05
"""Largest difference of an embedding in bfloat16, in parts of the embeddings' range."""


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_number_of_threads_does_not_change_a_label(threads, ndim: int, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ndim)
    image, _ = disks(ndim)
    tifffile.imwrite(tmp_path / "a.tif", image[0].astype(np.uint16), photometric="minisblack")
    found = []
    for count in (1, 2, 3):
        threads(count)
        output = tmp_path / f"{count}.zarr"
        result = segment(tmp_path / "a.tif", run, output=output, device="cpu")
        assert result.objects > 3
        labels = ngff.find_labels(output)
        whole = tuple(slice(0, n) for n in labels.spatial_shape(0))
        found.append(labels.read(0, 0, None, whole))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("ndim", [2, 3])
def test_bfloat16_stays_within_its_tolerance(ndim: int, tmp_path: Path) -> None:
    """As docs/reliability.md states it; labels near the borders of objects may differ."""
    network = load_run(make_run(tmp_path / "run", ndim)).network
    image, _ = disks(ndim)
    x = torch.from_numpy((image - image.mean()) / image.std())[None]
    with torch.inference_mode():
        exact = network(x)
        rough = made_ready(network, torch.device("cpu"), "bfloat16")(x)
    span = float(exact.max() - exact.min())
    assert 0 < float((exact - rough).abs().max()) / span < BFLOAT16
