"""A stack seen from above: at each pixel the highest value of all planes, region by region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.image import Image, Level

__all__ = ["ProjectedImage", "project"]

READ_VOXELS = 2**26
"""Read at a time at most, though never less than a plane."""


@dataclass(frozen=True)
class ProjectedImage(Image):
    """A stack without its z axis; memory holds some planes of a region, and the projection."""

    origin: Image | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Image.notes`: what the stack was taken for."""
        return () if self.origin is None else self.origin.notes

    def read_region(self, level: int, region: Sequence[slice]) -> NDArray[Any]:
        """See `Image.read_region`."""
        assert self.origin is not None
        at = self.origin.axes.index("z")
        found: NDArray[Any] | None = None
        total = self.origin.levels[level].shape[at]
        # A chunk is decoded whole for each of its planes that is asked for alone.
        most = READ_VOXELS // max(1, prod(part.stop - part.start for part in region))
        step = max(1, min(self.origin.chunks(level)[at], most))
        for start in range(0, total, step):
            planes = slice(start, min(start + step, total))
            values = self.origin.read_region(level, [*region[:at], planes, *region[at:]]).max(at)
            found = values if found is None else np.maximum(found, values)
        assert found is not None
        return found

    def chunks(self, level: int = 0) -> tuple[int, ...]:
        """See `Image.chunks`."""
        assert self.origin is not None
        at = self.origin.axes.index("z")
        return tuple(n for i, n in enumerate(self.origin.chunks(level)) if i != at)


def project(image: Image) -> ProjectedImage:
    """View of an image from above, in all times, channels and levels.

    Raises
    ------
    StoreError
        If it is no stack, or holds labels.
    """
    if "z" not in image.axes or image.is_label:
        raise StoreError(
            "an image to be projected must be a stack, and hold no labels",
            f"{'labels' if image.is_label else 'axes ' + ', '.join(image.axes)} in {image.uri}",
            "Leave --project out.",
        )
    at = image.axes.index("z")

    def kept(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(value for i, value in enumerate(values) if i != at)

    levels = tuple(
        Level(one.path, kept(one.shape), kept(one.scale), kept(one.translation))
        for one in image.levels
    )
    same = {one.name: getattr(image, one.name) for one in fields(Image) if one.init}
    changed = dict(axes=kept(image.axes), units=kept(image.units), levels=levels, incomplete="")
    return ProjectedImage(**{**same, **changed}, origin=image)
