"""What an image is normalised by: frames and absurd voxels do not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.intensities import (
    Statistics,
    divisor,
    normalise,
    restored,
    statistics_of,
    without_frame,
)
from spoco_zoo.outliers import cut_off_values, mend_spikes


def image(shape: tuple[int, ...] = (1, 60, 50), seed: int = 0) -> np.ndarray:
    """Noise as of a camera, with a few bright objects, uint16."""
    rng = np.random.default_rng(seed)
    values = rng.normal(300, 20, shape)
    values[..., 10:20, 30:40] += 2000
    return values.clip(0).astype(np.uint16)


def whole(values: np.ndarray) -> Statistics:
    """Of an image in one piece."""
    return statistics_of(lambda: [values])


def plain(values: np.ndarray) -> Statistics:
    """The plain z-score's."""
    return Statistics(float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))


def test_an_ordinary_image_gets_plain_mean_and_deviation() -> None:
    values = image()
    found = whole(values)
    assert found[:2] == pytest.approx(plain(values)[:2])
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert found.lean == pytest.approx((np.median(values) - values.mean()) / values.std())
    assert found.lean < -0.1


def test_inverted_statistics_give_the_negative_and_lean_the_other_way() -> None:
    values = image()
    found = whole(values)
    turned = normalise(values, found._replace(inverted=True))
    assert np.array_equal(turned, -normalise(values, found))
    negative = 70000.0 - values.astype(np.float64)
    assert np.allclose(turned, normalise(negative, whole(negative)), atol=1e-3)
    assert whole(negative).lean == pytest.approx(-found.lean)


@settings(deadline=None, max_examples=50)
@given(
    pads=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=3),
    fill=st.sampled_from([0, 300, 65535]),
    seed=st.integers(0, 3),
)
def test_a_frame_of_any_width_and_value_changes_nothing(
    pads: list[tuple[int, int]], fill: int, seed: int
) -> None:
    values = image((1, *(6,) * (len(pads) - 2), 60, 50), seed)
    framed = np.pad(values, [(0, 0), *pads], constant_values=fill)
    assert np.array_equal(without_frame(framed), values)
    assert whole(framed)[:2] == whole(values)[:2]


def test_a_frame_is_as_dark_as_the_image_ever_is() -> None:
    values = image()
    scaled = normalise(np.pad(values, ((0, 0), (5, 5), (5, 5))), whole(np.pad(values, 5)[5:6]))
    inside = scaled[:, 5:-5, 5:-5]
    assert np.allclose(scaled[:, :5], inside.min(), atol=0.1)
    assert np.allclose(inside, normalise(values, whole(values)), atol=0.2)


def test_every_channel_has_its_own_frame() -> None:
    values = image((2, 40, 50))
    framed = np.pad(values, [(0, 0), (5, 5), (7, 0)])
    framed[1, :5] = framed[1, -5:] = framed[1, :, :7] = 9
    assert np.array_equal(without_frame(framed), values)


def test_one_voxel_of_absurd_value_changes_next_to_nothing() -> None:
    values = image((1, 256, 256))
    spoilt = values.copy()
    spoilt[0, 3, 3] = 65535
    was, found = whole(values), whole(spoilt)
    assert found.std == pytest.approx(was.std, rel=0.1)
    assert plain(spoilt).std > 3 * was.std
    assert normalise(spoilt, found).max() < 5 * normalise(values, was).max()
    other = normalise(spoilt, found) - normalise(values, was)
    other[0, 3, 3] = 0
    assert np.abs(other).max() < 0.1 * normalise(values, was).max()


@pytest.mark.parametrize("scale", [1e-3, 1e-7, 1e-15])
def test_an_image_of_tiny_values_became_blank(scale: float) -> None:
    """Intensities in units of SI; from a deviation of 0.001 on nothing changes."""
    image = np.random.default_rng(0).normal(5, 1, (1, 40, 50))
    found = statistics_of(lambda: [image * scale])
    scaled = normalise(image * scale, found)
    assert scaled.std() == pytest.approx(1, rel=0.002)
    usual = statistics_of(lambda: [image])
    assert scaled == pytest.approx(normalise(image, usual), rel=0.002, abs=0.002)
    assert found.lean == pytest.approx(usual.lean, rel=0.01)
    assert [divisor(std) for std in (0.0, 0.002, 0.2, 40.0)] == [
        1e-6,
        0.002 + 1e-6,
        0.2 + 1e-6,
        40.0 + 1e-6,
    ]


def spoilt(how: str) -> np.ndarray:
    """Blurred nuclei of up to 200 on a dark ground, uint16, and what few voxels can add."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:200, :200]
    values = rng.normal(10, 2, y.shape)
    for cy, cx in rng.uniform(10, 190, (3 if how == "few nuclei" else 40, 2)):
        values += 180 / (1 + np.exp(np.hypot(y - cy, x - cx) - 6))
    values = values.clip(0, 255).astype(np.uint16)
    hot = rng.random(y.shape) < 0.002
    if how.startswith(("hot pairs", "hot squares")):
        hot |= np.roll(hot, 1, axis=1)
    if how == "hot squares":
        hot |= np.roll(hot, 1, axis=0)
    if how in ("hot", "hot pairs", "hot squares"):
        values[hot] = 65535
    elif how == "hot pairs in different ways":
        values[hot] = rng.integers(5000, 65535, hot.sum())
    elif how == "bar":
        values[180:186, 120:180] = 65535
    elif how == "dark bar":
        values += 20000
        values[180:186, 120:180] = 0
    return values[None]


@pytest.mark.parametrize(
    ("how", "sign"),
    [("hot squares", 1), ("bar", 1), ("dark bar", -1), ("", 0), ("few nuclei", 0), ("hot", 0),
     ("hot pairs", 0), ("hot pairs in different ways", 0)],
)  # fmt: skip
def test_hot_pixels_or_a_scale_bar_took_all_contrast_without_a_word(how: str, sign: int) -> None:
    found = whole(spoilt(how)).apart
    assert np.sign(found) == sign
    assert abs(found) < 0.01


def test_hot_pixels_here_and_there_took_all_contrast() -> None:
    """They were cut off only where they were fewer than one in 10,000."""
    values, hot = spoilt(""), spoilt("hot")
    assert 50 < np.count_nonzero(hot != values) < 150
    was, found = whole(values), whole(hot)
    assert found[:2] == pytest.approx(was[:2], rel=0.05)
    other = normalise(hot, found) - normalise(values, was)
    assert np.abs(other[hot == values]).max() < 0.1
    # Each becomes as bright as a neighbour, and two that touch are cut off.
    assert np.median(np.abs(other[hot != values])) < 0.2


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("kind", ["hot", "absurd", "salt and pepper"])
def test_many_single_voxels_took_all_contrast(kind: str, share: float) -> None:
    """Of 1 % hot pixels and more AP@0.5 was 0.44, where they are absurd 0.00."""
    values, rng = spoilt(""), np.random.default_rng(2)
    harmed = values.copy()
    where = rng.random(values.shape) < share
    if kind == "absurd":
        harmed[where] = rng.integers(9000, 65535, np.count_nonzero(where))
    else:
        harmed[where] = rng.choice([255] if kind == "hot" else [0, 255], np.count_nonzero(where))
    was, found = whole(values), whole(harmed)
    assert np.isfinite(found.spike)
    assert found[:2] == pytest.approx(was[:2], rel=0.06)
    assert (found.apart, found.lean) == (0, pytest.approx(was.lean, abs=0.05))
    other = np.abs(normalise(harmed, found) - normalise(values, was))
    assert np.mean(other > 0.5) < 0.01


@pytest.mark.parametrize("noise", [20, 50, 100])
def test_spikes_far_outside_of_noise_were_taken_for_noise(noise: float) -> None:
    rng = np.random.default_rng(5)
    values = 1000 + spoilt("") + rng.normal(0, noise, (1, 200, 200))
    harmed = np.where(rng.random(values.shape) < 0.01, 65535, values).astype(np.uint16)
    was, found = whole(values.astype(np.uint16)), whole(harmed)
    assert was.spike == np.inf
    assert found[:2] == pytest.approx(was[:2], rel=0.06)


@pytest.mark.parametrize("how", ["", "few nuclei", "bar", "noise", "photons", "lines", "dots"])
def test_noise_thin_lines_and_small_dots_are_no_spikes(how: str) -> None:
    values, rng = spoilt(how).astype(np.float64), np.random.default_rng(3)
    if how == "noise":
        values += rng.normal(100, 60, values.shape)
    elif how == "photons":
        values = rng.poisson(values / 30).astype(np.float64)
    elif how == "lines":
        values[0, ::10] = 400
    elif how == "dots":
        for y, x in rng.integers(0, 198, (200, 2)):
            values[0, y : y + 2, x : x + 2] = 400
    assert whole(values).spike == np.inf


@pytest.mark.parametrize("mean", [0.05, 0.1, 0.3, 0.5, 1, 3])
@pytest.mark.parametrize(
    ("gain", "dtype"), [(1, np.uint16), (1, np.float32), (25, np.uint8), (0.1, np.float32)]
)
def test_single_photons_were_spikes_and_an_image_of_them_became_empty(
    mean: float, gain: float, dtype: type
) -> None:
    """Whatever a photon adds: of nuclei of 1 and 2, times 25, AP@0.5 was 0.02 and 0.42, not 0.15
    and 0.53."""
    values = spoilt("").astype(np.float64)
    photons = np.random.default_rng(4).poisson(mean * values / values.max())
    counted = (gain * photons).clip(0, 255).astype(dtype)
    assert whole(counted).spike == np.inf
    assert whole(counted).std == pytest.approx(float(counted.std()), rel=0.1)


def test_spikes_are_mended_whatever_is_read_together() -> None:
    values = spoilt("hot pairs").astype(np.float64)
    whole_of_it, part = values.copy(), values[:, 20:60, 30:90].copy()
    mend_spikes(whole_of_it, 100.0)
    mend_spikes(part, 100.0)
    assert values.max() == 65535
    assert whole_of_it.max() <= 255
    assert np.array_equal(part[:, 1:-1, 1:-1], whole_of_it[:, 21:59, 31:89])
    stack = np.stack([values, values[:, ::-1]], axis=1)
    mend_spikes(stack, 100.0)
    assert np.array_equal(stack[:, 0], whole_of_it)
    assert np.array_equal(stack[:, 1], whole_of_it[:, ::-1])


@pytest.mark.parametrize("shape", [(1, 9, 9), (1, 2, 2), (2, 3, 4, 5), (1, 1, 9), (1, 1, 1)])
def test_voxels_have_neighbours_in_their_plane_alone(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    values[0, ..., 0, -1] = 1e6  # in every plane of the first channel
    cut_off_values(values, -np.inf, 1e5)
    assert values.max() == (1e5 if 1 in shape[-2:] else np.prod(shape) - 1)


def test_few_objects_in_an_empty_image_are_not_cut_off() -> None:
    values = np.zeros((1, 400, 400), np.uint16)
    values[0, 100:103, 200:203] = 5000  # fewer voxels than may be absurd
    values[0, 399, 399] = values[0, 0, 0] = 1  # no frame
    assert whole(values).high == np.inf
    assert normalise(np.pad(values, 9), whole(np.pad(values, 9)[9:10])).max() > 100


def test_pieces_are_read_again_only_if_there_is_something_to_cut_off() -> None:
    values, reads = image((1, 256, 256)), []

    def pieces():
        reads.append(1)
        return [values[:, :100], values[:, 100:]]

    statistics_of(pieces)
    assert len(reads) == 1
    values[0, 3, 3] = 65535
    assert np.isfinite(statistics_of(pieces).high)
    assert len(reads) == 3


def test_pieces_of_one_value_each_still_have_a_deviation() -> None:
    pieces = [np.full((1, 8, 8), value, np.uint8) for value in (0, 10)]
    assert statistics_of(lambda: pieces)[:2] == (5.0, 5.0)
    assert whole(np.full((1, 8, 8), 3, np.uint8))[:2] == (3.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 1, 40), (1, 40, 1), (1, 1, 1), (2, 5, 1, 1)])
def test_an_image_of_one_line_has_no_frame(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    assert whole(values)[:2] == pytest.approx(plain(values)[:2], abs=1e-12)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float64])
def test_counts_far_above_zero_are_not_taken_for_one_value(dtype: type) -> None:
    counts = np.random.default_rng(0).integers(0, 100, (1, 64, 64))
    values = (2**30 + counts).astype(dtype)
    plain, found = whole(counts.astype(np.uint8)), whole(values)
    assert found.std == pytest.approx(plain.std)
    assert found.lean == pytest.approx(plain.lean)
    scaled = normalise(values, found)
    assert scaled.dtype == np.float32
    assert np.allclose(scaled, normalise(counts.astype(np.uint8), plain), atol=1e-5)


def test_a_rectangle_on_even_ground_is_not_all_that_counts() -> None:
    values = np.full((1, 40, 40), 100.0, np.float32)
    values[:, 10:20, 15:25] = 1000
    found = whole(values)
    assert found[:2] == pytest.approx(plain(values)[:2])
    assert np.ptp(normalise(values, found)) > 1


@pytest.mark.parametrize("shape", [(1, 40, 40), (1, 2, 2), (2, 12, 8, 8)])
@pytest.mark.parametrize("axis", [1, -1])
def test_an_image_of_two_values_that_meet_in_a_line_was_trimmed_to_nothing(
    shape: tuple[int, ...], axis: int
) -> None:
    values = np.zeros(shape, np.uint8)
    np.moveaxis(values, axis, 0)[shape[axis] // 3 or 1 :] = 200
    found = whole(values)
    assert without_frame(values).size == 0
    assert found[:2] == pytest.approx(plain(values)[:2])
    assert np.ptp(normalise(values, found)) > 1


@pytest.mark.parametrize("inverted", [False, True])
def test_what_is_normalised_comes_back(inverted: bool) -> None:
    image = np.random.default_rng(0).normal(300, 40, (1, 30, 30)).astype(np.float32)
    found = statistics_of(lambda: [image])._replace(inverted=inverted)
    np.testing.assert_allclose(restored(normalise(image, found), found), image, rtol=1e-5)


def test_how_far_most_voxels_reach_tells_of_a_speck_with_a_halo() -> None:
    values = np.random.default_rng(0).normal(100, 10, (1, 20, 60, 60))
    plain = statistics_of(lambda: [values])
    assert plain.rest == pytest.approx(2 * 2.33, abs=0.1)  # quantiles of the normal distribution
    z, y, x = np.ogrid[-10:10, -30:30, -30:30]
    lit = values + 20000 * np.exp(-(z**2 + y**2 + x**2) / 8)
    assert statistics_of(lambda: [lit]).rest < 1
    assert statistics_of(lambda: [np.full((1, 5, 5), 3)]).rest == 0
