"""What workers do: one block, the faces above a block, one write unit of the output.

Each task is a function of the run's `Common` and one item. It writes its own
files, a whole one each under a temporary name first, and returns a few numbers.
Doing an item twice, even at once, gives the same bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spoco_zoo.nets.device import find_device
from spoco_zoo.ngff.store import discard_blocks
from spoco_zoo.segment.blocks import owned_first
from spoco_zoo.segment.cluster import cluster as own_cluster
from spoco_zoo.segment.embed import Disagreement, embed
from spoco_zoo.segment.network.inference import worth_graphs
from spoco_zoo.segment.network.models import obtain_model
from spoco_zoo.segment.normalise import read_normalised
from spoco_zoo.segment.planes import cluster_planes, planewise
from spoco_zoo.segment.review.audit import BlockTally, FaceTally, count_cut, count_dropped
from spoco_zoo.segment.review.doubts import Doubt, find_doubts, worst_doubts
from spoco_zoo.segment.scale.resize import resize_steps, shown_voxels
from spoco_zoo.segment.slabs import block_file, checksum, read_side, write_edges, write_sides
from spoco_zoo.segment.stitch import match

if TYPE_CHECKING:
    from spoco_zoo.config import ClusteringConfig, ModelRecipe, Precision
    from spoco_zoo.intensities import Statistics
    from spoco_zoo.nets.model import Clusterer, Embedder, Model
    from spoco_zoo.ngff import Image
    from spoco_zoo.segment.blocks import BlockGrid, Box
    from spoco_zoo.segment.embed import Embedded, Kept
    from spoco_zoo.segment.field import Field
    from spoco_zoo.segment.network.models import ModelRef
    from spoco_zoo.segment.output.pyramid import AxisStep
    from spoco_zoo.segment.plan import Plan
    from spoco_zoo.segment.stitch import Rule

__all__ = [
    "BlockField",
    "BlockInput",
    "BlockResult",
    "Common",
    "FaceItem",
    "FaceResult",
    "embed_block",
    "file_block",
    "join_faces",
    "make_common",
    "read_block",
]

BATCH_VOXELS = 2**22
"""Input voxels of a batch on a CUDA device, before any back-off."""


@dataclass(frozen=True)
class Common:
    """What all items of a run share."""

    image: Image
    level: int
    channels: tuple[int, ...]
    offset: tuple[int, ...]
    """Start of the segmented region in the volume ([Z,] Y, X)."""
    grid: BlockGrid
    field: Field
    statistics: tuple[Statistics, ...]
    """One per time point."""
    model: ModelRef
    clustering: ClusteringConfig
    cluster: Clusterer
    rule: Rule
    device: str
    precision: Precision
    folder: str
    """The run folder, seen by all workers under this path."""
    local: Any
    """Staging array of local ids (T, [Z,] Y, X)."""
    steps: tuple[AxisStep, ...] = ()
    """From the network's voxels to those of the label, per axis; empty if they are the same."""


def make_common(
    plan: Plan,
    statistics: tuple[Statistics, ...],
    local: Any,
    model: ModelRef,
    cluster: Clusterer,
    device: str,
) -> Common:
    """What the items of a planned run share."""
    return Common(
        image=plan.image,
        level=plan.level,
        channels=plan.channels,
        offset=plan.region.start,
        grid=plan.grid,
        field=plan.field,
        statistics=statistics,
        model=model,
        clustering=plan.clustering,
        cluster=cluster,
        rule=plan.rule,
        device=device,
        precision=plan.config.precision,
        folder=str(plan.folder),
        local=local,
        steps=resize_steps(plan, 0) if plan.rescaled else (),
    )


class BlockInput(NamedTuple):
    """What a block's embeddings are made of."""

    number: int
    pixels: np.ndarray | None
    """Normalised image (C, [Z,] Y, X) over what is needed; None if it is constant."""
    seconds: float


class BlockField(NamedTuple):
    """A block whose embeddings are there."""

    source: BlockInput
    found: Embedded | None
    momentum: Embedded | None
    seconds: float


class BlockResult(NamedTuple):
    """What the driver keeps of a block."""

    objects: int
    owned: int
    """Those with voxels in the core: local ids 1..owned."""
    checksum: int
    """CRC-32 of the core's local ids."""
    tally: BlockTally


class FaceResult(NamedTuple):
    """What the driver keeps of the faces of a block."""

    tally: FaceTally
    doubts: list[Doubt]


class FaceItem(NamedTuple):
    """The faces of a block towards its neighbours above along some axes."""

    number: int
    axes: tuple[int, ...]


def read_block(common: Common, number: int) -> BlockInput:
    """Read and normalise what the embeddings of a block depend on.

    Raises
    ------
    DataError, StoreError
        If the image holds NaN or infinity, or cannot be read there.
    """
    began = time.perf_counter()
    when = common.grid.time(number)
    statistics = common.statistics[when]
    if statistics.std == 0:
        return BlockInput(number, None, 0.0)
    needed = common.field.needed(_region(common, number))
    source = common.image, common.level, when, common.channels
    pixels = read_normalised(*source, needed, statistics)
    return BlockInput(number, pixels, time.perf_counter() - began)


def embed_block(
    common: Common, source: BlockInput, kept: tuple[Kept, Kept], upcoming: int | None = None
) -> BlockField:
    """Embed the outer region of a block.

    Parameters
    ----------
    common : Common
    source : BlockInput
    kept : (Kept, Kept)
        What the block before left of the network's and the momentum network's
        outputs; afterwards what `upcoming` needs of them.
    upcoming : int, optional
        The block that comes next with the same `kept`.
    """
    began = time.perf_counter()
    if source.pixels is None:
        return BlockField(source, None, None, 0.0)
    model = _model(common)
    found = _embed(common, model.network, model.recipe, source, kept[0], upcoming)
    momentum = None
    if common.clustering.method == "consistency" and model.momentum is not None and found.used:
        momentum = _embed(common, model.momentum, model.recipe, source, kept[1], upcoming)
    # The pixels have done their work, and the block may wait for its clustering.
    done = source._replace(pixels=None)
    return BlockField(done, found, momentum, time.perf_counter() - began)


def _model(common: Common) -> Model:
    """The model, ready for inference in this process."""
    device, graphs = find_device(common.device), worth_graphs(common.grid)
    return obtain_model(common.model, device, common.precision, graphs=graphs)


def file_block(common: Common, field: BlockField) -> BlockResult:
    """Cluster an embedded block and write its labels, its slabs and what it measured."""
    number, grid = field.source.number, common.grid
    clock = [time.perf_counter()]
    core = grid.core(number).within(grid.outer(number))
    labels, embeddings, dropped = _cluster_block(common, field, core)
    clock.append(time.perf_counter())
    shown = shown_voxels(common.steps, grid.core(number)) if common.steps else ()
    labels, sizes = owned_first(labels, core, shown)
    objects = int(labels.max(initial=0))
    # Objects that the label's voxels miss stay out; `labels` has them, as they may join others.
    local = np.where(labels[core] > len(sizes), 0, labels[core]) if shown else labels[core]
    if objects and embeddings is not None:
        write_sides(common.folder, grid, number, labels, embeddings, sizes)
        _stage(common.local, (grid.time(number), *grid.core(number).slices), local)
    clock.append(time.perf_counter())
    found = field.found
    seams = found.disagreement if found else Disagreement()
    tally = BlockTally(
        blocks=1,
        local_objects=len(sizes),
        voxels=labels.size,
        patches=found.patches if found else 0,
        read_seconds=field.source.seconds,
        embed_seconds=field.seconds,
        cluster_seconds=clock[1] - clock[0],
        write_seconds=clock[2] - clock[1],
        disagreement_total=seams.total,
        disagreement_count=seams.count,
        disagreement_worst=seams.worst,
        kept_voxels=int(sizes.sum()),
        dropped=dropped[0],
        dropped_voxels=dropped[1],
    )
    return BlockResult(objects, len(sizes), checksum(local), tally)


def _stage(array: Any, where: tuple[Any, ...], labels: np.ndarray) -> None:
    """Write one whole shard, which nobody else ever does."""
    try:
        array[where] = labels
    except (MemoryError, OSError):
        raise
    except Exception:  # of a shard at the array's end zarr reads what is there: damaged, if so
        discard_blocks(array, where)
        array[where] = labels


def join_faces(common: Common, item: FaceItem) -> FaceResult:
    """Match a block with its neighbours above and file the pairs.

    Parameters
    ----------
    common : Common
    item : FaceItem

    Returns
    -------
    FaceResult

    Raises
    ------
    StoreError
        If what a block has staged is gone or damaged.
    """
    grid, number = common.grid, item.number
    tally, doubts = FaceTally(), []
    edges = [np.empty((0, 4), np.int64)]
    for axis in item.axes:
        above = grid.above(number, axis)
        assert above is not None
        low = read_side(block_file(common.folder, number), axis, "above")
        high = read_side(block_file(common.folder, above), axis, "below")
        face = grid.core(number).stop[axis] - grid.slab(number, axis).start[axis]
        found = match(low, high, common.rule, (axis, face))
        doubts += find_doubts(low, high, found, common.rule, grid, number, axis)
        cut = count_cut(low, high, found.pairs, axis, face)
        tally += FaceTally(1, len(found.pairs), found.refused_overlap, found.refused_embedding, cut)
        ends = np.broadcast_to([[number, above]], found.pairs.shape)
        edges.append(np.stack([ends, found.pairs], axis=2).reshape(-1, 4))
    write_edges(common.folder, number, np.concatenate(edges))
    return FaceResult(tally, worst_doubts(doubts))


def _region(common: Common, number: int) -> Box:
    """Outer region of a block, in voxels of the volume."""
    return common.grid.outer(number).shifted(common.offset)


def _cluster_block(
    common: Common, field: BlockField, core: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int]]:
    """Labels of the outer region, its embeddings if it holds objects, and what was dropped."""
    found, shape = field.found, common.grid.outer(field.source.number).shape
    if found is None or not found.used:
        return np.zeros(shape, np.int32), None, (0, 0)
    recipe = _model(common).recipe
    flat = recipe.net.ndim < len(shape)
    cluster = common.cluster
    if flat:
        cluster = cluster_planes(cluster, common.rule, recipe.net.turning)
    labels = cluster(
        found.embeddings,
        common.clustering,
        recipe.background,
        momentum=field.momentum.embeddings if field.momentum else None,
    )
    dropped = (0, 0)  # of labels that someone else's clustering made nothing is known
    if common.cluster is own_cluster:
        dropped = count_dropped(
            found.embeddings, labels, core, common.clustering, recipe.background
        )
    return labels, found.embeddings.cpu().numpy() if labels.any() else None, dropped


def _embed(
    common: Common,
    network: Embedder,
    recipe: ModelRecipe,
    source: BlockInput,
    kept: Kept,
    upcoming: int | None,
) -> Embedded:
    """Embeddings of a block's region; a 2D network takes a stack plane by plane."""
    assert source.pixels is not None
    region = _region(common, source.number)
    largest = max(patch.input.size for patch in common.field.patches(region))
    blank = None
    if recipe.background is not None:
        # Normalised intensities: 0 is the mean, so only dark patches can be blank.
        blank = (0.0, np.asarray(recipe.background, np.float32))
    return embed(
        planewise(network) if recipe.net.ndim < len(region.start) else network,
        source.pixels,
        common.field,
        region,
        net=recipe.net,
        device=find_device(common.device),
        batch=max(BATCH_VOXELS // largest, 1),
        blank=blank,
        kept=kept,
        upcoming=None if upcoming is None else _region(common, upcoming),
    )
