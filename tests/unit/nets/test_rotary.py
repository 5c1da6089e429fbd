"""Embeddings that turn with position: what stays, and what moves with an image."""

from __future__ import annotations

import math

import pytest
import torch

from spoco_zoo.config import ModelRecipe, NetConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.nets.registry import build_network

NETS = {
    "2D": NetConfig(
        embedding_dim=9,
        features=(3, 4),
        pooling=((2, 2),),
        rotary=((12.0, 7.5), (40.0, 16.0)),
    ),
    "3D": NetConfig(
        ndim=3,
        embedding_dim=7,
        features=(3, 4),
        pooling=((1, 2, 2),),
        rotary=((6.0, 12.0, 16.0),),
    ),
}
REACH = 8  # beyond it nothing of an image's edge is seen, and a multiple of the pooling


def embedded(net: NetConfig, image: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.inference_mode():
        out: torch.Tensor = build_network(net).eval()(image)
    return out


@pytest.mark.parametrize("name", NETS)
def test_lengths_and_the_other_channels_are_those_of_the_network_without(name: str) -> None:
    net = NETS[name]
    image = torch.randn(2, 1, *(24, 31, 22)[-net.ndim :])
    turning, plain = embedded(net, image), embedded(net.model_copy(update={"rotary": ()}), image)
    assert torch.equal(turning[:, net.turning :], plain[:, net.turning :])
    assert torch.allclose(turning.square().sum(1), plain.square().sum(1), rtol=1e-4)
    first = (slice(None), slice(None), *[0] * net.ndim)
    assert torch.equal(turning[first], plain[first])


@pytest.mark.parametrize("name", NETS)
def test_each_pair_turns_once_per_period_along_its_axis(name: str) -> None:
    net = NETS[name]
    image = torch.zeros(1, 1, *[64] * net.ndim)  # far from the edges all voxels are alike
    inner = (slice(None), *[slice(REACH, -REACH)] * net.ndim)
    field = embedded(net, image)[0][inner].double()
    for i, period in enumerate(p for periods in net.rotary for p in periods):
        pair = torch.complex(field[2 * i], field[2 * i + 1])
        step = complex(math.cos(2 * math.pi / period), math.sin(2 * math.pi / period))
        axis = i % net.ndim
        for other in range(net.ndim):
            low = pair.narrow(other, 0, pair.shape[other] - 1)
            high = pair.narrow(other, 1, pair.shape[other] - 1)
            assert torch.allclose(high, low * step if other == axis else low, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_distances_do_not_depend_on_where_an_image_lies(name: str) -> None:
    net = NETS[name]
    image = torch.randn(1, 1, *(24, 64, 64)[-net.ndim :])
    moved = image[..., 2:, 4:]
    where = (slice(None), *[slice(REACH, -REACH)] * net.ndim)
    field = embedded(net, image)[0][..., 2:, 4:][where].flatten(1)[:, ::31].T
    other = embedded(net, moved)[0][where].flatten(1)[:, ::31].T
    assert torch.allclose(torch.cdist(field, field), torch.cdist(other, other), atol=1e-3)
    assert not torch.allclose(field, other, atol=1e-2)


@pytest.mark.parametrize(
    ("rotary", "words"),
    [(((8.0,),), "one period per spatial axis"), (((8.0, 8.0),) * 3, "two channels")],
)
def test_periods_that_do_not_fit_are_refused(rotary: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NetConfig.checked({"embedding_dim": 8, "rotary": rotary})


def test_the_background_must_not_turn() -> None:
    values = {
        "net": NETS["3D"].model_dump(),
        "delta_var": 0.5,
        "delta_dist": 2.0,
        "kernel_threshold": 0.5,
        "clustering": {},
        "channel_names": ("a",),
        "patch": (8, 8, 8),
    }
    assert ModelRecipe.checked({**values, "background": (0.0,) * 6 + (1.0,)})
    with pytest.raises(ConfigError, match="must be 0 in channels that turn"):
        ModelRecipe.checked({**values, "background": (0.0,) * 5 + (1.0, 0.0)})
