"""Intensity normalisation, in training as in segmentation: what counts, and what is cut off.

A z-score hangs on two numbers of a whole image, and two things that are none of the
object's business spoil them: an empty frame, as stitching and registration leave it, and
single voxels of absurd value, from dead camera pixels or cosmic rays. A frame is left out,
and taken for as dark (or bright) as what it surrounds ever is, so that no edge lies between
them; values are cut off far outside of what nearly all voxels hold, and single ones become
as bright (or dark) as a neighbour. Where one voxel in a thousand or more is far from all its
neighbours, such voxels get their median, absurd or not. Images without any of this get the
plain mean and standard deviation; volumes those of the parts that hold something, see
`spoco_zoo.filled`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spoco_zoo.filled import moments_of, that_hold_something, windows_of
from spoco_zoo.outliers import Unlike, calmed, cut_off_values, mend_spikes, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "LARGEST",
    "Intensities",
    "Statistics",
    "divisor",
    "exact_kind",
    "normalise",
    "pieces_of",
    "restored",
    "statistics_of",
    "without_frame",
]

RARE = 1e-4
"""Share of voxels at either end that need not tell what an image holds."""
FAR = 3.0
"""Cut off is what lies farther out than the rare voxels do, this many times."""
TINY = 1e-6
"""Added to a deviation before it divides; less, where even that would change the deviation."""
FEW = (1e-3, 1e-2)
"""Shares of voxels at either end that may lie apart from all others."""
FLAT = 0.3
"""What all others lie between, in deviations, if such few make most of the deviation."""
BETWEEN = 2.5
"""Voxels beyond a tenth of the way to them, against those beyond a half, at most."""
SAMPLE = 2**16
"""Values of a piece that tell where nearly all of them lie."""
FEWER = 4
"""Of so many of them one tells of spikes."""
PIECE = 2**21
"""Voxels looked at together."""
LARGEST = 1e37
"""Of an intensity: normalised as float32, neither it nor a difference of two overflows."""


class Statistics(NamedTuple):
    """Of all channels and voxels that count, in units of the image."""

    mean: float
    """Of the parts that hold something, where these are told apart, as is the next."""
    std: float
    low: float = -np.inf
    """Values below are taken as this one."""
    high: float = np.inf
    """Values above are taken as this one."""
    lean: float = 0.0
    """``(median - mean) / std``: above 0 where most voxels are brighter than the mean."""
    inverted: bool = False
    """Whether bright and dark change places for the network."""
    apart: float = 0.0
    """Share of voxels far from all others that make most of the deviation; below 0: dark ones."""
    cut_low: float = -np.inf
    """Values below are taken as this one before an image is resampled."""
    cut_high: float = np.inf
    """Values above are taken as this one before an image is resampled."""
    spike: float = np.inf
    """Voxels that are this far from nearly all neighbours get their median."""
    cut_spike: float = np.inf
    """The same before an image is resampled."""
    rise: float = np.inf
    """How far the brightest voxels are above the median, over how far the darkest are below it."""
    checksum: int = 0
    """CRC-32 of the voxels that were read, in order; 0 if some could not be."""
    rest: float = np.inf
    """How far all but the hundredth at either end reaches, in deviations."""
    lost: tuple[tuple[int, int], ...] = ()
    """Planes of the image that hold nothing, and which are read in their place."""
    filled: float = 1.0
    """Share of the voxels that `mean` and `std` are of."""

    @property
    def as_it_is(self) -> bool:
        """Whether no value is changed before it is scaled."""
        return not np.isfinite((self.low, self.high, self.spike)).any()


@dataclass
class Intensities:
    """What has been seen of an image so far; pieces may come in any order.

    Moments of pieces are merged after Chan et al. (1983).
    """

    low: float = -np.inf
    high: float = np.inf
    spike: float = np.inf
    by_parts: bool = False
    """Whether parts that hold something are told from those that do not."""
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = np.inf
    most: float = -np.inf
    samples: list[NDArray[np.floating[Any]]] = field(default_factory=list)
    calm: list[NDArray[np.floating[Any]]] = field(default_factory=list)
    """The same voxels, see `calmed`."""
    unlike: list[Unlike] = field(default_factory=list)
    """Some of them, where spikes are looked for."""
    windows: list[NDArray[np.float64]] = field(default_factory=list)
    """See `windows_of`, where parts are told apart."""

    def add(self, values: NDArray[np.generic]) -> None:
        """Look at a piece (C, [Z,] Y, X)."""
        if not values.size:
            return
        # A copy, because clipping and moments need one; float64 holds every integer that occurs.
        voxels = values.astype(np.float64, order="C")
        mend_spikes(voxels, self.spike)
        numbers, kind = voxels.ravel(), exact_kind(values.dtype)
        self.least = min(self.least, float(numbers.min()))
        self.most = max(self.most, float(numbers.max()))
        some = np.arange(0, numbers.size, -(-numbers.size // SAMPLE))
        self.samples.append(numbers[some].astype(kind))
        self.calm.append(calmed(voxels, some).astype(kind))
        if not math.isfinite(self.spike):
            self.unlike.append(Unlike.of(voxels, some[::FEWER]))
        cut_off_values(voxels, self.low, self.high)
        if self.by_parts:
            self.windows.append(windows_of(voxels))
        mean = float(numbers.mean())
        numbers -= mean
        total, step = self.count + numbers.size, mean - self.mean
        self.squares += float(numbers @ numbers) + step * step * self.count * numbers.size / total
        self.mean += step * numbers.size / total
        self.count = total

    def usual(self) -> tuple[float, float, float]:
        """What all but the rarest values lie between, single voxels left out, and the median."""
        calm, all_of_it = (
            np.concatenate(some).astype(np.float64) for some in (self.calm, self.samples)
        )
        low, high = np.quantile(calm, (RARE, 1 - RARE))
        return float(low), float(np.median(all_of_it)), float(high)

    def found_spike(self) -> float:
        """See `Unlike.spike`."""
        step = step_of(np.concatenate(self.samples)[::FEWER])
        return Unlike(*map(np.concatenate, zip(*self.unlike, strict=True))).spike(step)

    def limits(self, usual: tuple[float, float, float]) -> tuple[float, float]:
        """Where values are cut off, given what is `usual`; infinite where nothing lies that far."""
        low, middle, high = usual
        # Where nearly all voxels are alike, the few others are what the image is about.
        low = low - FAR * (middle - low) if low < middle else -np.inf
        high = high + FAR * (high - middle) if high > middle else np.inf
        return low if self.least < low else -np.inf, high if self.most > high else np.inf

    def apart(self, low: float, high: float, std: float) -> float:
        """Share of voxels that make most of the deviation, with next to nothing between.

        Hot pixels or a scale bar, not objects: those have voxels of every brightness between
        theirs and the ground's. Negative if they are dark.
        """
        values = np.clip(np.concatenate(self.samples).astype(np.float64), low, high)
        for share in FEW:
            below, above = np.quantile(values, (share, 1 - share))
            if not 0 < above - below < FLAT * std:
                continue
            up = float(values.max() - above) >= float(below - values.min())
            out = values - above if up else below - values
            far = out > out.max() / 2
            if np.count_nonzero(out > out.max() / 10) <= BETWEEN * np.count_nonzero(far):
                return float(far.mean()) * (1 if up else -1)
        return 0.0

    def rest(self, low: float, high: float, std: float) -> float:
        """See `Statistics`, of values that are cut off."""
        values = np.clip(np.concatenate(self.samples).astype(np.float64), low, high)
        below, above = np.quantile(values, (FEW[-1], 1 - FEW[-1]))
        return float((above - below) / divisor(std))

    def moments(self) -> tuple[float, float]:
        """Mean and deviation of all that was added, cut off as these intensities were told to."""
        if self.least == self.most:  # whose mean may be rounded
            return self.least, 0.0
        return self.mean, (self.squares / self.count) ** 0.5

    def of_content(self) -> tuple[float, float, float]:
        """Mean and deviation of the parts that hold something, and their share of the voxels."""
        windows = np.concatenate(self.windows) if self.windows else np.zeros((0, 5))
        held = that_hold_something(windows)
        if held.all():
            return (*self.moments(), 1.0)
        return (*moments_of(windows[held]), float(windows[held, 0].sum() / windows[:, 0].sum()))


def pieces_of(shape: Sequence[int], most: int | None = None) -> Iterator[tuple[slice, ...]]:
    """Regions of about `PIECE` voxels that cover a shape; of more than `most` a lattice of them."""
    step, room = list(shape), float(PIECE)
    for done, axis in enumerate(sorted(range(len(shape)), key=shape.__getitem__)):
        # What a short axis cannot take is left to the longer ones.
        step[axis] = min(shape[axis], max(1, round(room ** (1 / (len(shape) - done)))))
        room /= step[axis]
    counts = [-(-n // s) for n, s in zip(shape, step, strict=True)]
    if most is not None and math.prod(shape) > PIECE * most:
        while math.prod(counts) > most:
            widest = max(range(len(counts)), key=counts.__getitem__)
            counts[widest] -= 1
    starts = [
        np.unique(np.linspace(0, n - s, c).round().astype(int)) if c * s < n else np.arange(c) * s
        for n, s, c in zip(shape, step, counts, strict=True)
    ]
    for corner in product(*starts):
        ends = zip(map(int, corner), step, shape, strict=True)
        yield tuple(slice(a, min(a + s, n)) for a, s, n in ends)


def statistics_of(
    pieces: Callable[[], Iterable[NDArray[np.generic]]],
    *,
    mixed: Sequence[int] = (),
    mended: bool = False,
    by_parts: bool = False,
) -> Statistics:
    """Mean, deviation and limits of an image that is read piece by piece.

    Parameters
    ----------
    pieces : callable
        Gives the pieces, (C, [Z,] Y, X) each. It is called again if there is something to
        cut off, and if the image is all frame: that is, of one value, or of one per piece, or if
        a frame left nothing but one value.
    mixed : sequence of int
        How many lines beside a frame may be means of it and of what it surrounds, per spatial axis,
        as in images that were resampled: they are left out with it.
    mended : bool
        Spikes are not looked for. In what was resampled single photons look like some.
    by_parts : bool
        Mean and deviation are those of the parts of a volume that hold something.

    Returns
    -------
    Statistics
    """
    seen, least, most = Intensities(by_parts=by_parts), np.inf, -np.inf
    for piece in pieces():
        least, most = min(least, piece.min()), max(most, piece.max())
        seen.add(without_frame(piece, mixed=mixed))
    # What is left of a rectangle on even ground is of one value, too: then the ground is no frame.
    all_frame = seen.count == 0 or (seen.least == seen.most and least < most)

    def gone_through(
        low: float = -math.inf, high: float = math.inf, spike: float = math.inf
    ) -> Intensities:
        found = Intensities(low, high, spike, by_parts)
        for piece in pieces():
            found.add(piece if all_frame else without_frame(piece, mixed=mixed))
        return found

    if all_frame:
        seen = gone_through()
    bounds, spike = (seen.least, seen.most), math.inf if mended else seen.found_spike()
    if math.isfinite(spike):
        seen = gone_through(spike=spike)
    usual = seen.usual()
    low, high = cut = seen.limits(usual)
    counted = seen
    if math.isfinite(low) or math.isfinite(high):
        counted = gone_through(low, high, spike)
    mean, std = counted.moments()
    if least < bounds[0]:
        low = usual[0]
    if most > bounds[1]:
        high = usual[2] if usual[2] > usual[1] else seen.most
    apart, lean = seen.apart(*cut, std), (usual[1] - mean) / divisor(std)
    fall = usual[1] - usual[0]
    rise = (usual[2] - usual[1]) / fall if fall > 0 else math.inf
    rest = seen.rest(*cut, std)
    mean, std, filled = counted.of_content()
    return Statistics(
        mean, std, low, high, lean, apart=apart, spike=spike, rise=rise, rest=rest, filled=filled
    )


def without_frame(values: NDArray[np.generic], *, mixed: Sequence[int] = ()) -> NDArray[np.generic]:
    """An image, or a piece of one, without lines of one value along its faces.

    Parameters
    ----------
    values : ndarray
        (C, [Z,] Y, X).
    mixed : sequence of int
        Without so many lines more behind each frame, per spatial axis, if that leaves any.

    Returns
    -------
    ndarray
        A view; empty if all of it is of one value per channel, or of two that meet in a line.
    """
    for axis in range(1, values.ndim):
        others = tuple(a for a in range(1, values.ndim) if a != axis)
        if math.prod(values.shape[a] for a in others) == 1:
            continue  # a single voxel is always of one value
        least, most = values.min(axis=others), values.max(axis=others)
        flat = (least == most).all(axis=0)
        if flat.all() and bool((least == least[:, :1]).all()):
            return values[:, :0]
        first = flat & (least == least[:, :1]).all(axis=0)
        last = flat & (least == least[:, -1:]).all(axis=0)
        start = int(np.argmin(first)) if first[0] else 0
        stop = len(last) - (int(np.argmin(last[::-1])) if last[-1] else 0)
        if start == stop:
            return values[:, :0]
        more = mixed[axis - 1] if mixed else 0
        if stop - start > 2 * more:
            start, stop = start + more * (start > 0), stop - more * (stop < len(last))
        values = np.moveaxis(np.moveaxis(values, axis, 0)[start:stop], 0, axis)
    return values


def exact_kind(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What intensities are reckoned in: float32 if it holds every value of a dtype, else float64.

    Counts of 32 bits may differ by less than float32 tells apart, up to 256.

    Examples
    --------
    >>> exact_kind(np.dtype("uint16")), exact_kind(np.dtype("uint32"))
    (dtype('float32'), dtype('float64'))
    """
    return np.promote_types(dtype, np.float32)


def divisor(std: float) -> float:
    """``std + 1e-6``, as bundles document; below 0.001, as of intensities in metres, 1.001 std.

    With the constant alone an image of values around 1e-7 would be blank.
    """
    return std + (min(TINY, 1e-3 * std) or TINY)


def _unit(statistics: Statistics) -> float:
    """What one normalised unit is in the image: negative where bright and dark change places."""
    return divisor(statistics.std) * (-1 if statistics.inverted else 1)


def normalise(values: NDArray[np.generic], statistics: Statistics) -> NDArray[np.float32]:
    """``(x - mean) / (std + 1e-6)`` of the values within the limits, float32, see `divisor`.

    Its negative where the statistics say that bright and dark change places.
    """
    scaled = values.astype(exact_kind(values.dtype), order="C")
    mend_spikes(scaled, statistics.spike)
    cut_off_values(scaled, statistics.low, statistics.high)
    scaled -= scaled.dtype.type(statistics.mean)
    scaled /= scaled.dtype.type(_unit(statistics))
    return scaled.astype(np.float32, copy=False)


def restored(scaled: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """What was normalised, in units of the image, float32; what was cut off stays so."""
    return scaled * np.float32(_unit(statistics)) + np.float32(statistics.mean)
