"""The embedding field does not depend on blocks, and with a full halo not on patches either."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.config import NetConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.nets.model import Embedder
from spoco_zoo.nets.receptive import exact_halo, pooling_factor, receptive_radius
from spoco_zoo.nets.registry import build_network
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.embed import Kept, embed
from spoco_zoo.segment.field import AxisGrid, Field, make_field
from spoco_zoo.segment.network.inference import folded, made_ready

BLENDS = ("crop", "linear", "gaussian")
NETS = {
    "2D": NetConfig(ndim=2, embedding_dim=3, features=(3, 4, 5), pooling=((2, 2), (2, 2))),
    "2D anisotropic": NetConfig(ndim=2, embedding_dim=3, features=(3, 4), pooling=((1, 3),)),
    "3D": NetConfig(ndim=3, embedding_dim=2, features=(2, 3), pooling=((2, 2, 2),)),
    "3D anisotropic": NetConfig(
        ndim=3, embedding_dim=2, features=(2, 3, 3), pooling=((1, 2, 2), (2, 2, 2))
    ),
    "2D rotary": NetConfig(
        embedding_dim=9,
        features=(3, 4, 5),
        pooling=((2, 2), (2, 2)),
        rotary=((48.0, 17.5), (7.0, 32.0)),
    ),
    "3D rotary": NetConfig(
        ndim=3,
        embedding_dim=6,
        features=(2, 3, 3),
        pooling=((1, 2, 2), (2, 2, 2)),
        rotary=((6.0, 16.0, 17.0),),
    ),
}


@cache
def plain_network(net: NetConfig) -> torch.nn.Module:
    """Fixed random weights, with batch statistics that are not the defaults."""
    torch.manual_seed(0)
    built = build_network(net)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.2, 0.6)
    return built.eval()


@cache
def network(net: NetConfig) -> Embedder:
    """The same network as `segment` runs it on large images."""
    return made_ready(plain_network(net), torch.device("cpu"), "auto", graphs=True)


def volume_field(net: NetConfig, shape, cores, halo, blend) -> Field:
    factor = pooling_factor(net)
    patch = tuple(2 * h + c * f for h, c, f in zip(halo, cores, factor, strict=True))
    return make_field(shape, patch, halo, factor=factor, radius=receptive_radius(net), blend=blend)


def drawn_field(net: NetConfig, data) -> tuple[np.ndarray, Field]:
    """A small image of noise, and patches of any kind over it."""
    shape = tuple(data.draw(st.integers(5, 40 if net.ndim == 2 else 18)) for _ in range(net.ndim))
    halo = tuple(f * data.draw(st.integers(0, 2)) for f in pooling_factor(net))
    cores = [data.draw(st.integers(1, 3)) for _ in shape]
    field = volume_field(net, shape, cores, halo, data.draw(st.sampled_from(BLENDS)))
    return np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32), field


def embedded(net: NetConfig, image: np.ndarray, field: Field, region: Box) -> np.ndarray:
    pixels = image[(slice(None), *field.needed(region).slices)]
    return embed(network(net), pixels, field, region, net=net).embeddings.numpy()


@st.composite
def axes(draw) -> AxisGrid:
    factor = draw(st.sampled_from([1, 2, 3, 4, 8]))
    halo = factor * draw(st.integers(0, 5))
    patch = 2 * halo + factor * draw(st.integers(1, 6))
    field = make_field(
        [draw(st.integers(1, 200))],
        [patch],
        [halo],
        factor=[factor],
        radius=[draw(st.integers(0, 20))],
        blend=draw(st.sampled_from(BLENDS)),
    )
    grid = field.axes[0]
    for k in range(len(grid.edges) - 1):
        start, stop = grid.patch(k)
        assert start % factor == 0
        assert stop - start <= max(patch, 0) or len(grid.edges) == 2
    return grid


@given(axes())
def test_cores_tile_the_axis_and_weights_sum_to_one(grid: AxisGrid) -> None:
    assert grid.edges[0] == 0
    assert grid.edges[-1] == grid.size
    assert all(a < b for a, b in zip(grid.edges, grid.edges[1:], strict=False))
    total = np.zeros(grid.size)
    for k in range(len(grid.edges) - 1):
        start, stop = grid.support(k)
        weights = grid.weights(k)
        assert (weights >= 0).all()
        total[start:stop] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes(), st.data())
def test_touching_lists_the_patches_with_weight(grid: AxisGrid, data) -> None:
    start = data.draw(st.integers(0, grid.size - 1))
    stop = data.draw(st.integers(start + 1, grid.size))
    truth = [
        k
        for k in range(len(grid.edges) - 1)
        if grid.support(k)[0] < stop and grid.support(k)[1] > start
    ]
    assert list(grid.touching(start, stop)) == truth


@settings(max_examples=12, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", NETS)
def test_a_voxel_has_one_embedding_whatever_the_region(name: str, data) -> None:
    net = NETS[name]
    image, field = drawn_field(net, data)
    shape = image.shape[1:]
    whole = embedded(net, image, field, Box((0,) * net.ndim, shape))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    region = Box(start, stop)
    part = embedded(net, image, field, region)
    assert part.tobytes() == whole[(slice(None), *region.slices)].tobytes()


@settings(max_examples=5, deadline=None)
@given(st.data())
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("name", NETS)
def test_with_the_full_halo_tiled_equals_whole(name: str, blend: str, data) -> None:
    net = NETS[name]
    limit = 80 if net.ndim == 2 else 36
    shape = tuple(data.draw(st.integers(limit // 3, limit)) for _ in range(net.ndim))
    extra = data.draw(st.integers(0, 2))
    halo = tuple(h + extra * f for h, f in zip(exact_halo(net), pooling_factor(net), strict=True))
    field = volume_field(net, shape, [3] * net.ndim, halo, blend)
    image = np.random.default_rng(2).normal(size=(1, *shape)).astype(np.float32)
    with torch.inference_mode():
        whole = plain_network(net)(torch.from_numpy(image)[None])[0].numpy()
    tiled = embedded(net, image, field, Box((0,) * net.ndim, shape))
    np.testing.assert_allclose(tiled, whole, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_folding_changes_the_last_bits_only(name: str) -> None:
    net = NETS[name]
    plain = plain_network(net)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    x = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 1, *[24] * net.ndim))).float()
    with torch.inference_mode():
        expected, found = plain(x), made_ready(plain, torch.device("cpu"), "float32")(x)
        rough = made_ready(plain, torch.device("cpu"), "bfloat16")(x)
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert rough.dtype == torch.float32
    assert 0 < float((rough - expected).abs().max()) < 0.05 * float(expected.abs().max())
    layers = list(folded(plain).modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d) for m in layers)
    # The model itself stays as it was.
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())


@settings(max_examples=10, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", NETS)
def test_outputs_kept_from_region_to_region_do_not_show(name: str, data) -> None:
    net = NETS[name]
    image, field = drawn_field(net, data)
    shape = image.shape[1:]
    step, overlap = data.draw(st.integers(3, 20)), data.draw(st.integers(0, 6))
    spans = [
        (max(a - overlap, 0), min(a + step + overlap, shape[-1])) for a in range(0, shape[-1], step)
    ]
    regions = [Box((0,) * (net.ndim - 1) + (a,), (*shape[:-1], b)) for a, b in spans]
    kept, total = Kept(), 0
    for region, upcoming in zip(regions, [*regions[1:], None], strict=True):
        pixels = image[(slice(None), *field.needed(region).slices)]
        ready = network(net)
        one = embed(ready, pixels, field, region, net=net)
        two = embed(ready, pixels, field, region, net=net, kept=kept, upcoming=upcoming)
        assert two.embeddings.numpy().tobytes() == one.embeddings.numpy().tobytes()
        assert two.disagreement == one.disagreement
        assert two.used == one.used == one.patches
        total += two.patches
    everything = list(field.patches(Box((0,) * net.ndim, shape)))
    longest = max(p.support.shape[-1] for p in everything)
    if longest <= step:
        assert total == len(everything)


def test_a_short_halo_is_measured_as_disagreement() -> None:
    net, shape = NETS["2D"], (60, 70)
    image = np.random.default_rng(3).normal(size=(1, *shape)).astype(np.float32)
    found = {}
    for name, halo in {"short": (8, 8), "full": tuple(h + 4 for h in exact_halo(net))}.items():
        field = volume_field(net, shape, (3, 3), halo, "linear")
        region = Box((0, 0), shape)
        found[name] = embed(network(net), image, field, region, net=net).disagreement
    assert found["short"].worst > 1e-3
    assert 0 < found["short"].total / found["short"].count < found["short"].worst
    assert found["full"].count > 0
    assert found["full"].worst < 1e-4


def test_disagreement_is_the_distance_of_the_two_outputs() -> None:
    net = NETS["2D"]
    field = make_field((1, 40), (4, 24), (0, 8), factor=(4, 4), radius=(0, 99), blend="linear")
    assert field.axes[1].edges == (0, 4, 12, 20, 28, 40)
    image = np.random.default_rng(4).normal(size=(1, 1, 40)).astype(np.float32)
    region = Box((0, 8), (1, 16))
    pixels = image[..., field.needed(region).slices[1]]
    seams = embed(network(net), pixels, field, region, net=net).disagreement
    with torch.inference_mode():
        low, mid, high = (
            network(net)(torch.from_numpy(image[None, ..., slice(*field.axes[1].patch(k))]))[0]
            for k in (0, 1, 2)
        )
    # Around the faces at 4 and 12 both patches are trusted for 4 voxels on either side,
    # of which the region keeps 8:16.
    assert seams.count == 8
    second = (mid[..., 8:16] - high[..., 4:12]).square().sum(0).sqrt()
    assert seams.total == pytest.approx(float(second.sum()), rel=1e-5)
    assert seams.worst == pytest.approx(float(second.max()), rel=1e-5)
    assert low.shape[-1] == 12


def test_dark_constant_patches_are_background_without_a_forward() -> None:
    net, shape = NETS["2D"], (48, 48)
    field = make_field(
        shape, (16, 16), (4, 4), factor=(4, 4), radius=receptive_radius(net), blend="linear"
    )
    image = np.full((1, *shape), -1, np.float32)
    image[:, :8, :8] = 1
    prototype = np.array([7, 8, 9], np.float32)
    region = Box((0, 0), shape)
    found = embed(network(net), image, field, region, net=net, blank=(0.0, prototype))
    all_patches = len(list(field.patches(region)))
    assert 0 < found.patches < all_patches
    np.testing.assert_array_equal(found.embeddings[:, 40, 40].numpy(), prototype)
    bright = embed(network(net), -image, field, region, net=net, blank=(0.0, prototype))
    assert bright.patches == all_patches - 1 or bright.patches == all_patches


@pytest.mark.parametrize(
    ("patch", "halo", "words"),
    [((30, 32), (8, 8), "multiple"), ((32, 32), (8, 6), "multiple"), ((32, 32), (16, 16), "twice")],
)
def test_sizes_that_do_not_fit_are_refused(patch, halo, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_field((100, 100), patch, halo, factor=(4, 4), radius=(9, 9), blend="crop")
