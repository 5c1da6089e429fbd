"""What a run will do, decided before anything is read or written."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from math import ceil, floor, prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spoco_zoo import __version__, ngff
from spoco_zoo.config import ClusteringConfig, ModelRecipe, SegmentConfig
from spoco_zoo.errors import StoreError
from spoco_zoo.segment.blocks import BlockGrid, Box, make_grid
from spoco_zoo.segment.channels import choose_axes, choose_channels, note_planes
from spoco_zoo.segment.field import Field
from spoco_zoo.segment.ledger import is_unfinished
from spoco_zoo.segment.output.target import TiffTarget, choose_target, run_folder
from spoco_zoo.segment.region import asked_region
from spoco_zoo.segment.rereading import remark_rereading
from spoco_zoo.segment.scale.fit import Zoom, choose_zoom, hint_size, stated_size
from spoco_zoo.segment.stitch import Rule
from spoco_zoo.segment.tiling import (
    Tiling,
    choose_block,
    choose_chunk,
    choose_overlap,
    choose_tiling,
)
from spoco_zoo.sizes import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.ngff import Image, LabelTarget

__all__ = ["FORMAT", "Plan", "make_plan"]

FORMAT = "11"
"""Raised with every change that gives a voxel another label, or a file another content."""
DISK_BYTES = 1.5
"""Disk that a voxel may need: staged and final labels, slabs, pyramid, all compressed."""
FILE_BYTES = 4096
"""What each file takes up at the least, on most file systems."""
PAGE_BYTES = 4 * 2**20
"""Page, picture and settings beside the result; those of an image of noise had 1.5 MiB."""


@dataclass(frozen=True)
class Plan:
    """One run, fully decided; makes no promise about the voxels."""

    source: Image
    """The image as it is stored."""
    image: Image
    """The image as the network sees it: `source`, or a view of it at the model's voxel size."""
    recipe: ModelRecipe
    level: int
    """Of `image`."""
    channels: tuple[int, ...]
    region: Box
    """The segmented part of the volume ([Z,] Y, X), in voxels of the level of `image`."""
    source_region: Box
    """The same in voxels of ``config.level`` of `source`: what the label covers."""
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
    notes: tuple[str, ...] = ()
    """What was decided about the image that the user may want to know."""

    @property
    def output(self) -> str:
        """Where the label will be."""
        return self.target.path

    @property
    def rule(self) -> Rule:
        """When two objects of neighbouring blocks, or planes, are one."""
        return Rule(self.config.stitch_iou, self.recipe.delta_dist)

    @property
    def rescaled(self) -> bool:
        """Whether the network works at another voxel size than the label has."""
        return self.image is not self.source

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
        outer = prod(self.grid.widest)
        margin = prod(
            min(b + 2 * o + 2 * p, n)
            for b, o, p, n in zip(
                self.grid.block, self.grid.overlap, self.tiling.patch, self.grid.shape, strict=True
            )
        )
        net = self.recipe.net
        activations = 6 * net.features[0] * prod(self.tiling.patch)
        # Embeddings of a block and of the next one, those sorted by voxel, labels and their kin;
        # consistency clustering has the first two from the momentum network, too.
        fields = 5 if self.clustering.method == "consistency" else 3
        block = (fields * net.embedding_dim + 8) * outer
        read = (4 if self.rescaled else 2) * net.in_channels * margin
        return 4 * (block + read + activations)

    @property
    def disk_bytes(self) -> int:
        """Disk that the run may need."""
        voxels = prod(self.grid.shape)
        if self.rescaled:
            voxels += prod(self.source_region.shape)
        return ceil(DISK_BYTES * self.grid.times * voxels) + FILE_BYTES * self._files + PAGE_BYTES

    @property
    def _files(self) -> int:
        """How many files and folders there may be at a time."""
        staged = 3 * self.grid.total  # labels, slabs and matches of each block
        # Version 0.4 has no shards; all coarse levels together have no more files than the finest.
        unit = self.chunk if getattr(self.target, "version", "") == "0.4" else self.grid.block
        region = self.source_region.shape
        written = self.grid.times * prod(ceil(n / u) for n, u in zip(region, unit, strict=True))
        return staged + (3 if self.rescaled else 2) * written

    def summary(self) -> dict[str, str]:
        """What a dry run shows, as text by name."""
        source, level = self.source, self.config.level
        size = source.voxel_size(level)
        scale = size or source.spatial_scale(level)
        stated = next((u for u in reversed(source.units) if u), "(no unit is stated)")
        unit = "micrometer" if size else stated
        disagreement = "none: the halo holds the whole receptive field"
        return {
            "input": f"{source.uri}, level {level}",
            "axes": ",".join(source.axes),
            "shape": f"{_text(source.spatial_shape(level))} voxels, "
            f"{self.grid.times} time point{'s' if self.grid.times > 1 else ''}, "
            f"channels {_text(self.channels)}",
            "voxel size": f"{' x '.join(f'{s:g}' for s in scale)} {unit}".strip(),
            "region": str(self.source_region),
            "resampled": self._resampled(),
            "blocks": f"{self.grid.total} of {_text(self.grid.block)}, "
            f"overlap {_text(self.grid.overlap)}",
            "patches": f"{_text(self.tiling.patch)} with halo {_text(self.tiling.halo)}, "
            f"{self.config.blend}",
            "patch disagreement": disagreement if self.exact else "measured during the run",
            "clustering": self.clustering.method,
            "output": self.output,
            "run folder": str(self.folder),
            "memory per worker": bytes_text(self.worker_bytes),
            "disk needed": f"at most {bytes_text(self.disk_bytes)}",
            "disk free": bytes_text(self.disk_free),
            "notes": " ".join(self.notes) or "none",
        }

    def short(self) -> str:
        """The same in one line, of an image among others."""
        shown = self.summary()
        disk = f"{shown['disk needed']} of disk"
        return f"{shown['shape']}; blocks: {shown['blocks']}; {disk}"

    def _resampled(self) -> str:
        """The size at which blocks, patches and object sizes are counted."""
        if not self.rescaled:
            return "no"
        scale = self.image.spatial_scale(0)
        shape = _text(self.image.spatial_shape(0))
        return f"to {shape} voxels of {' x '.join(f'{s:.4g}' for s in scale)} for the network"

    def fingerprint(self, model: str, cluster: str) -> dict[str, str]:
        """Everything that the result depends on, as text by name."""
        image = self.image
        # Whatever an image is called: the folder of its run follows links, too.
        uri = image.uri if ngff.is_remote(image.uri) else os.path.realpath(image.uri)
        source = repr((uri, image.axes, image.levels, str(image.dtype)))
        settings = self.config.model_dump(mode="json")
        return {
            "format": FORMAT,
            "spoco-zoo": __version__,
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
    zoom_note: str = "",
    channel_note: str = "",
    light_note: str = "",
) -> Plan:
    """Decide everything about a run; writes nothing.

    Only metadata are read, and a part of the pixels where colours must be told apart.

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
    zoom_note, channel_note, light_note : str
        Why `config` has a zoom or a channel, or inverts, if it is not the user who asked for it.

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
    image = choose_axes(image, recipe)
    source_region = asked_region(image, recipe, config)
    size = config.voxel_size or stated_size(image, config.level, recipe)
    view = _view(image, recipe, config, source_region, size)
    shape = view.image.spatial_shape(view.level)
    channels, colour_note = choose_channels(image, config.level, config.channel, recipe)
    # In one unit for all axes where that is known; a zoom is the same along all where ratios count.
    sizes = size or image.voxel_size(config.level) or image.spatial_scale(config.level)
    tiling, filled = _fill(config, recipe, shape, view.region.shape, sizes)
    assert filled.block
    assert filled.overlap
    assert filled.clustering
    target = choose_target(image, config, output, label_name, version, overwrite, source_region)
    folder = run_folder(image, output, label_name)
    grid = make_grid(view.region.shape, filled.block, filled.overlap, image.n_times)
    field = tiling.field(shape, config.blend)
    notes = (
        *image.notes,
        zoom_note or view.zoom.note,
        hint_size(image, recipe, config, view.zoom),
        channel_note or colour_note,
        light_note,
        note_planes(source_region.shape, recipe),
        remark_rereading(image, config.level, view.region, shape, field, grid),
    )
    plan = Plan(
        source=image,
        image=view.image,
        recipe=recipe,
        level=view.level,
        channels=channels,
        region=view.region,
        source_region=source_region,
        grid=grid,
        field=field,
        tiling=tiling,
        config=filled,
        clustering=filled.clustering,
        chunk=choose_chunk(filled.block),
        target=target,
        folder=folder,
        disk_free=_disk_free(folder),
        notes=tuple(filter(None, notes)),
    )
    # A run that goes on has used much of it already, and a full disk ends it in one line.
    if plan.disk_free < plan.disk_bytes and not is_unfinished(folder):
        raise StoreError(
            f"the run may need {bytes_text(plan.disk_bytes)} of disk",
            f"{bytes_text(plan.disk_free)} free at {folder.parent}",
            "Free some, or choose another --output.",
        )
    return plan


class _View(NamedTuple):
    """An image as the network sees it, and the part of it that is asked for."""

    image: Image
    level: int
    region: Box
    zoom: Zoom


def _view(
    image: Image,
    recipe: ModelRecipe,
    config: SegmentConfig,
    region: Box,
    size: Sequence[float] | None,
) -> _View:
    """Resample an image to the model's voxel size, or as asked; `size` is its own."""
    zoom = choose_zoom(
        size,
        recipe,
        image.spatial,
        rescale=config.rescale,
        zoom=config.zoom,
        stated=config.voxel_size is None,
    )
    if not zoom.needed:
        return _View(image, config.level, region, zoom)
    seen = ngff.rescale_image(image, config.level, zoom.factors)
    scaled = _scaled(region, image.spatial_shape(config.level), seen.spatial_shape(0))
    return _View(seen, 0, scaled, zoom)


def _fill(
    config: SegmentConfig,
    recipe: ModelRecipe,
    shape: Sequence[int],
    region: Sequence[int],
    sizes: Sequence[float],
) -> tuple[Tiling, SegmentConfig]:
    """Patches, and the settings with blocks and clustering, for a region of an image of a shape."""
    overlap = config.overlap or choose_overlap(recipe, sizes)
    tiling = choose_tiling(recipe, shape, overlap, config.patch, config.halo)
    block = config.block or choose_block(region, tiling, overlap)
    if config.overlap is None:
        overlap = tuple(min(o, max(b // 2, 1)) for o, b in zip(overlap, block, strict=True))
    found = {
        "block": block,
        "overlap": overlap,
        "patch": tiling.patch,
        "halo": tiling.halo,
        "clustering": recipe.clustering.overridden(config.clustering),
    }
    return tiling, config.model_copy(update=found)


def _scaled(region: Box, old: tuple[int, ...], new: tuple[int, ...]) -> Box:
    """The smallest region of a view that holds a region of its image."""
    start = [floor(a * m / n) for a, n, m in zip(region.start, old, new, strict=True)]
    stop = [ceil(b * m / n) for b, n, m in zip(region.stop, old, new, strict=True)]
    return Box(tuple(start), tuple(stop))


def _disk_free(folder: Path) -> int:
    """Free bytes where the folder is or will be."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _text(values: tuple[int, ...]) -> str:
    return " x ".join(map(str, values))
