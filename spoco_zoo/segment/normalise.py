"""What an image is normalised by: one mean and one standard deviation per volume and time point."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import DataError, RemoteError, StoreError
from spoco_zoo.intensities import LARGEST, Statistics, normalise, pieces_of, statistics_of
from spoco_zoo.ngff import RescaledImage, cut_off, find_lost, read_mended, with_neighbours
from spoco_zoo.segment.blocks import Box, make_box
from spoco_zoo.segment.outcome import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from spoco_zoo.ngff import Image
    from spoco_zoo.segment.outcome import Tell
    from spoco_zoo.segment.plan import Plan

__all__ = ["are_alike", "check_finite", "checksum", "measure", "measure_for", "read_normalised"]

ALIKE = 1e-4
"""Of the deviation."""

SMALL = 2**12
"""Voxels of the least piece that is tried where a larger one cannot be read."""
MOST_UNREAD = 256
"""Pieces that cannot be read from which no smaller ones are tried."""
MOST_PIECES = 64
"""Where there are more, this many are read, evenly spread: 2^27 voxels."""


def measure(
    image: Image,
    level: int,
    time: int,
    channels: Sequence[int],
    *,
    inverted: bool = False,
    by_parts: bool = False,
    on_unread: Callable[[StoreError], None] | None = None,
    tell: Tell = quietly,
) -> Statistics:
    """Mean, standard deviation and limits of one time point, read piece by piece.

    It is the level that is segmented, as in training: a coarser one has less
    noise and so a smaller deviation. Of more than 2^27 voxels an evenly spread
    sample of pieces is read, the same in every run; all are if the sample is of
    one value.

    Parameters
    ----------
    image : Image
    level, time : int
    channels : sequence of int
    inverted : bool
        Whether bright and dark are to change places.
    by_parts : bool
        Whether it is for a network that sees volumes: then mean and deviation are those of the
        parts that hold something, see `spoco_zoo.filled`.
    on_unread : callable, optional
        Told once why pieces cannot be read, which are then left out: they must not keep all else
        from being segmented.
    tell : callable, optional
        Told how many pieces have been read, and how many there are, where all have to be.

    Returns
    -------
    Statistics

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    StoreError
        If no piece can be read, or, without `on_unread`, one cannot.
    """
    where = time, tuple(channels), tell
    lenient = on_unread is not None
    if isinstance(image, RescaledImage):
        assert image.origin is not None
        # Absurd voxels are cut off, and an empty frame is made even, before they spread.
        level = image.origin_level
        lost = find_lost(image.origin, level, time, channels)
        found, unread = _measured(
            image.origin, level, *where, statistics_of, lenient=lenient, lost=lost
        )
        stored = found.checksum
        # Sums of such numbers are exact in float64: an even frame stays even.
        low, high = float(np.float32(found.low)), float(np.float32(found.high))
        spike = found.spike
        if found.std != 0:
            view = cut_off(image, low, high, spike, lost)
            how = partial(statistics_of, mixed=image.mixed, mended=True, by_parts=by_parts)
            found, more = _measured(view, 0, *where, how, lenient=lenient)
            unread += more
        found = found._replace(cut_low=low, cut_high=high, cut_spike=spike, checksum=stored)
    else:
        # A coarser level was resampled as well.
        mixed = (1,) * len(image.spatial) if level else ()
        lost = find_lost(image, level, time, channels)
        how = partial(statistics_of, mixed=mixed, by_parts=by_parts)
        found, unread = _measured(image, level, *where, how, lenient=lenient, lost=lost)
    if unread and on_unread is not None:
        on_unread(unread[-1])  # one of the least pieces
        found = found._replace(checksum=0)
    return found._replace(inverted=inverted, lost=lost)


def measure_for(
    plan: Plan,
    time: int,
    *,
    on_unread: Callable[[StoreError], None] | None = None,
    tell: Tell = quietly,
) -> Statistics:
    """What the network of a plan is shown a time point by; see `measure`."""
    return measure(
        plan.image,
        plan.level,
        time,
        plan.channels,
        inverted=bool(plan.config.invert),
        by_parts=plan.recipe.net.ndim > 2,
        on_unread=on_unread,
        tell=tell,
    )


def checksum(image: Image, level: int, time: int, channels: Sequence[int]) -> int:
    """That of the voxels by which `measure` does, of an image that may be another by now.

    They are read once. It is sensitive to order: an image that is flipped has another one.

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    StoreError
        If a piece cannot be read.
    """
    if isinstance(image, RescaledImage):
        assert image.origin is not None
        level, image = image.origin_level, image.origin
    lost = find_lost(image, level, time, channels)
    reader = _Reader(image, level, time, tuple(channels), lenient=False, lost=lost)
    for _ in reader.read(_boxes(image.spatial_shape(level), MOST_PIECES)):
        pass
    return reader.checksum


def _measured(
    image: Image,
    level: int,
    time: int,
    channels: tuple[int, ...],
    tell: Tell,
    find: Callable[[Callable[[], Iterator[np.ndarray]]], Statistics],
    *,
    lenient: bool,
    lost: tuple[tuple[int, int], ...] = (),
) -> tuple[Statistics, list[StoreError]]:
    """Statistics of a level as it is read, and why pieces of it could not be."""
    reader = _Reader(image, level, time, channels, lenient, lost)
    shape = image.spatial_shape(level)
    boxes = _boxes(shape, MOST_PIECES)
    found = find(lambda: reader.read(boxes))
    if found.std == 0 and sum(box.size for box in boxes) < prod(shape):
        # A sample of one value does not tell that the image is: what else it holds counts.
        every, other = _boxes(shape, None), list[Box]()
        for done, box in enumerate(every):
            tell(done, len(every))
            if any(v.min() != found.mean or v.max() != found.mean for v in reader.read([box])):
                other.append(box)
        some = boxes[:1] + other[:: max(-(-len(other) // MOST_PIECES), 1)]
        found = find(lambda: reader.read(some))
    return found._replace(checksum=reader.checksum), list(reader.unread.values())


@dataclass
class _Reader:
    """Pieces of an image, and what of them cannot be read."""

    image: Image
    level: int
    time: int
    channels: tuple[int, ...]
    lenient: bool
    """Whether such pieces are left out."""
    lost: tuple[tuple[int, int], ...] = ()
    """Planes in whose place others are read."""
    unread: dict[Box, StoreError] = field(default_factory=dict)
    smaller: dict[Box, tuple[Box, ...]] = field(default_factory=dict)
    """What was tried in place of them."""
    good: bool = False
    checksum: int = 0
    """Of what was read when the pieces were gone through for the first time."""
    begun: bool = False

    def read(self, boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        """Values (C, [Z,] Y, X) of the boxes that can be read, or of parts of them."""
        waiting = list(boxes)[::-1]
        first, self.begun = not self.begun, True
        while waiting:
            box = waiting.pop()
            if box in self.unread:  # found out when the pieces were gone through before
                waiting += self.smaller[box]
                continue
            try:
                where = self.level, self.time, self.channels, box.slices
                values = read_mended(self.image, *where, self.lost)
            except RemoteError:
                raise
            except StoreError as error:
                if not self.lenient:
                    raise
                self.unread[box] = error
                # Most of it may be good, as where one chunk is not; not where nearly nothing is.
                self.smaller[box] = _halves(box) if len(self.unread) < MOST_UNREAD else ()
                waiting += self.smaller[box]
                continue
            check_finite(values, box, self.image.uri)
            self.good = True
            if first:
                self.checksum = zlib.crc32(np.ascontiguousarray(values).data, self.checksum)
            yield values
        if self.unread and not self.good:
            raise next(iter(self.unread.values()))


def read_normalised(
    image: Image,
    level: int,
    time: int,
    channels: Sequence[int],
    box: Box,
    statistics: Statistics | None = None,
) -> NDArray[np.float32]:
    """What a network is shown of a region, float32 (C, [Z,] Y, X).

    Parameters
    ----------
    image : Image
    level, time : int
    channels : sequence of int
    box : Box
    statistics : Statistics, optional
        From `measure`; by default mean and deviation of the region itself, good enough to be timed.

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    StoreError
        If the region cannot be read.
    """
    lost: tuple[tuple[int, int], ...] = ()
    if statistics is not None:
        if not isinstance(image, RescaledImage):  # a view reads those of its image
            lost = statistics.lost
        cut = statistics.cut_low, statistics.cut_high, statistics.cut_spike
        image = cut_off(image, *cut, statistics.lost)
        if not statistics.as_it_is:
            wide, inner = with_neighbours(box.slices, image.spatial_shape(level))
            around = make_box([(s.start, s.stop) for s in wide])
            values = read_mended(image, level, time, channels, wide, lost)
            check_finite(values, around, image.uri)
            return np.ascontiguousarray(normalise(values, statistics)[(slice(None), *inner)])
    values = read_mended(image, level, time, channels, box.slices, lost)
    check_finite(values, box, image.uri)
    if statistics is None:
        statistics = Statistics(float(values.mean()), float(values.std()))
    return normalise(values, statistics)


def check_finite(values: np.ndarray, box: Box, name: str) -> None:
    """Refuse NaN, infinity, and numbers whose differences 32 bits do not hold.

    Parameters
    ----------
    values : ndarray, shape (C, [Z,] Y, X)
    box : Box
        Where the values lie in the image `name`.

    Raises
    ------
    DataError
        Naming the first such voxel.
    """
    if values.dtype.kind != "f":
        return
    good = np.isfinite(values)
    if values.dtype.itemsize > 2:
        good &= np.abs(values) <= LARGEST
    if good.all():
        return
    channel, *voxel = np.argwhere(~good)[0]
    place = ",".join(str(int(v) + a) for v, a in zip(voxel, box.start, strict=True))
    raise DataError(
        f"every voxel must be a finite number, at most {LARGEST:.0e}",
        f"{values[(channel, *voxel)]} at voxel {place}, channel {channel}, of {name}",
        "Replace such values in the image, e.g. by 0.",
    )


def are_alike(a: Statistics, b: Statistics) -> bool:
    """Whether normalising by one or the other makes no difference that a network could see."""
    return bool(np.allclose(a[:4], b[:4], rtol=1e-6, atol=ALIKE * b.std))


def _boxes(shape: tuple[int, ...], most: int | None) -> list[Box]:
    return [make_box([(p.start, p.stop) for p in one]) for one in pieces_of(shape, most)]


def _halves(box: Box) -> tuple[Box, ...]:
    """A box cut in two across its longest axis; nothing of a small one."""
    if box.size <= SMALL:
        return ()
    axis = max(range(len(box.shape)), key=box.shape.__getitem__)
    middle = box.start[axis] + box.shape[axis] // 2
    ends = (*box.stop[:axis], middle, *box.stop[axis + 1 :])
    starts = (*box.start[:axis], middle, *box.start[axis + 1 :])
    return Box(starts, box.stop), Box(box.start, ends)
