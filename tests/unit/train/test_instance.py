"""Other forms of the instance term against slow references in float64."""

from __future__ import annotations

import math

import pytest
import torch

from spoco_zoo.config import LossConfig
from spoco_zoo.train import instance
from spoco_zoo.train.loss import kernel_width
from spoco_zoo.train.objective import Objective
from spoco_zoo.train.objects import find_objects
from spoco_zoo.train.pairs import pairs_of
from tests.unit.train.test_loss import DD, DV, THRESHOLD, Slow, example

WIDTH = kernel_width(DV, THRESHOLD)


def slow_bce(slow: Slow) -> float:
    """Voxel by voxel."""
    values = []
    for k, (_, own, window, mean, *_) in enumerate(slow.objects):
        field, losses = slow.field(k), []
        for where in window.nonzero():
            d2 = float((field[(slice(None), *where)] - mean).square().sum())
            mask = math.exp(-d2 / WIDTH)
            losses.append(-math.log(mask) if own[tuple(where)] else -math.log(max(1 - mask, 1e-6)))
        values.append(sum(losses) / len(losses))
    return sum(values) / len(values)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("margin", [None, 2])
def test_cross_entropy_equals_its_formula(ndim: int, margin: int | None) -> None:
    embeddings, labels = example(3, ndim)
    embeddings = embeddings / 3  # e^-d^2 in the range of numbers
    rows = embeddings.movedim(1, -1).reshape(-1, 4)
    objects = find_objects(labels)
    slow = Slow(embeddings, labels, margin)
    means = torch.stack([mean for _, _, _, mean, _, _ in slow.objects])
    found = [
        instance.instance_bce(pairs.squared(rows, means), pairs, WIDTH)
        for pairs in pairs_of(objects, None if margin is None else [margin] * ndim)
    ]
    assert float(torch.cat(found).mean()) == pytest.approx(slow_bce(slow), rel=1e-6)


def slow_affinity(
    embeddings: torch.Tensor, labels: torch.Tensor, offsets: list[tuple[int, ...]]
) -> float:
    """Pair by pair."""
    values = []
    for offset in offsets:
        shared = ours = theirs = 0.0
        for field, label in zip(embeddings, labels, strict=True):
            for p in torch.ones_like(label).nonzero().tolist():
                q = [a + o for a, o in zip(p, offset, strict=True)]
                if any(not 0 <= a < n for a, n in zip(q, label.shape, strict=True)):
                    continue
                first, second = int(label[tuple(p)]), int(label[tuple(q)])
                if first <= 0 and second <= 0:
                    continue
                d = float((field[(slice(None), *p)] - field[(slice(None), *q)]).norm())
                border = 1 - max(0.0, 1 - d / (2 * DD)) ** 2
                truth = float(first != second)
                shared += border * truth
                ours += border**2
                theirs += truth**2
        values.append(1 - 2 * shared / (ours + theirs + 1e-6))
    return sum(values) / len(values)


@pytest.mark.parametrize("ndim", [2, 3])
def test_affinities_equal_their_formula(ndim: int) -> None:
    embeddings, labels = example(4, ndim)
    generator = torch.Generator().manual_seed(1)
    offsets = instance.draw_offsets(labels.shape[1:], (1.0,) * ndim, generator)[:3]
    assert all(any(offset) for offset in offsets)
    rows = embeddings.movedim(1, -1).reshape(-1, 4)
    found = float(instance.affinity_dice(rows, labels, offsets, DD))
    assert found == pytest.approx(slow_affinity(embeddings, labels, offsets), rel=1e-6)


def test_sampled_voxels_belong_to_their_objects_and_reach_all_of_them() -> None:
    _, labels = example(2, 2)
    objects = find_objects(labels)
    owner = torch.full((labels.numel(),), -1)
    owner[objects.voxel] = objects.owner
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([instance.sample_voxels(objects, generator) for _ in range(300)])
    assert torch.equal(owner[draws], torch.arange(objects.count).expand(300, -1))
    assert len(draws.unique()) > 0.9 * len(objects.voxel)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("anchor", ["mean", "voxel"])
@pytest.mark.parametrize("term", ["dice", "bce", "affinity"])
def test_every_form_is_weighed_and_gives_a_gradient(term: str, anchor: str, scope: str) -> None:
    embeddings, labels = example(5, 2)

    def total(weight: float) -> tuple[float, torch.Tensor]:
        config = LossConfig(instance=weight, instance_term=term, anchor=anchor, push_scope=scope)
        leaf = embeddings.clone().requires_grad_()
        generator = torch.Generator().manual_seed(0)
        value, _ = Objective(config, (1.0, 1.0), with_background=True)(
            leaf, labels, generator=generator
        )
        value.backward()
        return float(value.detach()), leaf.grad

    (none, _), (one, gradient), (three, _) = total(0.0), total(1.0), total(3.0)
    assert three - none == pytest.approx(3 * (one - none), rel=1e-4)
    assert one > none
    assert bool(torch.isfinite(gradient).all())


def test_an_anchor_in_the_object_is_not_its_mean() -> None:
    embeddings, labels = example(6, 2)
    values = []
    for anchor in ("mean", "voxel"):
        config = LossConfig(anchor=anchor)
        generator = torch.Generator().manual_seed(0)
        _, terms = Objective(config, (1.0, 1.0), with_background=True)(
            embeddings, labels, generator=generator
        )
        values.append({name: float(value) for name, value in terms.items()})
    differ = {name for name in values[0] if values[0][name] != values[1][name]}
    assert differ == {"instance"}
