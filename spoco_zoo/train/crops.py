"""Random crops: which image, where, and the geometric part of the augmentation.

One geometric transform per sample is shared by image, labels and both views,
so that the views stay aligned voxel by voxel (the losses need that). The
transform is one sampling grid, built in source coordinates::

    crop voxel --(flip, rotate, scale, elastic)--> offset from the centre
               --(+ centre)--> position in the image --> grid_sample

Considered instead: albumentations and kornia (no volumes with labels through
the same elastic grid), TorchIO and batchgenerators (volumes, but numpy on the
host, one transform after the other). torch's own `grid_sample` does all of it
in one interpolation, in 2D and 3D, on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from skimage import measure
from torch import Tensor

from spoco_zoo.train.data import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spoco_zoo.train.data import Sample

__all__ = ["CropSampler", "Geometry", "draw_geometry", "resample", "teaches_background"]

BEYOND = 2**24
"""No object of an image has such a number: labels pass through float32."""
MOST_EMPTY = 0.2
"""Of all crops: more that hold no object would take the time of those that do."""


def teaches_background(sample: Sample) -> bool:
    """Whether an image holds no object, but voxels that are known to be background."""
    return not len(sample.centres) and bool((sample.labels == BACKGROUND).any())


@dataclass(frozen=True)
class Geometry:
    """Ranges of the geometric augmentation.

    Attributes
    ----------
    bent : float
        Share of crops that are rotated freely in the YX plane, scaled and bent.
        The others are flipped and turned by right angles only (flipped only
        where Y and X differ in size), so that no interpolation blurs them: small
        objects live from sharp borders.
    scale : float
        Largest natural logarithm of the magnification.
    elastic : float
        Standard deviation of the elastic displacement, in voxels.
    anisotropy : tuple of float
        Voxel size per axis, relative to the finest; displacements are equal in
        physical units.
    """

    bent: float = 0.5
    scale: float = 0.3
    elastic: float = 2.0
    anisotropy: tuple[float, ...] = (1.0, 1.0)

    def scaled(self, strength: float) -> Geometry:
        """The same with share, magnification and bending times `strength`."""
        return replace(
            self,
            bent=min(1.0, self.bent * strength),
            scale=self.scale * strength,
            elastic=self.elastic * strength,
        )


def draw_geometry(
    rng: np.random.Generator, crop: Sequence[int], geometry: Geometry, *, bent: bool
) -> NDArray[np.float32]:
    """Offsets from the crop's centre, float32 (*crop, ndim), in source voxels."""
    ndim = len(crop)
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in crop]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    units = np.asarray(geometry.anisotropy, np.float32)
    matrix = np.eye(ndim, dtype=np.float32)
    # A right angle needs equal sides, or the crop would leave the voxel grid of its centre, and
    # equal units, or objects would be stretched.
    square = crop[-1] == crop[-2] and units[-1] == units[-2]
    angle = rng.uniform(0, 2 * np.pi) if bent else np.pi / 2 * int(rng.integers(4)) * square
    matrix[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix *= rng.choice([-1.0, 1.0], size=ndim)[None, :]
    if not bent:
        return np.asarray(np.round(2 * grid @ matrix.T) / 2, np.float32)
    matrix *= np.exp(rng.uniform(-geometry.scale, geometry.scale))
    offsets = (grid * units) @ matrix.T.astype(np.float32)
    offsets += _elastic(rng, crop, geometry.elastic)
    return np.asarray(offsets / units, np.float32)


def _elastic(rng: np.random.Generator, crop: Sequence[int], sigma: float) -> NDArray[np.float32]:
    """Smooth random displacement: a coarse normal field, linearly interpolated."""
    ndim = len(crop)
    coarse = [max(2, round(n / 24) + 1) for n in crop]
    field = rng.normal(0, sigma * rng.uniform(), size=(1, ndim, *coarse)).astype(np.float32)
    mode = "bilinear" if ndim == 2 else "trilinear"
    smooth = F.interpolate(torch.from_numpy(field), size=tuple(crop), mode=mode, align_corners=True)
    return np.moveaxis(smooth[0].numpy(), 0, -1)


def resample(
    image: NDArray[np.float32],
    labels: NDArray[np.integer],
    centre: NDArray[np.float64],
    offsets: NDArray[np.float32],
) -> tuple[Tensor, Tensor]:
    """Sample a crop: image linearly, labels by nearest neighbour, mirrored at the borders.

    Parameters
    ----------
    image : ndarray
        float32 (C, [Z,] Y, X).
    labels : ndarray
        integer ([Z,] Y, X), below `BEYOND`.
    centre : ndarray
        float64 (ndim,), centre of the crop in voxels.
    offsets : ndarray
        float32 (*crop, ndim) from `draw_geometry`.

    Returns
    -------
    tuple of Tensor
        float32 (C, *crop) and int64 (*crop).
    """
    position = offsets + np.asarray(centre, np.float32)
    inside = np.ones(position.shape[:-1], bool)
    for axis, size in enumerate(labels.shape):
        at = position[..., axis]
        if at.min() <= -0.5 or at.max() >= size - 0.5:
            inside &= (at > -0.5) & (at < size - 0.5)
    position = _reflect(position, labels.shape)
    # One axis after the other: numpy is slow at minima over pairs and triples.
    axes = [position[..., axis] for axis in range(labels.ndim)]
    low = np.array([math.floor(at.min()) for at in axes])
    high = np.array([math.ceil(at.max()) + 1 for at in axes])
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    extent = np.maximum(high - low - 1, 1)
    # grid_sample wants x first and -1..1 from the first voxel's centre to the last's.
    grid = torch.from_numpy(2 * (position - low) / extent - 1).flip(-1)[None].float()
    source = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *window)]))[None]
    # Labels of a sample are counted from 1, far from where float32 ends to hold every integer.
    ids = torch.from_numpy(labels[window].astype(np.float32))[None, None]
    crop = F.grid_sample(source, grid, mode="bilinear", align_corners=True, padding_mode="border")
    near = F.grid_sample(ids, grid, mode="nearest", align_corners=True, padding_mode="border")
    found = near[0, 0].long()
    return crop[0], found if inside.all() else _images_apart(found, inside)


def _images_apart(labels: Tensor, inside: NDArray[np.bool_]) -> Tensor:
    """Labels of a crop in which mirror images of objects that lie apart from them are new ones.

    Where an object goes on in its mirror image the two stay one: nobody sees that it is no object.
    """
    objects = np.maximum(labels.numpy(), 0)
    pieces = measure.label(objects, background=0, connectivity=1)
    own = np.zeros(int(pieces.max()) + 1, bool)
    own[pieces[inside]] = True
    own[0] = True
    fresh = BEYOND + np.arange(len(own))
    return torch.where(torch.from_numpy(own[pieces]), labels, torch.from_numpy(fresh[pieces]))


def _reflect(position: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Mirror positions into [0, n - 1] per axis, in place."""
    for axis, size in enumerate(shape):
        at, last = position[..., axis], np.float32(max(size - 1, 1))
        if at.min() < 0 or at.max() > size - 1:
            wrapped = np.abs(at) % (2 * last)
            inside = np.where(wrapped > last, 2 * last - wrapped, wrapped)
            position[..., axis] = np.minimum(inside, np.float32(size - 1))
    return position


@dataclass(frozen=True)
class CropSampler(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Sample number i of a run: a pure function of (seed, i), so that a resumed run goes on alike.

    Attributes
    ----------
    samples : sequence of Sample
        Images that hold at least one annotated object.
    empty : sequence of Sample
        Images that hold known background alone: their share of the crops is their share of the
        images, but `MOST_EMPTY` at most.
    crop : tuple of int
        Crop shape ([Z,] Y, X).
    geometry : Geometry
    seed : int
    length : int
        Number of samples, iterations times batch size.
    """

    samples: Sequence[Sample]
    crop: tuple[int, ...]
    geometry: Geometry
    seed: int
    length: int
    empty: Sequence[Sample] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        sample = self._sample(rng)
        bent = bool(rng.uniform() < self.geometry.bent)
        centre = self._centre(rng, sample)
        if not bent:
            # On the voxel grid, whether the crop's side is odd or even.
            half = (np.array(self.crop) - 1) / 2
            centre = np.rint(centre - half) + half
        offsets = draw_geometry(rng, self.crop, self.geometry, bent=bent)
        return resample(sample.image, sample.labels, centre, offsets)

    def name(self, index: int) -> str:
        """Name of the image that sample number `index` is taken from."""
        return self._sample(np.random.default_rng([self.seed, index])).name

    def _sample(self, rng: np.random.Generator) -> Sample:
        """The image of a crop: the first that is drawn."""
        share = len(self.empty) / (len(self.empty) + len(self.samples))
        if self.empty and rng.uniform() < min(share, MOST_EMPTY):
            return self.empty[int(rng.integers(len(self.empty)))]
        return self.samples[int(rng.integers(len(self.samples)))]

    def _centre(self, rng: np.random.Generator, sample: Sample) -> NDArray[np.float64]:
        """A centre near a random annotated object, moved so that the crop stays inside.

        Where there is none, near known background, which may be a few strokes.
        """
        if len(sample.centres):
            target = sample.centres[int(rng.integers(len(sample.centres)))]
        else:
            known = np.flatnonzero(sample.labels == BACKGROUND)
            drawn = known[int(rng.integers(len(known)))]
            target = np.array(np.unravel_index(drawn, sample.labels.shape), np.float64)
        half = np.array(self.crop) / 2
        shifted = target + rng.uniform(-half, half)
        shape = np.array(sample.labels.shape)
        # From a centre to the last voxel of its crop is half a voxel less than to the crop's edge.
        room = np.minimum(half - 0.5, (shape - 1) / 2)
        return np.asarray(np.clip(shifted, room, shape - 1 - room), np.float64)
