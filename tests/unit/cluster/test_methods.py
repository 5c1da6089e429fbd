"""The four clustering methods through one suite, and what is particular to each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import MeanShift
from sklearn.metrics import adjusted_rand_score

from spoco_zoo.bundle.export import cluster_script
from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.metrics import score
from spoco_zoo.segment.cluster import cluster, meanshift
from spoco_zoo.segment.cluster.density import spanning_tree
from spoco_zoo.segment.cluster.meanshift import assign, find_modes

from .suite import DIM, ClusteringSuite, planted


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestInstance(ClusteringSuite):
    method = "instance"

    def test_a_bridge_of_mixed_voxels_does_not_join_two_objects(self) -> None:
        field = torch.zeros((DIM, 20, 41))
        field[0, 4:16, 4:20] = field[1, 4:16, 21:37] = 4.0
        field[0, 4:16, 20] = field[1, 4:16, 20] = 2.0
        labels = self.run(field, background=True)
        assert labels.max() == 2
        assert (labels[4:16, 4:37] > 0).all()

    def test_fragments_with_alike_means_are_joined(self) -> None:
        field = torch.zeros((DIM, 20, 41))
        field[0, 4:16, 4:37] = 4.0
        field[1, 4:16, 19:21] = 1.5  # a streak of noise through the middle
        assert self.run(field, background=True, smoothness=0.2).max() == 1

    def test_the_script_runs_alone(self, tmp_path: Path) -> None:
        """A bundle's reader has numpy and scipy, and not this package."""
        field, _ = planted((48, 60), 5, background=True)
        np.save(tmp_path / "field.npy", field.numpy())
        script = tmp_path / "spoco_cluster.py"
        script.write_bytes(cluster_script())
        code = (
            "import sys, numpy as np; sys.path.insert(0, '.'); import spoco_cluster as s;"
            "np.save('labels.npy', s.cluster(np.load('field.npy'), background=[0] * 6,"
            " bandwidth=1.0, foreground=2.0, min_size=10));"
            "assert not any('spoco_zoo' in m for m in sys.modules)"
        )
        subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)
        expected = self.run(field, background=True)
        np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)


class TestMeanShift(ClusteringSuite):
    method = "meanshift"

    def test_modes_agree_with_scikit_learn(self) -> None:
        field, _ = planted((48, 60), 6, background=True, noise=0.15)
        rows = field.flatten(1).T.contiguous()
        theirs = MeanShift(bandwidth=0.9, bin_seeding=True).fit(rows.numpy())
        modes = find_modes(rows, 0.9)
        assert len(modes) == len(theirs.cluster_centers_)
        assert adjusted_rand_score(assign(rows, modes), theirs.labels_) > 0.999

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 999), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 1))
    def test_what_lies_elsewhere_in_the_block_says_nothing(
        self, seed: int, noise: float, axis: int
    ) -> None:
        """So labels do not depend on where blocks end, if a block holds the part whole."""
        one, other = (
            planted((30, 42), seed + n, background=True, noise=noise)[0] for n in (0, 1000)
        )
        for field in (one, other):
            field[:, [0, -1]] = field[:, :, [0, -1]] = 0
        both = self.run(torch.cat([one, other], dim=axis + 1), background=True)
        middle = one.shape[axis + 1]
        parts = np.split(both, [middle], axis=axis)
        for part, field in zip(parts, (one, other), strict=True):
            alone = self.run(field, background=True)
            np.testing.assert_array_equal(part > 0, alone > 0)
            assert adjusted_rand_score(part.ravel(), alone.ravel()) == 1.0


class TestHdbscan(ClusteringSuite):
    method = "hdbscan"

    def test_noise_is_given_to_a_touching_object(self) -> None:
        field, truth = planted((48, 60), 7, background=True)
        odd = torch.from_numpy(truth > 0) & (torch.rand(truth.shape, generator=seeded()) < 0.02)
        field[:, odd] += 1.5
        labels = self.run(field, background=True)
        assert score(labels, truth).ap50 > 0.9
        assert (labels[truth > 0] > 0).all()

    def test_the_tree_spans_parts_that_do_not_touch(self) -> None:
        edges = np.array([[0, 1], [1, 2], [0, 2], [3, 4]], np.int32)
        tree = spanning_tree(edges, np.array([1.0, 0.0, 3.0, 2.0]), 6)
        assert tree[:, 2].tolist() == pytest.approx([0, 1, 2, 1e9, 1e9], abs=1e-6)


class TestConsistency(ClusteringSuite):
    method = "consistency"

    def test_without_background_every_voxel_has_an_object(self) -> None:
        """Not so here: what is not confirmed is left out, and that is the method's purpose."""
        field, truth = planted((48, 60), 4, background=False)
        assert score(self.run(field, background=False, min_size=30), truth).ap75 == 1.0

    def test_objects_that_the_momentum_network_does_not_see_are_dropped(self) -> None:
        field, _ = planted((48, 60), 8, background=True)
        noise = torch.randn(field.shape, generator=torch.Generator().manual_seed(0)) * 5
        prototype = (0.0,) * DIM
        assert cluster(field, self.config(), prototype, momentum=field).max() > 3
        assert cluster(field, self.config(), prototype, momentum=noise).max() == 0

    def test_it_needs_the_momentum_network(self) -> None:
        with pytest.raises(ConfigError, match="momentum network"):
            cluster(torch.ones((2, 5, 5)), ClusteringConfig(method="consistency"), None)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("objects", [1, 6])
def test_tight_objects_in_many_channels_had_no_mode(objects: int, spread: float) -> None:
    """The middle of a cell of 16 channels lies up to two bandwidths from the voxels in it."""
    for seed in range(10):
        draw = torch.Generator().manual_seed(seed)
        centres = 6 * torch.randn((objects, 16), generator=draw)
        voxels = centres.repeat(50, 1)
        voxels = voxels + spread * torch.randn(voxels.shape, generator=draw)
        modes = find_modes(voxels, 1.0)
        assert len(modes) == objects
        assert (torch.cdist(centres, modes).min(1).values < 0.5).all()


def test_noise_that_is_dropped_anyhow_has_no_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of specks took a hundred times as long as the rest."""
    sought: list[int] = []

    def counted(rows: torch.Tensor, *args: Any) -> torch.Tensor:
        sought.append(len(rows))
        return find_modes(rows, *args)

    monkeypatch.setattr(meanshift, "find_modes", counted)
    field = torch.zeros((DIM, 40, 40))
    field[0, ::3, ::3] = 4.0
    field[0, 9:21, 9:21] = 0.0
    field[1, 10:20, 10:20] = 4.0
    labels = cluster(field, ClusteringConfig(method="meanshift", min_size=5), (0.0,) * DIM)
    assert sought == [100]
    assert (labels > 0).sum() == 100
    assert labels.max() == 1
