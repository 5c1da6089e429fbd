"""A wider network that goes on from a narrower one."""

from __future__ import annotations

import pytest
import torch

from spoco_zoo.config import NetConfig
from spoco_zoo.nets.registry import build_network
from spoco_zoo.nets.widen import can_widen, widened

GIVEN = {
    2: NetConfig(features=(4, 6, 8), pooling=((2, 2), (2, 2)), in_channels=2, embedding_dim=3),
    3: NetConfig(ndim=3, features=(3, 5), pooling=((1, 2, 2),), embedding_dim=3),
}
WIDE = {2: (5, 6, 12), 3: (4, 9)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_wider_network_computes_the_same(ndim: int, training: bool) -> None:
    torch.manual_seed(0)
    given = GIVEN[ndim]
    wanted = given.model_copy(update={"features": WIDE[ndim]})
    narrow = build_network(given)
    images = torch.randn(2, given.in_channels, *(12,) * ndim)
    narrow.train()(images)  # running statistics other than those of a fresh network
    wide = build_network(wanted)
    wide.load_state_dict(widened(narrow.state_dict(), given, wanted, seed=1))
    narrow.train(training)
    wide.train(training)
    torch.testing.assert_close(wide(images), narrow(images), rtol=1e-5, atol=1e-5)


def test_new_channels_learn() -> None:
    torch.manual_seed(0)
    given = GIVEN[2]
    wanted = given.model_copy(update={"features": WIDE[2]})
    wide = build_network(wanted)
    wide.load_state_dict(widened(build_network(given).state_dict(), given, wanted, seed=1))
    images = torch.randn(2, 2, 12, 12)
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.1)
    for _ in range(2):  # first the weights behind the new channels, then those before them
        before = wide.encoders[0].layers[0].weight[4].detach().clone()
        optimizer.zero_grad()
        wide(images).square().mean().backward()
        optimizer.step()
    assert bool((wide.encoders[0].layers[0].weight[4] != before).any())


def test_the_seed_decides_about_new_channels_and_nothing_else_is_drawn() -> None:
    given = GIVEN[2]
    wanted = given.model_copy(update={"features": WIDE[2]})
    state = build_network(given).state_dict()
    before = torch.get_rng_state()
    first, again, other = (widened(state, given, wanted, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    name = "encoders.0.layers.0.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"features": (4, 6, 9)}, True),
        ({"features": (5, 5, 9)}, False),
        ({"features": (4, 6, 8), "embedding_dim": 4}, False),
        ({"features": (4, 6), "pooling": ((2, 2),)}, False),
        ({"features": (4, 6, 8), "pooling": ((2, 2), (1, 2))}, False),
    ],
)
def test_what_can_be_widened(change: dict[str, object], fits: bool) -> None:
    assert can_widen(GIVEN[2], GIVEN[2].model_copy(update=change)) is fits


def test_embeddings_may_begin_to_turn_but_not_otherwise_than_they_did() -> None:
    given = GIVEN[2].model_copy(update={"embedding_dim": 6})
    turning = given.model_copy(update={"rotary": ((16.0, 16.0),), "features": (4, 6, 9)})
    other = turning.model_copy(update={"rotary": ((8.0, 8.0),)})
    assert can_widen(given, turning)
    assert not can_widen(turning, other)
    assert not can_widen(turning, given)
    narrow, wide = build_network(given).eval(), build_network(turning).eval()
    wide.load_state_dict(widened(narrow.state_dict(), given, turning, seed=1))
    images = torch.randn(1, 2, 12, 12)
    # Turned or not, lengths are the same; at the origin nothing is turned.
    torch.testing.assert_close(wide(images).norm(dim=1), narrow(images).norm(dim=1))
    torch.testing.assert_close(wide(images)[..., 0, 0], narrow(images)[..., 0, 0])
    assert not torch.allclose(wide(images), narrow(images))
