"""Labels of a volume in blocks against its labels in one block: how many objects differ, and where.

    python -m benchmarks.agreement --model nuclei-confocal-3d --image IMAGE --labels TRUTH \
        --blocks "50,50,50;32,64,64" --methods instance,meanshift [--overlap 17,36,36] [--mirrored]
        [--patches "60,128,128;48,96,96"] [--halos ...]

The embeddings do not depend on blocks, so they are made once for each patch and halo. For every
method the whole is clustered in one piece, and block by block and joined as `segment` does.
``same`` counts objects that both have with an IoU of at least 0.9; the others are told apart by
what happened (cut, joined, lost, gained, outline) and by where the object lies: across a face, in
the slabs around faces, or in the middle. ``same_if_joined_perfectly`` takes the same
labels of blocks and joins what lies in one object of the whole: what is missing there was decided
inside of blocks, the rest by stitching. ``same_if_clustered_perfectly`` cuts the whole's labels
into blocks, and stitches these. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile

from benchmarks.seams import Blocks, by_overlap, connected, shared_voxels
from spoco_zoo.config import ClusteringConfig, SegmentConfig
from spoco_zoo.metrics import Contingency, score
from spoco_zoo.segment.blocks import make_grid
from spoco_zoo.segment.stitch import Rule
from spoco_zoo.values import integers

if TYPE_CHECKING:
    import torch

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.segment.blocks import BlockGrid

SAME, APART = 0.9, 0.1


class Embedded(NamedTuple):
    """A volume as a network sees it."""

    field: torch.Tensor
    recipe: ModelRecipe
    rule: Rule
    overlap: tuple[int, ...]
    truth: np.ndarray


def embedded(options: argparse.Namespace, patch: str | None, halo: str | None) -> Embedded:
    """Embeddings of all of an image under a model, and what is needed to cluster them."""
    from spoco_zoo.bundle.load import load_model
    from spoco_zoo.intensities import normalise
    from spoco_zoo.nets.device import find_device
    from spoco_zoo.segment import dry_run
    from spoco_zoo.segment.embed import embed
    from spoco_zoo.segment.network.inference import made_ready
    from spoco_zoo.segment.normalise import measure_for
    from spoco_zoo.segment.tiling import choose_overlap

    model = load_model(options.model)
    config = SegmentConfig.build(
        patch=integers(patch, "patch"), halo=integers(halo, "halo"), zoom=1.0
    )
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "image.tif")
        image, truth = (tifffile.imread(p) for p in (options.image, options.labels))
        if options.rows:
            first, last = map(int, options.rows.split(":"))
            image, truth = image[..., first:last, :], truth[..., first:last, :]
        if options.mirrored:
            image, truth = (
                np.pad(a, [(0, n) for n in a.shape], "symmetric") for a in (image, truth)
            )
        tifffile.imwrite(path, image)
        plan = dry_run(path, model, config, output=Path(temporary, "agreement.tif"))
        pixels = plan.image.read(
            plan.level, 0, plan.channels, plan.field.needed(plan.region).slices
        )
        pixels = normalise(pixels, measure_for(plan, 0))
        network = made_ready(model.network, find_device("cpu"), config.precision)
        found = embed(network, pixels, plan.field, plan.region, net=plan.recipe.net)
        sizes = plan.image.voxel_size(plan.level) or plan.image.spatial_scale(plan.level)
    overlap = choose_overlap(model.recipe, sizes)
    return Embedded(found.embeddings, model.recipe, plan.rule, overlap, connected(truth))


def in_pieces(of: Embedded, config: ClusteringConfig, grid: BlockGrid) -> list[np.ndarray]:
    """Labels of the outer region of each block."""
    from spoco_zoo.segment.cluster import cluster

    found = []
    for n in range(grid.total):
        part = of.field[(slice(None), *grid.outer(n).slices)].contiguous()
        found.append(cluster(part, config, of.recipe.background, momentum=part))
    return found


def joined_as(blocks: list[np.ndarray], whole: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """Cores of blocks, whose objects are one where they lie in one object of the whole."""
    final, total = np.zeros(grid.shape, np.int64), int(whole.max()) + 1
    for n, labels in enumerate(blocks):
        core, outer = grid.core(n), grid.outer(n)
        a, b, shared, *_ = shared_voxels(labels, whole[outer.slices])
        order = np.argsort(shared * (b > 0), kind="stable")
        owner = np.zeros(int(labels.max()) + 1, np.int64)
        owner[a[order]] = b[order]
        alone = np.flatnonzero(owner == 0)
        owner[alone] = total + np.arange(len(alone))
        total += len(alone)
        owner[0] = 0
        final[core.slices] = owner[labels[core.within(outer)]]
    return final


def places(labels: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """Of each id whether it lies across a face (2), in a slab around one (1), or neither (0)."""
    result = np.zeros(int(labels.max()) + 1, int)
    cores = np.zeros(len(result), int)
    for n in range(grid.total):
        cores[np.unique(labels[grid.core(n).slices])] += 1
        for axis in range(len(grid.shape)):
            if grid.above(n, axis) is not None:
                result[np.unique(labels[grid.slab(n, axis).slices])] = 1
    result[cores > 1] = 2
    return result


def renumbered(labels: np.ndarray) -> np.ndarray:
    """The same objects as 1, 2, 3, ..., in the order of their ids."""
    ids = np.unique(labels[labels > 0])
    return np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)


def differences(found: np.ndarray, whole: np.ndarray, grid: BlockGrid) -> dict[str, Any]:
    """How many objects are in both, and what became of the others."""
    found = renumbered(found)
    a, b, shared, size_a, size_b = shared_voxels(found, whole)
    real = (a > 0) & (b > 0)
    a, b, shared = a[real], b[real], shared[real]
    iou = shared / (size_a[a] + size_b[b] - shared)
    in_a, in_b = shared / size_a[a], shared / size_b[b]
    where_a, where_b = places(found, grid), places(whole, grid)
    words = ("middle", "slab", "face")
    same = iou >= SAME
    kinds: Counter[str] = Counter()
    for one in set(np.flatnonzero(size_b)[1:]) - set(b[same].tolist()):
        mine = b == one
        parts = mine & (in_a > 0.5) & (in_b > APART)
        most = a[mine][np.argmax(shared[mine])] if mine.any() else 0
        others = (a == most) & (in_b > 0.5) & (in_a > APART) & ~mine
        kind = "outline"
        if not mine.any() or in_b[mine].sum() < APART:
            kind = "lost"
        elif parts.sum() > 1:
            kind = "cut"
        elif others.any():
            kind = "joined"
        elif iou[mine].max() < 0.5:
            kind = "other"
        kinds[f"{kind} {words[where_b[one]]}"] += 1
    covered = np.bincount(a, in_a, minlength=len(size_a))
    for one in set(np.flatnonzero(size_a)[1:]) - set(a[same].tolist()):
        if covered[one] < APART:
            kinds[f"gained {words[where_a[one]]}"] += 1
    return {
        "objects": int(np.count_nonzero(size_a)) - 1,
        "same": int(same.sum()),
        **dict(sorted(kinds.items())),
    }


def accuracy(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """AP at three thresholds, and the variation of information."""
    of = score(renumbered(found).astype(np.int32), truth)
    return {
        "ap50": round(of.ap50, 3),
        "ap75": round(of.ap75, 3),
        "voi": round(of.voi_split + of.voi_merge, 3),
    }


def same_in_both(one: np.ndarray, other: np.ndarray) -> int:
    """How many objects are in both."""
    from spoco_zoo.metrics import best_ious

    pairs = Contingency()
    pairs.update(*(renumbered(labels).astype(np.int32) for labels in (one, other)))
    return int((best_ious(pairs) >= SAME).sum())


def compared(of: Embedded, config: ClusteringConfig, options: argparse.Namespace) -> list[Any]:
    """One line for the whole, and one for each size of blocks."""
    shape = tuple(of.field.shape[1:])
    began = time.process_time()
    (whole,) = in_pieces(of, config, make_grid(shape, shape, of.overlap))
    seconds = round(time.process_time() - began, 2)
    lines: list[Any] = [
        {
            "block": shape,
            "objects": int(whole.max()),
            **accuracy(whole, of.truth),
            "seconds": seconds,
        }
    ]
    for text in options.blocks.split(";"):
        block = integers(text, "block")
        assert block is not None
        asked = integers(options.overlap, "overlap") or of.overlap
        overlap = tuple(min(o, max(b // 2, 1)) for o, b in zip(asked, block, strict=True))
        if options.overlap:
            overlap = asked
        grid = make_grid(shape, block, overlap)
        began = time.process_time()
        found = in_pieces(of, config, grid)
        seconds = round(time.process_time() - began, 2)
        cut = [connected(whole[grid.outer(n).slices]) for n in range(grid.total)]
        field = of.field.numpy()
        stitched = by_overlap(Blocks(found, field), grid, of.rule)
        lines.append(
            {
                "block": block,
                "overlap": overlap,
                "blocks": grid.total,
                **accuracy(stitched, of.truth),
                **differences(stitched, whole, grid),
                "same_if_joined_perfectly": same_in_both(joined_as(found, whole, grid), whole),
                "same_if_clustered_perfectly": same_in_both(
                    by_overlap(Blocks(cut, field), grid, of.rule), whole
                ),
                "seconds": seconds,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", required=True, help="TIFF")
    parser.add_argument("--labels", required=True, help="TIFF")
    parser.add_argument("--rows", help="A:B, the part of axis Y that is looked at")
    parser.add_argument("--mirrored", action="store_true", help="twice as long along every axis")
    parser.add_argument("--blocks", required=True)
    parser.add_argument("--overlap")
    parser.add_argument("--methods", default="instance,hdbscan,meanshift,consistency")
    parser.add_argument("--patches", default="")
    parser.add_argument("--halos", default="")
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "agreement", "model": options.model}
    for patch in options.patches.split(";"):
        for halo in options.halos.split(";"):
            of = embedded(options, patch or None, halo or None)
            name = f"patch {patch or 'default'}, halo {halo or 'default'}"
            result.setdefault("true_objects", len(np.unique(of.truth)) - int((of.truth == 0).any()))
            for method in options.methods.split(","):
                asked = ClusteringConfig(method=method)
                lines = compared(of, of.recipe.clustering.overridden(asked), options)
                result.setdefault(name, {})[method] = lines
    print(json.dumps(result))


if __name__ == "__main__":
    main()
