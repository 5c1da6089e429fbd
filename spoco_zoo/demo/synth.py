"""Made-up microscopy of crowded cells, with its truth, of any size.

The tissue is an endless world that depends on the seed alone; an image is a
window into it. Every random number is a hash of a position, so that a block
computed alone equals the same part of the whole, voxel for voxel. `cells` says
where the cells are; here they are stained, blurred and photographed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage, special

from spoco_zoo.demo.cells import MARGIN, Style, Tissue, cells_near, depths, objects_of
from spoco_zoo.demo.hashed import normal, smooth
from spoco_zoo.ngff.store import tiles
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spoco_zoo.demo.cells import Cells

__all__ = ["Tissue", "Volume", "crowded_cells", "draw", "render", "write_volume"]

# Lengths in voxels of the finest axis.
PSF, PSF_Z, HAZE = 1.0, 1.8, 5.0  # standard deviations of the focus and of what lies out of it

PHOTONS, READ_NOISE, OFFSET = 70.0, 2.5, 8.0


@dataclass(frozen=True)
class Volume:
    """Files written by `write_volume`."""

    image: Path
    labels: Path


def crowded_cells(
    shape: Sequence[int],
    seed: int,
    *,
    diameter: float = 24.0,
    anisotropy: float = 1.0,
    gaps: float = 1.0,
    style: Style = "membrane",
    coverage: float = 0.85,
    dtype: Literal["uint8", "uint16"] = "uint8",
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw crowded cells and their labels in memory.

    Parameters
    ----------
    shape : sequence of int
        ([Z,] Y, X) in voxels; its length decides between 2D and 3D.
    seed, diameter, anisotropy, gaps, style, coverage, dtype
        See `Tissue`.

    Returns
    -------
    image : uint8 or uint16, shape ([Z,] Y, X)
        Fluorescence with blur, haze, uneven light, photon and read noise.
    labels : uint16 or int32, shape ([Z,] Y, X)
        0 background, 1..N connected cells.

    Raises
    ------
    DataError
        If a value is out of its range.
    """
    tissue = Tissue(tuple(shape), seed, diameter, anisotropy, gaps, style, coverage, dtype)
    return draw(tissue, tuple(slice(0, n) for n in tissue.shape))


def draw(tissue: Tissue, where: tuple[slice, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw one block of a tissue, its cells numbered from 1.

    Parameters
    ----------
    tissue, where
        As in `render`.

    Returns
    -------
    image, labels
        As of `crowded_cells`, of the block's shape.
    """
    image, ids = render(tissue, where)
    found, labels = np.unique(ids, return_inverse=True)
    labels = labels.reshape(ids.shape) + int(found[0] != 0)
    return image, labels.astype(np.uint16 if found.size < 1 << 16 else np.int32)


def render(tissue: Tissue, where: tuple[slice, ...]) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    """Draw one block of a tissue; equal to that part of the whole.

    Parameters
    ----------
    tissue : Tissue
    where : tuple of slice
        Start (inclusive) and stop (exclusive) per axis, in voxels.

    Returns
    -------
    image : uint8 or uint16, shape of the block
    ids : uint32, shape of the block
        0 background; ids of cells are positive, hold across blocks and are not
        consecutive.
    """
    voxels = [np.arange(w.start - MARGIN, w.stop + MARGIN) for w in where]
    cells = cells_near(tissue, voxels)
    owner, depth = depths(tissue, voxels, cells)
    inner = (slice(MARGIN, -MARGIN),) * len(where)
    objects = objects_of(tissue, voxels, owner, depth)[inner]
    ids = np.concatenate([[0], cells.ids])[objects]
    signal = _blurred(tissue, _stain(tissue, voxels, cells, owner, depth))[inner]
    voxels = [v[i] for v, i in zip(voxels, inner, strict=True)]
    return _detected(tissue, voxels, signal), ids.astype(np.uint32)


def write_volume(
    folder: Path,
    tissue: Tissue,
    *,
    block: Sequence[int] | None = None,
    on_block: Callable[[int, int], None] | None = None,
) -> Volume:
    """Write a tissue of any size block by block, as two uncompressed BigTIFFs.

    Memory is that of one block. `spoco_zoo.ngff.convert` makes OME-Zarr of the
    files.

    Parameters
    ----------
    folder : Path
        Gets ``image.tif`` and ``labels.tif`` (uint32, ids as in `render`).
    tissue : Tissue
    block : sequence of int, optional
        Voxels per axis drawn at once; by default about 2 million in all.
    on_block : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Volume
        The paths of the files. Both appear only when complete.
    """
    import tifffile

    ndim = len(tissue.shape)
    sizes = tuple(block) if block is not None else (1448,) * 2 if ndim == 2 else (128,) * 3
    folder.mkdir(parents=True, exist_ok=True)
    done = Volume(folder / "image.tif", folder / "labels.tif")
    blocks = list(tiles(tissue.shape, sizes))
    with replacing(done.labels) as labels, replacing(done.image) as image:
        arrays = [
            tifffile.memmap(
                path,
                shape=tissue.shape,
                dtype=dtype,
                bigtiff=True,
                photometric="minisblack",
                metadata={"axes": "ZYX"[-ndim:]},
            )
            for path, dtype in ((image, tissue.dtype), (labels, "uint32"))
        ]
        for number, where in enumerate(blocks, start=1):
            for array, part in zip(arrays, render(tissue, where), strict=True):
                array[where] = part
            if on_block is not None:
                on_block(number, len(blocks))
        for array in arrays:
            array.flush()
    return done


def _stain(
    tissue: Tissue,
    voxels: Sequence[NDArray[np.int64]],
    cells: Cells,
    owner: NDArray[np.int32],
    depth: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Fluorophore density, about 1 where the stain is bright."""
    positions = tissue.positions(voxels)
    per_cell = np.concatenate([cells.brightness, np.zeros(1, dtype=np.float32)])[owner]
    if tissue.style == "filled":
        texture = 1 + np.float32(0.18) * smooth(positions, 0.13 * tissue.diameter, tissue.seed, 40)
        return np.asarray(per_cell * texture * special.expit(2 * (depth - tissue.gaps / 2)))
    patchy = np.exp(np.float32(0.3) * smooth(positions, 0.25 * tissue.diameter, tissue.seed, 41))
    granular = 1 + np.float32(0.25) * smooth(positions, 2.5, tissue.seed, 42)
    body = np.float32(0.16) * per_cell * granular * special.expit(2 * depth)
    return np.asarray(patchy * np.exp(-((depth / np.float32(1.1)) ** 2)) + body)


def _blurred(tissue: Tissue, stain: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light in focus and the haze of what is not."""
    steps = tissue.step
    focus = [PSF, PSF] if len(steps) == 2 else [PSF_Z / steps[0], PSF, PSF]
    sharp = ndimage.gaussian_filter(stain, focus, truncate=4, mode="nearest")
    haze = ndimage.gaussian_filter(stain, [HAZE / s for s in steps], truncate=3, mode="nearest")
    return np.asarray(np.float32(0.85) * sharp + np.float32(0.3) * haze)


def _detected(
    tissue: Tissue, voxels: Sequence[NDArray[np.int64]], signal: NDArray[np.float32]
) -> NDArray[Any]:
    """What the camera reads: uneven light, background, photon noise, read noise, integers."""
    positions = tissue.positions(voxels)
    light = np.exp(np.float32(0.18) * smooth(positions, 8 * tissue.diameter, tissue.seed, 50))
    photons = np.float32(PHOTONS) * light * (signal + np.float32(0.04))
    spread = np.sqrt(photons + np.float32(READ_NOISE**2))
    counts = photons + spread * normal(voxels, tissue.seed, 51)
    limits = np.iinfo(tissue.dtype)
    gain = 1.5 if tissue.dtype == "uint8" else 24.0
    values = np.round(np.float32(OFFSET) + np.float32(gain) * counts)
    return np.asarray(values.clip(limits.min, limits.max).astype(tissue.dtype))
