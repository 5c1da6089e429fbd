"""Every loss term against a slow, obvious reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.config import LossConfig
from spoco_zoo.train import loss
from spoco_zoo.train.objective import Objective
from spoco_zoo.train.objects import (
    dilated,
    find_objects,
    flatten_embeddings,
    in_contact,
    neighbours,
    scatter_mean,
)
from spoco_zoo.train.pairs import pairs_of, squared_distances

DV, DD, THRESHOLD = 0.5, 2.0, 0.5


def example(seed: int, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (2, 4, ...) and labels (2, ...) with objects, background and unknown voxels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (9, 11) if ndim == 2 else (4, 6, 7)
    embeddings = 2 * torch.randn((2, 4, *shape), generator=generator, dtype=torch.float64)
    coarse = torch.randint(-1, 5, (2, *[(n + 2) // 3 for n in shape]), generator=generator)
    labels = coarse
    for axis, n in enumerate(shape, start=1):
        labels = labels.repeat_interleave(3, axis).narrow(axis, 0, n)
    labels[0].flatten()[0] = 1  # at least one object
    return embeddings, labels


class Slow:
    """The published formulas, one object and one voxel at a time, in float64."""

    def __init__(self, embeddings: torch.Tensor, labels: torch.Tensor, margin: int | None) -> None:
        self.objects = []  # (image, mask of own voxels, mask of window, mean)
        self.images = list(zip(embeddings, labels, strict=True))
        for n, (field, label) in enumerate(self.images):
            for k in sorted(int(v) for v in label.unique() if v > 0):
                own = label == k
                window = torch.zeros_like(own)
                where = own.nonzero()
                low, high = where.min(0).values, where.max(0).values + 1
                if margin is None:
                    window[:] = True
                else:
                    index = tuple(
                        slice(max(0, int(a) - margin), int(b) + margin)
                        for a, b in zip(low, high, strict=True)
                    )
                    window[index] = True
                self.objects.append((n, own, window, field[:, own].mean(1), low, high))

    def field(self, k: int) -> torch.Tensor:
        return self.images[self.objects[k][0]][0]

    def pull(self) -> float:
        per_object = []
        for k, (_, own, _, mean, *_) in enumerate(self.objects):
            distances = [float((e - mean).norm()) for e in self.field(k)[:, own].T]
            per_object.append(sum(max(0, d - DV) ** 2 for d in distances) / len(distances))
        return sum(per_object) / len(per_object)

    def push(self, margin: int | None) -> float:
        values = []
        for a, (image_a, _, _, mean_a, low_a, high_a) in enumerate(self.objects):
            for b, (image_b, _, _, mean_b, low_b, high_b) in enumerate(self.objects):
                if a == b or image_a != image_b:
                    continue
                gap = torch.maximum(low_a - high_b, low_b - high_a)
                if margin is None or bool((gap < margin).all()):
                    values.append(max(0, 2 * DD - float((mean_a - mean_b).norm())) ** 2)
        return sum(values) / max(len(values), len(self.objects), 1)

    def regulariser(self) -> float:
        return sum(float(mean.norm()) for *_, mean, _, _ in self.objects) / len(self.objects)

    def dice(self) -> float:
        two_sigma = DV**2 / -math.log(THRESHOLD)
        values = []
        for k, (_, own, window, mean, *_) in enumerate(self.objects):
            squared = (self.field(k) - mean[(...,) + (None,) * own.ndim]).square().sum(0)
            soft = torch.exp(-squared / two_sigma)[window]
            target = own[window].double()
            dice = 2 * (soft * target).sum() / (soft.square().sum() + target.square().sum() + 1e-6)
            values.append(1 - float(dice))
        return sum(values) / len(values)

    def unlabeled_push(self) -> float:
        values = []
        for k, (image, _, window, mean, *_) in enumerate(self.objects):
            unknown = (self.images[image][1] == 0) & window
            distances = [float((e - mean).norm()) for e in self.field(k)[:, unknown].T]
            values.append(sum(max(0, DD - d) ** 2 for d in distances) / max(len(distances), 1))
        return sum(values) / len(values)


def ours(embeddings: torch.Tensor, labels: torch.Tensor, margin: int | None) -> dict[str, float]:
    """The package's terms on float64 rows."""
    rows = embeddings.movedim(1, -1).reshape(-1, embeddings.shape[1])
    objects = find_objects(labels)
    reach = None if margin is None else [margin] * (labels.ndim - 1)
    means = scatter_mean(rows[objects.voxel], objects.owner, objects.size)
    width = loss.kernel_width(DV, THRESHOLD)
    unknown = labels.reshape(-1) == 0
    dice, unlabeled = [], []
    for pairs in pairs_of(objects, reach):
        squared = pairs.squared(rows, means)
        dice.append(loss.instance_dice(squared, pairs, objects.size[pairs.objects], width))
        unlabeled.append(loss.unlabeled_push(squared, pairs, unknown, DD))
    return {
        "pull": float(loss.pull(rows, means, objects, DV)),
        "push": float(loss.push(means, neighbours(objects, reach), DD)),
        "regulariser": float(loss.regulariser(means)),
        "dice": float(torch.cat(dice).mean()),
        "unlabeled_push": float(torch.cat(unlabeled).mean()),
    }


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ndim=st.sampled_from([2, 3]),
    margin=st.sampled_from([None, 1, 3]),
)
def test_terms_equal_the_published_formulas(seed: int, ndim: int, margin: int | None) -> None:
    embeddings, labels = example(seed, ndim)
    slow = Slow(embeddings, labels, margin)
    expected = {
        "pull": slow.pull(),
        "push": slow.push(margin),
        "regulariser": slow.regulariser(),
        "dice": slow.dice(),
        "unlabeled_push": slow.unlabeled_push(),
    }
    assert ours(embeddings, labels, margin) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_the_kernel_falls_to_its_threshold_at_delta_var() -> None:
    width = loss.kernel_width(0.7, 0.3)
    assert float(loss.soft_mask(torch.tensor(0.7**2), width)) == pytest.approx(0.3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), ndim=st.sampled_from([2, 3]), reach=st.sampled_from([1, 2]))
def test_objects_in_contact_have_voxels_within_reach(seed: int, ndim: int, reach: int) -> None:
    _, labels = example(seed, ndim)
    objects = find_objects(labels)
    found = in_contact(objects, [reach] * ndim)
    within = objects.voxel % objects.voxels_per_image
    places = torch.stack(torch.unravel_index(within, labels.shape[1:]), 1).double()
    points = [places[objects.owner == k] for k in range(objects.count)]
    for a, one in enumerate(points):
        for b, other in enumerate(points):
            box = torch.cdist(one, other, p=math.inf).min()
            near = a != b and bool(objects.image[a] == objects.image[b]) and box <= reach
            assert bool(found[a, b]) == near


def test_reach_beyond_the_crop_finds_nothing_more_and_does_not_fail() -> None:
    labels = torch.zeros((1, 4, 30), dtype=torch.long)
    labels[0, :, :5], labels[0, :, 8:12], labels[0, :, 25:] = 1, 2, 3
    found = in_contact(find_objects(labels), [6, 6])
    assert found.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_with_contact_strangers_inside_of_an_objects_box_may_look_like_it() -> None:
    labels = torch.full((1, 12, 12), -1, dtype=torch.long)
    labels[0, :2, :], labels[0, :, :2] = 1, 1  # an angle, whose box is the whole crop
    labels[0, 8:, 8:] = 2
    alike = torch.zeros((1, 2, 12, 12))
    alike[:, 0][labels > 0] = 4.0
    terms = {
        scope: Objective(LossConfig(push_scope=scope, window=2), (1.0, 1.0), True)(alike, labels)[1]
        for scope in ("local", "contact")
    }
    assert terms["local"]["push"] == pytest.approx(16)
    assert terms["local"]["instance"] > 0.05
    assert terms["contact"]["push"] == 0
    assert terms["contact"]["instance"] == pytest.approx(0, abs=1e-6)


def test_dice_weighs_a_small_object_like_a_large_one() -> None:
    labels = torch.zeros((1, 20, 20), dtype=torch.long)
    labels[0, :2, :2], labels[0, 5:, :] = 1, 2
    perfect = torch.zeros((1, 2, 20, 20))
    perfect[:, 0][labels == 1], perfect[:, 1][labels == 2] = 9.0, 9.0
    broken_small, broken_large = perfect.clone(), perfect.clone()
    broken_small[:, 0, 0, :2] = -9.0
    broken_large[:, 1, 5:12, :] = -9.0
    values = []
    for field in (perfect, broken_small, broken_large):
        rows = flatten_embeddings(field)
        objects = find_objects(labels)
        means = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        (pairs,) = pairs_of(objects, None)
        squared = pairs.squared(rows, means)
        values.append(float(loss.instance_dice(squared, pairs, objects.size, 0.4).mean()))
    assert values[0] == pytest.approx(0, abs=1e-5)
    # Half of the small object lost costs about what half of the large one does.
    assert values[1] == pytest.approx(values[2], rel=0.1)


def test_foreground_loss_has_its_border_at_delta_dist() -> None:
    rows = torch.zeros((2, 3))
    rows[:, 0] = torch.tensor([1.9, 2.1])
    positive = torch.tensor([False, True])
    right = loss.foreground(rows, positive, ~positive, 2.0)
    wrong = loss.foreground(rows, ~positive, positive, 2.0)
    assert float(right) == pytest.approx(math.log(1 + math.exp(-0.4)), rel=1e-4)
    assert float(wrong) > float(right)


def test_positive_unlabeled_puts_unannotated_objects_on_the_side_of_the_annotated() -> None:
    """30 % of the unlabeled voxels look like the annotated ones."""
    radius = torch.full((100,), 2.0)
    looks_like_object = torch.arange(100) < 40  # one free parameter each for look-alikes and others
    shared = torch.zeros(2, requires_grad=True)
    positive = torch.arange(100) < 12
    optimizer = torch.optim.SGD([shared], lr=0.5)
    for _ in range(200):
        moved = radius + torch.where(looks_like_object, shared[0], shared[1])
        rows = torch.stack([moved, torch.zeros(100)], dim=1)
        nobody = torch.zeros(100, dtype=torch.bool)
        value = loss.positive_unlabeled(rows, positive, nobody, ~positive, nobody, 2.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    objects, others = shared.detach().tolist()
    assert objects > 0.2 > -0.2 > others


def test_a_single_pair_of_many_objects_weighs_as_one_of_them() -> None:
    means = torch.zeros(10, 3)
    pairs = torch.zeros(10, 10, dtype=torch.bool)
    pairs[0, 1] = pairs[1, 0] = True
    assert float(loss.push(means, pairs, DD)) == pytest.approx(2 * (2 * DD) ** 2 / 10, rel=1e-4)


def test_what_lies_around_annotated_objects_weighs_as_much_as_they() -> None:
    """Ten voxels like those of an object, most of them around annotated ones, in a big image."""
    rows = torch.zeros(1000, 2, requires_grad=True)
    number = torch.arange(1000)
    positive, around = number < 5, (number >= 5) & (number < 12)
    nobody = torch.zeros_like(positive)
    loss.positive_unlabeled(rows + 1, positive, nobody, ~positive, around, 2.0).backward()
    force = rows.grad.sum(1)
    assert (force[positive] < 0).all()
    assert (force[~positive] > 0).all()
    assert (force[around] > 50 * force[number >= 12].max()).all()


def test_dilation_reaches_as_far_as_it_says_along_each_axis() -> None:
    mask = torch.zeros(2, 5, 9, 9, dtype=torch.bool)
    mask[1, 2, 4, 4] = True
    expected = torch.zeros_like(mask)
    expected[1, 1:4, 1:8, 4:5] = True
    assert torch.equal(dilated(mask, [1, 3, 0]), expected)


def test_distances_and_their_gradient_equal_those_of_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn((n, 3), generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (4, 7)
    )
    direct = (first[:, None] - second[None]).square().sum(-1)
    torch.testing.assert_close(squared_distances(first, second), direct)
    assert torch.autograd.gradcheck(squared_distances, (first, second))


def test_consistency_equals_its_formula_anchor_by_anchor() -> None:
    generator = torch.Generator().manual_seed(4)
    fields = tuple(torch.randn((2, 90, 3), generator=generator).double() for _ in range(2))
    unknown = torch.rand((2, 90), generator=generator) < 0.7
    settings = {"delta_var": 0.9, "max_anchors": 12, "volume_threshold": 0.1}
    width = loss.kernel_width(0.9, THRESHOLD)
    found = loss.consistency(
        *fields, unknown, two_sigma=width, generator=torch.Generator().manual_seed(5), **settings
    )
    anchors = loss.draw_anchors(
        fields, unknown, generator=torch.Generator().manual_seed(5), **settings
    )
    values = []
    for n, chosen in enumerate(anchors):
        uncovered = unknown[n].clone()
        for anchor in chosen.tolist():
            assert uncovered[anchor]
            squared = [(rows[n] - rows[n, anchor]).square().sum(-1) for rows in fields]
            uncovered &= torch.stack(squared).amin(0) >= 0.81
            f, g = (torch.exp(-s / width) for s in squared)
            values.append(1 - 2 * float((f * g).sum() / (f @ f + g @ g)))
        assert len(chosen) == 12 or uncovered.sum() <= 0.1 * unknown[n].sum()
    assert float(found) == pytest.approx(sum(values) / len(values), rel=1e-6)


def consistency_of(student: torch.Tensor, teacher: torch.Tensor, unknown: torch.Tensor) -> float:
    return float(
        loss.consistency(
            student,
            teacher,
            unknown,
            delta_var=DV,
            two_sigma=loss.kernel_width(DV, THRESHOLD),
            max_anchors=20,
            volume_threshold=0.05,
            generator=torch.Generator().manual_seed(0),
        )
    )


def test_consistency_is_zero_for_equal_and_high_for_unrelated_embeddings() -> None:
    generator = torch.Generator().manual_seed(3)
    field = torch.randn((2, 60, 4), generator=generator).repeat_interleave(4, 1)
    other = torch.randn((2, 240, 4), generator=generator) * 3
    unknown = torch.ones((2, 240), dtype=torch.bool)
    assert consistency_of(field, field, unknown) == pytest.approx(0, abs=1e-5)
    assert consistency_of(field, other, unknown) > 0.5


def test_consistency_of_one_anchor_is_its_dice() -> None:
    student = torch.zeros((1, 4, 1))
    teacher = torch.tensor([0.0, 0.0, 9.0, 9.0])[None, :, None]
    unknown = torch.tensor([[True, True, False, False]])
    # f = (1, 1, 1, 1), g = (1, 1, 0, 0): 1 - 2 * 2 / (4 + 2)
    assert consistency_of(student, teacher, unknown) == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, field in LossConfig.model_fields.items()
        if field.annotation is float and not name.startswith(("delta", "kernel", "volume"))
    ],
)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_every_weight_changes_the_loss(name: str, scope: str) -> None:
    embeddings, labels = example(5, 2)

    def total(weight: float) -> float:
        config = LossConfig.checked({name: weight, "push_scope": scope})
        value, _ = Objective(config, (1.0, 1.0), with_background=True)(
            embeddings,
            labels,
            momentum=embeddings * 0.7,
            generator=torch.Generator().manual_seed(0),
        )
        return float(value)

    none, one, three = total(0.0), total(1.0), total(3.0)
    assert one > none
    assert three - none == pytest.approx(3 * (one - none), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_gradients_are_finite_where_embeddings_coincide(ndim: int) -> None:
    _, labels = example(1, ndim)
    field = torch.zeros((2, 4, *labels.shape[1:]), requires_grad=True)
    objective = Objective(LossConfig(), (1.0,) * ndim, with_background=True)
    generator = torch.Generator().manual_seed(0)
    value, _ = objective(field, labels, momentum=field.detach(), generator=generator)
    value.backward()
    assert field.grad is not None
    assert bool(torch.isfinite(field.grad).all())


def test_a_crop_without_objects_or_zeros_gives_a_finite_loss() -> None:
    field = torch.randn((1, 4, 8, 8), requires_grad=True)
    objective = Objective(LossConfig(), (1.0, 1.0), with_background=True)
    for value in (0, -1, 3):
        labels = torch.full((1, 8, 8), value)
        total, terms = objective(field, labels)
        assert bool(torch.isfinite(total))
        # A crop that one object fills has no background, whatever its label.
        assert ("pull" in terms) == (value == 3)
