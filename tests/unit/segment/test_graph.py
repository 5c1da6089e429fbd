"""A U-Net as an ONNX graph is the same function, and `segment` takes it for large 2D images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_field import NETS, plain_network

from spoco_zoo.segment import segment
from spoco_zoo.segment.blocks import make_grid
from spoco_zoo.segment.network.graph import GraphUNet, build_graph
from spoco_zoo.segment.network.inference import folded, made_ready, worth_graphs

CPU = torch.device("cpu")


@settings(max_examples=8, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", NETS)
def test_the_graph_is_the_network_at_every_size(name: str, data) -> None:
    net = NETS[name]
    plain = plain_network(net)
    graph = GraphUNet(folded(plain), threads=1)
    for _ in range(2):  # another shape through the same session
        sides = [data.draw(st.integers(1, 40 if net.ndim == 2 else 14)) for _ in range(net.ndim)]
        x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, *sides))).float()
        with torch.inference_mode():
            expected, found = plain(x), graph(x)
        tolerance = 1e-5 * max(float(expected.abs().max()), 1)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_the_graph_is_valid_onnx(name: str) -> None:
    onnx.checker.check_model(build_graph(folded(plain_network(NETS[name]))), full_check=True)


def test_a_network_that_is_not_folded_is_refused() -> None:
    with pytest.raises(TypeError, match="BatchNorm2d"):
        build_graph(plain_network(NETS["2D"]))


@pytest.fixture
def sessions(monkeypatch) -> list[onnxruntime.InferenceSession]:
    """All that are made from now on."""
    made, real = [], onnxruntime.InferenceSession

    def make(*args, **kwargs) -> onnxruntime.InferenceSession:
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    return made


def test_graphs_are_for_2d_on_a_cpu_in_float32_and_replace_parts_of_networks_too(sessions) -> None:
    flat, deep = plain_network(NETS["2D"]), plain_network(NETS["3D"])
    made_ready(flat, CPU, "auto")
    made_ready(flat, CPU, "bfloat16", graphs=True)
    made_ready(deep, CPU, "auto", graphs=True)
    assert not sessions
    made_ready(flat, CPU, "auto", graphs=True)
    assert len(sessions) == 1
    x = torch.randn(1, 1, 24, 24)
    wrapped = torch.nn.Sequential(flat, torch.nn.ReLU()).eval()
    with torch.inference_mode():
        found = made_ready(wrapped, CPU, "float32", graphs=True)(x)
        torch.testing.assert_close(found, flat(x).relu(), atol=1e-5, rtol=0)
    assert len(sessions) == 2
    assert type(wrapped[0]) is type(flat)


def test_a_megapixel_is_worth_a_graph() -> None:
    grids = [make_grid((side, side), (512, 512), (32, 32)) for side in (1000, 1024)]
    assert [worth_graphs(grid) for grid in grids] == [False, True]


@pytest.mark.parametrize("side", [200, 256])
def test_only_large_images_pay_for_graphs(
    side: int, tmp_path: Path, sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoco_zoo.segment.network.inference.GRAPH_VOXELS", 2**16)
    image = np.random.default_rng(0).integers(0, 900, (side, side)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image)
    segment(tmp_path / "image.tif", "nuclei-fluo-2d")
    assert len(sessions) == (side == 256)
