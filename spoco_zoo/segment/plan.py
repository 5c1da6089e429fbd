"""What a run will do, decided before anything is read or written."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, ModelRecipe, SegmentConfig
from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.segment.blocks import BlockGrid, Box, make_grid
from spoco_zoo.segment.field import Field, make_field
from spoco_zoo.segment.tiling import (
    Tiling,
    choose_block,
    choose_chunk,
    choose_overlap,
    choose_tiling,
)

if TYPE_CHECKING:
    from spoco_zoo.ngff import Image, LabelTarget

__all__ = ["Plan", "TiffTarget", "make_plan", "run_folder"]

DISK_BYTES = 1.5
"""Disk that a voxel may need: staged and final labels, slabs, pyramid, all compressed."""
TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class TiffTarget:
    """A label TIFF, written in one piece at the end."""

    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """One run, fully decided; makes no promise about the voxels."""

    image: Image
    recipe: ModelRecipe
    level: int
    channels: tuple[int, ...]
    region: Box
    """The segmented part of the volume ([Z,] Y, X), in voxels of the level."""
    grid: BlockGrid
    field: Field
    tiling: Tiling
    config: SegmentConfig
    """As asked, with everything that was left open filled in."""
    clustering: ClusteringConfig
    chunk: tuple[int, ...]
    target: LabelTarget | TiffTarget
    folder: Path
    """The run folder."""
    disk_free: int
    """Bytes."""

    @property
    def output(self) -> str:
        """Where the label will be."""
        return self.target.path

    @property
    def exact(self) -> bool:
        """Whether tiling changes nothing: the halo holds the whole receptive field."""
        return all(
            len(axis.edges) == 2 or axis.halo >= radius
            for axis, radius in zip(self.field.axes, self.tiling.radius, strict=True)
        )

    @property
    def worker_bytes(self) -> int:
        """Peak memory of a worker beyond its libraries; does not depend on the volume."""
        outer = prod(
            min(b + 2 * o, n)
            for b, o, n in zip(self.grid.block, self.grid.overlap, self.grid.shape, strict=True)
        )
        margin = prod(
            min(b + 2 * o + 2 * p, n)
            for b, o, p, n in zip(
                self.grid.block, self.grid.overlap, self.tiling.patch, self.grid.shape, strict=True
            )
        )
        net = self.recipe.net
        activations = 6 * net.features[0] * prod(self.tiling.patch)
        return 4 * (2 * net.embedding_dim * outer + 2 * net.in_channels * margin + activations)

    @property
    def disk_bytes(self) -> int:
        """Disk that the run may need."""
        return ceil(DISK_BYTES * self.grid.times * prod(self.grid.shape))

    def summary(self) -> dict[str, str]:
        """What a dry run shows, as text by name."""
        scale = self.image.spatial_scale(self.level)
        unit = next((u for u in reversed(self.image.units) if u), "")
        disagreement = "none: the halo holds the whole receptive field"
        return {
            "input": f"{self.image.uri}, level {self.level}",
            "axes": ",".join(self.image.axes),
            "shape": f"{_text(self.image.spatial_shape(self.level))} voxels, "
            f"{self.grid.times} time point{'s' if self.grid.times > 1 else ''}, "
            f"channels {_text(self.channels)}",
            "voxel size": f"{' x '.join(f'{s:g}' for s in scale)} {unit}".strip(),
            "region": str(self.region),
            "blocks": f"{self.grid.total} of {_text(self.grid.block)}, "
            f"overlap {_text(self.grid.overlap)}",
            "patches": f"{_text(self.tiling.patch)} with halo {_text(self.tiling.halo)}, "
            f"{self.config.blend}",
            "patch disagreement": disagreement if self.exact else "measured during the run",
            "clustering": self.clustering.method,
            "output": self.output,
            "run folder": str(self.folder),
            "memory per worker": _bytes(self.worker_bytes),
            "disk needed": f"at most {_bytes(self.disk_bytes)}",
            "disk free": _bytes(self.disk_free),
        }

    def fingerprint(self, model: str, cluster: str) -> dict[str, str]:
        """Everything that the result depends on, as text by name."""
        image = self.image
        source = repr((image.uri, image.axes, image.levels, str(image.dtype)))
        settings = self.config.model_dump(mode="json")
        return {
            "format": "2",
            "model": model,
            "source": hashlib.sha256(source.encode()).hexdigest(),
            "cluster": cluster,
            "target": repr(self.target.axes) + repr(getattr(self.target, "version", "tiff")),
            **{f"config.{key}": str(value) for key, value in settings.items()},
        }


def make_plan(
    image: Image,
    recipe: ModelRecipe,
    config: SegmentConfig,
    *,
    output: str | Path | None = None,
    label_name: str = "spoco",
    version: str | None = None,
    overwrite: bool = False,
) -> Plan:
    """Decide everything about a run; reads metadata only and writes nothing.

    Parameters
    ----------
    image : Image
    recipe : ModelRecipe
        Of the model that will be used.
    config : SegmentConfig
        What the user asked; None entries are filled in.
    output, label_name, version, overwrite
        See `spoco_zoo.ngff.plan_label`. An output that ends in ``.tif`` is a
        label TIFF.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If settings contradict each other, the model, or the image.
    StoreError
        If the label cannot go where it is wanted, or the disk is too full.
    """
    shape = _check_image(image, recipe, config)
    region = _region(config, shape)
    tiling = choose_tiling(recipe, shape, config.patch, config.halo)
    overlap = config.overlap or choose_overlap(recipe, image.spatial_scale(config.level))
    block = config.block or choose_block(region.shape, tiling.core, overlap)
    if config.overlap is None:
        overlap = tuple(min(o, max(b // 2, 1)) for o, b in zip(overlap, block, strict=True))
    grid = make_grid(region.shape, block, overlap, image.n_times)
    field = make_field(
        shape,
        tiling.patch,
        tiling.halo,
        factor=tiling.factor,
        radius=tiling.radius,
        blend=config.blend,
    )
    clustering = config.clustering or recipe.clustering
    filled = config.model_copy(
        update={
            "block": block,
            "overlap": overlap,
            "patch": tiling.patch,
            "halo": tiling.halo,
            "clustering": clustering,
        }
    )
    target = _target(image, config, output, label_name, version, overwrite, region)
    folder = run_folder(image, output, label_name)
    plan = Plan(
        image=image,
        recipe=recipe,
        level=config.level,
        channels=ngff.find_channels(image, config.channel, recipe.net.in_channels),
        region=region,
        grid=grid,
        field=field,
        tiling=tiling,
        config=filled,
        clustering=clustering,
        chunk=choose_chunk(block),
        target=target,
        folder=folder,
        disk_free=_disk_free(folder),
    )
    if plan.disk_free < plan.disk_bytes:
        raise StoreError(
            f"the run may need {_bytes(plan.disk_bytes)} of disk",
            f"{_bytes(plan.disk_free)} free at {folder.parent}",
            "Free some, or choose another --output.",
        )
    return plan


def run_folder(image: Image, output: str | Path | None, label_name: str) -> Path:
    """Folder of a run's ledger and scratch data, beside its output."""
    if output is None:
        return Path(f"{image.uri.rstrip('/')}.{label_name}.spoco-run")
    return Path(f"{os.path.abspath(output)}.spoco-run")


def _check_image(image: Image, recipe: ModelRecipe, config: SegmentConfig) -> tuple[int, ...]:
    """Spatial shape of the level, if model and settings fit the image."""
    if config.level >= len(image.levels):
        raise ConfigError(
            "the level must exist",
            f"level {config.level} of {len(image.levels)} in {image.uri}",
            f"Use --level 0 to {len(image.levels) - 1}.",
        )
    shape = image.spatial_shape(config.level)
    if recipe.net.ndim > len(shape):
        raise ConfigError(
            "a 3D model needs a 3D image",
            f"axes {','.join(image.axes)} in {image.uri}",
            "Use a 2D model.",
        )
    for name in ("block", "overlap", "patch", "halo", "roi"):
        value = getattr(config, name)
        if value is not None and len(value) != len(shape):
            raise ConfigError(
                f"{name} must have one entry per spatial axis {','.join(image.spatial)}",
                f"{len(value)} entries",
                f"Give {len(shape)}.",
            )
    return shape


def _region(config: SegmentConfig, shape: tuple[int, ...]) -> Box:
    """The part of the volume to segment."""
    if config.roi is None:
        return Box((0,) * len(shape), shape)
    region = Box(tuple(a for a, _ in config.roi), tuple(b for _, b in config.roi))
    if any(not a < b <= n for a, b, n in zip(region.start, region.stop, shape, strict=True)):
        raise ConfigError(
            "a region must lie inside the volume and not be empty",
            f"{region} in {_text(shape)}",
            "Mend --roi.",
        )
    return region


def _target(
    image: Image,
    config: SegmentConfig,
    output: str | Path | None,
    label_name: str,
    version: str | None,
    overwrite: bool,
    region: Box,
) -> LabelTarget | TiffTarget:
    """Where the label goes."""
    if output is None or Path(output).suffix.lower() not in TIFF_SUFFIXES:
        return ngff.plan_label(
            image,
            name=label_name,
            output=output,
            level=config.level,
            roi=config.roi,
            version=version,
            overwrite=overwrite,
        )
    if Path(output).exists() and not overwrite:
        raise StoreError(
            "an existing file is not replaced",
            str(output),
            "Choose another --output, or add --overwrite.",
        )
    axes = tuple(a for a in image.axes if a != "c")
    lead = (image.n_times,) if "t" in axes else ()
    return TiffTarget(os.path.abspath(output), axes, (*lead, *region.shape))


def _disk_free(folder: Path) -> int:
    """Free bytes where the folder is or will be."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _text(values: tuple[int, ...]) -> str:
    return " x ".join(map(str, values))


def _bytes(count: float) -> str:
    """A count of bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
