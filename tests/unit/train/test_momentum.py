"""The moving average, by its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spoco_zoo.train.momentum import make_momentum, momentum_at, update_momentum


def test_the_average_moves_by_what_the_weight_leaves() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    average = make_momentum(network)
    start = {name: value.clone() for name, value in average.state_dict().items()}
    with torch.no_grad():
        for value in network.state_dict().values():
            value += 5
    update_momentum(average, network, 0.9)
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.9 * start[name] + 0.1 * (start[name] + 5))
        else:
            assert value == 5  # the count of batches
    assert not any(value.requires_grad for value in average.parameters())
    assert not average.training


@pytest.mark.parametrize(("step", "weight"), [(0, 0.1), (8, 0.5), (10_000, 0.99)])
def test_early_steps_forget_quickly(step: int, weight: float) -> None:
    assert momentum_at(step, 0.99) == pytest.approx(weight)
