"""Scores that choose objects: sums, trees, cuts, and what is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spoco_zoo.bundle.export import cluster_script
from spoco_zoo.bundle.sample import run_cluster_script
from spoco_zoo.config import ClusteringConfig, Scoring
from spoco_zoo.segment.cluster import cluster, learn, portable, regions, scores

BACKGROUND = (0.0, 0.0, 0.0)
PLAIN = ClusteringConfig(bandwidth=0.5, foreground=2.0, smoothness=0.4, min_size=10)
SHAPES = st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple)


def field_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 1, (3, *shape)).astype(np.float32)


def tree_of(labels: np.ndarray, field: np.ndarray, reach: float):
    source = portable.Field(field)
    traits = portable.traits_of(source, labels, BACKGROUND)
    means = portable.measure(source, labels, int(labels.max(initial=0))).means
    return *traits.as_tree(means, reach), means, traits.contacts()[0]


def leaves(nodes: np.ndarray, node: int) -> set[int]:
    if nodes[node, 0] < 0:
        return {node}
    return leaves(nodes, nodes[node, 0]) | leaves(nodes, nodes[node, 1])


@given(
    labels=SHAPES.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, 5))),
    seed=st.integers(0, 99),
    thick=st.integers(1, 40),
)
def test_a_node_has_the_traits_of_its_regions_as_one(
    labels: np.ndarray, seed: int, thick: int
) -> None:
    field = field_of(labels.shape, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable, "SLAB", thick)
        nodes, traits, means, _ = tree_of(labels, field, 3.0)
    for node in range(len(means), len(nodes)):
        members = np.array(sorted(leaves(nodes, node)))
        joined = np.where(np.isin(labels, members), members[0], labels)
        alone = portable.traits_of(portable.Field(field), joined, BACKGROUND)
        for name in ("sums", "far", "open", "shared"):
            np.testing.assert_allclose(
                getattr(traits, name)[node], getattr(alone, name)[members[0]], rtol=1e-9, atol=1e-9
            )


@given(
    labels=SHAPES.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, 9))),
    seed=st.integers(0, 99),
    bandwidth=st.floats(0.1, 4),
)
def test_a_tree_cut_at_a_distance_is_what_that_bandwidth_joins(
    labels: np.ndarray, seed: int, bandwidth: float
) -> None:
    field = field_of(labels.shape, seed)
    nodes, _, means, pairs = tree_of(labels, field, bandwidth)
    measured = portable.measure(portable.Field(field), labels, len(means) - 1)
    table = regions.alike(measured, pairs, bandwidth)
    inside = set(nodes[len(means) :].ravel().tolist())
    tops = [leaves(nodes, node) for node in range(len(nodes)) if node not in inside]
    expected = [set(np.flatnonzero(table == k).tolist()) for k in range(int(table.max()) + 1)]
    assert sorted(map(sorted, tops)) == sorted(map(sorted, expected))


@given(data=st.data(), count=st.integers(2, 9))
def test_the_cut_keeps_whole_what_is_at_least_as_good_as_all_within(
    data: st.DataObject, count: int
) -> None:
    free, made = list(range(1, count)), []
    while len(free) > 1 and data.draw(st.booleans()):
        chosen = data.draw(st.permutations(free))[:2]
        free = [node for node in free if node not in chosen] + [count + len(made)]
        made.append(chosen)
    nodes = np.array([[-1, -1]] * count + made)
    values = data.draw(arrays(float, len(nodes), elements=st.floats(0, 1)))
    values[0] = 0
    owner = scores.whole_nodes(nodes, values, values >= 0.3)
    for region in range(1, count):
        above = [n for n in range(len(nodes)) if region in leaves(nodes, n)]
        fit = [
            n
            for n in above
            if all(
                values[n] >= values[m]
                for m in range(len(nodes))
                if leaves(nodes, m) <= leaves(nodes, n)
            )
        ]
        expected = max(fit)
        assert owner[region] == (expected if values[expected] >= 0.3 else 0)


@given(move=st.tuples(st.integers(0, 20), st.integers(0, 20)), seed=st.integers(0, 9))
def test_properties_do_not_depend_on_where_an_object_lies(move: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    object_ = rng.integers(0, 2, (6, 7)).astype(np.int32)
    object_[2:4, 2:5] = 1
    values = field_of((6, 7), seed)
    found = []
    for y, x in ((1, 1), (1 + move[0], 1 + move[1])):
        labels, field = np.zeros((30, 30), np.int32), np.zeros((3, 30, 30), np.float32)
        labels[y : y + 6, x : x + 7], field[:, y : y + 6, x : x + 7] = object_, values
        traits = portable.traits_of(portable.Field(field), labels, BACKGROUND)
        found.append(traits.properties()[1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_disc_is_as_large_as_its_ellipsoid_in_2d_and_3d() -> None:
    for ndim, side in ((2, 81), (3, 41)):
        places = np.indices((side,) * ndim) - side // 2
        labels = ((places**2).sum(0) <= (side // 2 - 2) ** 2).astype(np.int32)
        field = np.full((3, *labels.shape), 2, np.float32)
        found = portable.traits_of(portable.Field(field), labels, BACKGROUND).properties()[1]
        assert np.exp(found[0]) == pytest.approx(labels.sum())
        assert found[1] == pytest.approx(12**0.5, abs=1e-6)
        assert found[3] == pytest.approx(0, abs=1e-3)
        assert found[6] == pytest.approx(0, abs=1e-6)
        assert found[7] == pytest.approx(0, abs=0.01)


def drawn(seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Discs in halves and pairs of touching discs, all of which differ by 1 to 2, and crumbs."""
    rng = np.random.default_rng(seed)
    shape = (192, 192)
    y, x = np.indices(shape)
    field, truth, number = rng.normal(0, 0.05, (3, *shape)), np.zeros(shape, np.int32), 0
    for cy in range(16, 190, 32):
        for cx in range(16, 190, 32):
            kind = rng.integers(3)
            radius = rng.uniform(7, 9)
            centres = [(cy, cx)] if kind < 2 else [(cy, cx - 6), (cy, cx + 6)]
            mean = 3 * np.eye(3)[rng.integers(3)]
            for part, (oy, ox) in enumerate(centres):
                inside = (truth == 0) & (
                    (y - oy) ** 2 + (x - ox) ** 2 <= (radius if kind < 2 else 6.2) ** 2
                )
                number += 1
                truth[inside] = number
                field[:, inside] += (mean * (1 + part * rng.uniform(1, 2) / 3))[:, None]
                if kind == 1:
                    right = inside & (x > cx)
                    field[:, right] += (mean * rng.uniform(1, 2) / 3)[:, None]
    for _ in range(40):
        cy, cx = rng.integers(0, 188, 2)
        crumb = (slice(cy, cy + 4), slice(cx, cx + 3))
        if not truth[max(cy - 2, 0) : cy + 6, max(cx - 2, 0) : cx + 5].any():
            field[0][crumb] += 2.6
    return torch.from_numpy(field.astype(np.float32)), np.where(truth > 0, truth, -1)


@pytest.fixture(scope="module")
def scoring() -> Scoring:
    learned = learn.learn_scores(
        map(drawn, range(40)), PLAIN, BACKGROUND, delta_var=0.4, delta_dist=1.0
    )
    assert learned is not None
    return learned


def average_precision(config: ClusteringConfig, seeds: range) -> float:
    from spoco_zoo.metrics import score

    found = []
    for field, truth in map(drawn, seeds):
        labels = cluster(field, config, BACKGROUND)
        found.append(score(labels, np.maximum(truth, 0)).ap50)
    return float(np.mean(found))


def test_scores_find_what_no_bandwidth_and_no_size_can(scoring: Scoring) -> None:
    seeds = range(100, 104)
    plain = max(
        average_precision(PLAIN.model_copy(update={"bandwidth": b, "min_size": m}), seeds)
        for b in (0.5, 0.9, 1.1, 1.5, 2.5)
        for m in (10, 13)
    )
    assert plain < 0.9
    assert average_precision(PLAIN.model_copy(update={"scoring": scoring}), seeds) > 0.97


def test_scores_do_not_depend_on_slabs_and_travel_in_the_script(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, _ = drawn(7)
    config = PLAIN.model_copy(update={"scoring": scoring})
    whole = cluster(field, config, BACKGROUND)
    alone = run_cluster_script(
        cluster_script(),
        field.numpy(),
        {"background": list(BACKGROUND), **config.model_dump(mode="json")},
    )
    np.testing.assert_array_equal(alone, whole)
    monkeypatch.setattr(portable, "SLAB", 700)
    np.testing.assert_array_equal(cluster(field, config, BACKGROUND), whole)


def test_labels_by_scores_are_numbered_without_gaps(scoring: Scoring) -> None:
    labels = cluster(drawn(3)[0], PLAIN.model_copy(update={"scoring": scoring}), BACKGROUND)
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))


def test_large_objects_are_never_dropped(scoring: Scoring) -> None:
    field, truth = drawn(3)
    doubtful = scoring.model_copy(update={"least": 1.0, "large": 2**62})
    config = PLAIN.model_copy(update={"scoring": doubtful})
    assert cluster(field, config, BACKGROUND).max() == 0
    config = PLAIN.model_copy(update={"scoring": doubtful.model_copy(update={"large": 60})})
    labels = cluster(field, config, BACKGROUND)
    assert np.bincount(labels.ravel())[1:].min() >= 60
    assert labels.max() >= 0.8 * truth.max()


def test_without_background_scores_are_not_used(scoring: Scoring) -> None:
    field, _ = drawn(3)
    scored = PLAIN.model_copy(update={"scoring": scoring})
    np.testing.assert_array_equal(cluster(field, scored, None), cluster(field, PLAIN, None))


def test_nothing_is_learned_from_a_few_objects_or_from_what_nobody_annotated() -> None:
    def learned(cases: list[tuple[torch.Tensor, np.ndarray]]) -> Scoring | None:
        return learn.learn_scores(cases, PLAIN, BACKGROUND, delta_var=0.4, delta_dist=1.0)

    assert learned([]) is None
    assert learned([drawn(0)]) is None
    field, truth = drawn(0)
    assert learned([(field, np.zeros_like(truth))] * 40) is None


def test_asking_for_a_bandwidth_or_a_size_makes_an_end_of_scores(scoring: Scoring) -> None:
    scored = PLAIN.model_copy(update={"scoring": scoring})
    assert scored.overridden(None).scoring == scoring
    assert scored.overridden(ClusteringConfig(foreground=2.5)).scoring == scoring
    for asked in ({"min_size": 5}, {"bandwidth": 1.0}, {"smoothness": 0.3}):
        assert scored.overridden(ClusteringConfig(**asked)).scoring is None
    # The settings of a run, as they are, and after somebody changed one of them.
    assert scored.overridden(ClusteringConfig(**scored.model_dump())) == scored
    both = ClusteringConfig(min_size=5, scoring=scoring)
    assert scored.overridden(both).scoring is None
    other = scoring.model_copy(update={"least": 0.123})
    assert scored.overridden(ClusteringConfig(min_size=5, scoring=other)).scoring == other
