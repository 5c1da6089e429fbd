"""Stitching against merging by contact, on the same per-block labels.

    python -m benchmarks.seams [--shape 512,512 --block 128,128 --overlap 16,16 --cells 300]
    python -m benchmarks.seams --model cells-synthetic-3d --shape 192,192,192 --block 64,64,64
    python -m benchmarks.seams --model RUN --image IMAGE --labels TRUTH --block ... --overlap ...

Without a model every block of a gap-free synthetic tissue is segmented perfectly.
With one, the real embeddings of the image (without one: of tissue as the demo draws
it, of `--shape` and `--seed`) are clustered block by block, and objects that
cross block faces are scored apart from those that cross none, beside the whole
clustered in one piece. What differs is how blocks are joined: by overlap and
embedding as `segment` does, or by contact as patchworks, cellpose and dask-image
do: any two labels that touch across a block face become one. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import watershed

from spoco_zoo.config import SegmentConfig
from spoco_zoo.segment.blocks import BlockGrid, make_grid, owned_first
from spoco_zoo.segment.relabel import number_objects
from spoco_zoo.segment.stitch import Rule, make_side, match
from spoco_zoo.values import integers, region


class Blocks(NamedTuple):
    """Labels of each block's outer region, and the embeddings of the whole (E, [Z,] Y, X)."""

    labels: list[np.ndarray]
    embeddings: np.ndarray
    whole: np.ndarray | None = None


def tissue(shape: tuple[int, ...], cells: int, seed: int) -> np.ndarray:
    """Connected cells that fill the volume."""
    rng = np.random.default_rng(seed)
    markers = np.zeros(shape, np.int32)
    markers.flat[rng.choice(markers.size, cells, replace=False)] = np.arange(1, cells + 1)
    return np.asarray(watershed(np.zeros(shape, np.uint8), markers))


def connected(ids: np.ndarray) -> np.ndarray:
    """Number the connected parts of every id."""
    out, total = np.zeros(ids.shape, np.int32), 0
    for one, where in enumerate(ndimage.find_objects(ids), 1):
        if where is not None:
            parts, n = ndimage.label(ids[where] == one)
            out[where][parts > 0] = parts[parts > 0] + total
            total += n
    return out


def perfect_blocks(truth: np.ndarray, grid: BlockGrid) -> Blocks:
    """The truth in each block, cut into its connected parts, and a code for each object."""
    code = 4.0 * np.stack([truth % 64, truth // 64])
    return Blocks([connected(truth[grid.outer(n).slices]) for n in range(grid.total)], code)


def by_overlap(blocks: Blocks, grid: BlockGrid, rule: Rule) -> np.ndarray:
    """Join blocks as `segment` does."""
    locals_, owned = [], []
    for n, found in enumerate(blocks.labels):
        labels, sizes = owned_first(found, grid.core(n).within(grid.outer(n)))
        locals_.append(labels)
        owned.append(len(sizes))
    edges = [np.empty((0, 4), np.int64)]
    for n in range(grid.total):
        for axis in range(len(grid.shape)):
            if (above := grid.above(n, axis)) is None:
                continue
            slab = grid.slab(n, axis)
            code = blocks.embeddings[(slice(None), *slab.slices)]
            low, high = (
                make_side(locals_[m][slab.within(grid.outer(m))], code) for m in (n, above)
            )
            face = grid.core(n).stop[axis] - slab.start[axis]
            pairs = match(low, high, rule, (axis, face)).pairs
            ends = np.broadcast_to([[n, above]], pairs.shape)
            edges.append(np.stack([ends, pairs], axis=2).reshape(-1, 4))
    counts = np.array([labels.max() for labels in locals_], np.int64)
    numbering = number_objects(counts, np.array(owned), np.concatenate(edges))
    final = np.zeros(grid.shape, np.int64)
    for n, labels in enumerate(locals_):
        core = grid.core(n)
        table = np.concatenate([[0], numbering.ids(*map(int, numbering.base[n : n + 2]))])
        final[core.slices] = table[labels[core.within(grid.outer(n))]]
    return final


def by_contact(blocks: Blocks, grid: BlockGrid, rule: Rule) -> np.ndarray:
    """Join whatever touches across a face."""
    final, total = np.zeros(grid.shape, np.int64), 0
    for n, found in enumerate(blocks.labels):
        core = grid.core(n)
        labels = connected(found[core.within(grid.outer(n))])
        final[core.slices] = np.where(labels > 0, labels + total, 0)
        total += int(labels.max())
    pairs = []
    for axis, step in enumerate(grid.block):
        layers = np.moveaxis(final, axis, 0)
        for face in range(step, grid.shape[axis], step):
            pairs.append(np.stack([layers[face - 1].ravel(), layers[face].ravel()]))
    a, b = np.unique(np.concatenate(pairs, axis=1), axis=1)
    a, b = a[(a > 0) & (b > 0)], b[(a > 0) & (b > 0)]
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(total + 1, total + 1))
    return np.asarray(connected_components(graph, directed=False)[1][final])


def shared_voxels(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pairs of ids that share voxels (a, b), how many, and the voxels of every id."""
    width = int(truth.max()) + 1
    codes, shared = np.unique(found.ravel() * np.int64(width) + truth.ravel(), return_counts=True)
    sizes = (np.bincount(ids.ravel()) for ids in (found, truth))
    return codes // width, codes % width, shared, *sizes


def compare(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Objects found, objects found exactly, and variation of information in bits."""
    a, b, shared, sizes_a, sizes_b = shared_voxels(found, truth)
    size_a, size_b, share = sizes_a[a], sizes_b[b], shared / truth.size
    information = -(share * (np.log2(shared / size_a) + np.log2(shared / size_b))).sum()
    return {
        "objects": int(np.count_nonzero(sizes_a)),
        "exact": int(((shared == size_a) & (shared == size_b)).sum()),
        "variation_of_information": round(float(abs(information)), 4),
    }


def draw_tissue(options: argparse.Namespace, folder: Path) -> None:
    """Draw the inside of an endless tissue, as the demo's training images are, to TIFFs."""
    import tifffile

    from spoco_zoo.demo.story import DIAMETER
    from spoco_zoo.demo.synth import Tissue, draw

    shape = integers(options.shape, "shape")
    assert shape is not None
    around = DIAMETER[len(shape)]
    margin = round(2 * around)
    tissue = Tissue(tuple(n + 2 * margin for n in shape), options.seed, diameter=around)
    drawn = draw(tissue, tuple(slice(margin, margin + n) for n in shape))
    for name, values in zip(("image", "labels"), drawn, strict=True):
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, values)
        setattr(options, name, str(path))


def real_blocks(options: argparse.Namespace) -> tuple[np.ndarray, BlockGrid, Blocks, Rule]:
    """Truth, grid and per-block labels of an image under a model, and the rule to join them.

    The embedding field does not depend on blocks, so it is made once and cut.
    """
    import torch

    from spoco_zoo import ngff
    from spoco_zoo.bundle.load import load_model
    from spoco_zoo.intensities import normalise
    from spoco_zoo.nets.device import find_device
    from spoco_zoo.segment import dry_run
    from spoco_zoo.segment.cluster import cluster
    from spoco_zoo.segment.embed import embed
    from spoco_zoo.segment.network.inference import made_ready
    from spoco_zoo.segment.normalise import measure_for

    model = load_model(options.model)
    roi = region(options.roi)
    config = SegmentConfig.build(
        block=integers(options.block, "block"),
        overlap=integers(options.overlap, "overlap"),
        roi=roi,
    )
    plan = dry_run(options.image, model, config, output=Path(tempfile.gettempdir(), "seams.zarr"))
    device = find_device("auto")
    needed = plan.field.needed(plan.region)
    pixels = plan.image.read(plan.level, 0, plan.channels, needed.slices)
    pixels = normalise(pixels, measure_for(plan, 0))
    network = made_ready(model.network, device, config.precision)
    recipe = plan.recipe
    field = embed(
        network, pixels, plan.field, plan.region, net=recipe.net, device=device
    ).embeddings.cpu()
    labels = ngff.open_image(options.labels)
    truth = connected(labels.read(0, 0, None, plan.region.slices)[0].astype(np.int32))

    def clustered(where: tuple[slice, ...]) -> np.ndarray:
        part = field[(slice(None), *where)].contiguous()
        return cluster(part, plan.clustering, recipe.background, momentum=part)

    with torch.inference_mode():
        found = [clustered(plan.grid.outer(n).slices) for n in range(plan.grid.total)]
        whole = clustered(tuple(slice(0, n) for n in plan.grid.shape))
    blocks = Blocks(found, field.numpy(), whole)
    return truth, plan.grid, blocks, Rule(config.stitch_iou, recipe.delta_dist)


KINDS = {"crossing": 1, "inner": 0, "cut": 2}
"""Objects that lie in several block cores, in one, and those that the volume's end cuts."""


def kinds_of(labels: np.ndarray, grid: BlockGrid, count: int) -> np.ndarray:
    """The kind of each of the ids 0..count-1, int (count,)."""
    seen = np.zeros(count, np.int64)
    for n in range(grid.total):
        seen[np.unique(labels[grid.core(n).slices])] += 1
    kinds = (seen > 1).astype(np.int64)
    for axis in range(labels.ndim):
        kinds[np.unique(np.moveaxis(labels, axis, 0)[[0, -1]])] = KINDS["cut"]
    return kinds


def near_faces(grid: BlockGrid, reach: int = 16) -> np.ndarray:
    """Voxels within `reach` of a block face."""
    mask = np.zeros(grid.shape, bool)
    for axis, step in enumerate(grid.block):
        for face in range(step, grid.shape[axis], step):
            np.moveaxis(mask, axis, 0)[max(face - reach, 0) : face + reach] = True
    return mask


def scores(found: np.ndarray, truth: np.ndarray, grid: BlockGrid) -> dict[str, float]:
    """AP@0.5 and recall of objects that cross block faces and of others; VI near the faces.

    True objects are told apart by where they lie. A found one belongs to the true one
    that it shares most voxels with, so that the halves of an object that was not joined
    count as errors of one that crosses, though neither of them does.
    """
    _, found = np.unique(found, return_inverse=True)
    found = found.reshape(truth.shape)
    a, b, shared, size_a, size_b = shared_voxels(found, truth)
    real = (a > 0) & (b > 0)
    # Above one half an object has one partner at most.
    hit = real & (shared / (size_a[a] + size_b[b] - shared) > 0.5)
    kind_a, kind_b = (kinds_of(ids, grid, int(ids.max()) + 1) for ids in (found, truth))
    order = np.flatnonzero(real)[np.argsort(shared[real], kind="stable")]
    kind_a[a[order]] = kind_b[b[order]]  # the largest share is written last
    result: dict[str, float] = {"objects": len(size_a) - 1}
    for name, kind in KINDS.items():
        truths = int(((kind_b == kind) & (size_b > 0))[1:].sum())
        founds = int((kind_a == kind)[1:].sum())
        true = int((kind_b[b[hit]] == kind).sum())
        result[f"ap50_{name}"] = round(true / max(truths + founds - true, 1), 4)
        result[f"recall50_{name}"] = round(true / max(truths, 1), 4)
        result[f"found_{name}"], result[f"true_{name}"] = founds, truths
    close = near_faces(grid)
    result["variation_of_information_near_faces"] = compare(found[close], truth[close])[
        "variation_of_information"
    ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="512,512")
    parser.add_argument("--block", help="without a model 128,128")
    parser.add_argument("--overlap", help="without a model 16,16")
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="run, bundle or id: real embeddings")
    parser.add_argument("--image")
    parser.add_argument("--labels")
    parser.add_argument("--roi")
    options = parser.parse_args()
    if options.model:
        with tempfile.TemporaryDirectory() as temporary:
            if options.image is None:
                draw_tissue(options, Path(temporary))
            truth, grid, blocks, rule = real_blocks(options)
    else:
        shape = integers(options.shape, "shape")
        block = integers(options.block or "128,128", "block")
        overlap = integers(options.overlap or "16,16", "overlap")
        assert shape is not None
        assert block is not None
        assert overlap is not None
        truth = tissue(shape, options.cells, options.seed)
        grid, rule = make_grid(shape, block, overlap), Rule(0.5, 2.0)
        blocks = perfect_blocks(truth, grid)
    judge = scores if options.model else lambda found, truth, grid: compare(found, truth)
    result: dict[str, object] = {
        "benchmark": "seams",
        "embeddings": "real" if options.model else "planted",
        "shape": grid.shape,
        "block": grid.block,
        "block_overlap": grid.overlap,
        "blocks": grid.total,
        "true_objects": len(np.unique(truth[truth > 0])),
    }
    if blocks.whole is not None:
        result["one_block"] = judge(blocks.whole, truth, grid)
    for name, join in {"overlap": by_overlap, "contact": by_contact}.items():
        began = time.perf_counter()
        result[name] = judge(join(blocks, grid, rule), truth, grid)
        result[f"{name}_seconds"] = round(time.perf_counter() - began, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
