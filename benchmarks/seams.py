"""Stitching against merging by contact, on the same per-block labels.

Every block of a gap-free synthetic tissue is segmented perfectly. What differs is
how blocks are joined: by overlap and embedding as `segment` does, or by contact:
any two labels that touch across a block face become one. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import watershed

from spoco_zoo.segment.blocks import BlockGrid, make_grid, owned_first
from spoco_zoo.segment.relabel import number_objects
from spoco_zoo.segment.stitch import Rule, make_side, match


def tissue(shape: tuple[int, ...], cells: int, seed: int) -> np.ndarray:
    """Connected cells that fill the volume."""
    rng = np.random.default_rng(seed)
    markers = np.zeros(shape, np.int32)
    markers.flat[rng.choice(markers.size, cells, replace=False)] = np.arange(1, cells + 1)
    return watershed(np.zeros(shape, np.uint8), markers)


def connected(ids: np.ndarray) -> np.ndarray:
    """Number the connected parts of every id."""
    out, total = np.zeros(ids.shape, np.int32), 0
    for one, where in enumerate(ndimage.find_objects(ids), 1):
        if where is not None:
            parts, n = ndimage.label(ids[where] == one)
            out[where][parts > 0] = parts[parts > 0] + total
            total += n
    return out


def by_overlap(truth: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """Join blocks as `segment` does."""
    blocks, owned = [], []
    for n in range(grid.total):
        outer = grid.outer(n)
        labels, sizes = owned_first(connected(truth[outer.slices]), grid.core(n).within(outer))
        blocks.append(labels)
        owned.append(len(sizes))
    edges = []
    for n in range(grid.total):
        for axis in range(truth.ndim):
            if (above := grid.above(n, axis)) is None:
                continue
            slab = grid.slab(n, axis)
            code = 4.0 * np.stack([truth[slab.slices] % 64, truth[slab.slices] // 64])
            low, high = (make_side(blocks[m][slab.within(grid.outer(m))], code) for m in (n, above))
            pairs = match(low, high, Rule(0.5, 2.0)).pairs
            ends = np.broadcast_to([[n, above]], pairs.shape)
            edges.append(np.stack([ends, pairs], axis=2).reshape(-1, 4))
    counts = np.array([b.max() for b in blocks])
    numbering = number_objects(counts, np.array(owned), np.concatenate(edges))
    final = np.zeros(truth.shape, np.int64)
    for n, labels in enumerate(blocks):
        core = grid.core(n)
        table = np.concatenate([[0], numbering.ids(*map(int, numbering.base[n : n + 2]))])
        final[core.slices] = table[labels[core.within(grid.outer(n))]]
    return final


def by_contact(truth: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """Join whatever touches across a face."""
    final, total = np.zeros(truth.shape, np.int64), 0
    for n in range(grid.total):
        core = grid.core(n).slices
        labels = connected(truth[core])
        final[core] = labels + total
        total += int(labels.max())
    pairs = []
    for axis, step in enumerate(grid.block):
        layers = np.moveaxis(final, axis, 0)
        for face in range(step, truth.shape[axis], step):
            pairs.append(np.stack([layers[face - 1].ravel(), layers[face].ravel()]))
    a, b = np.unique(np.concatenate(pairs, axis=1), axis=1)
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(total + 1, total + 1))
    return connected_components(graph, directed=False)[1][final]


def compare(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Objects found, objects found exactly, and variation of information in bits."""
    pairs, shared = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1, return_counts=True)
    sizes = dict(zip(*np.unique(found, return_counts=True), strict=True))
    truths = dict(zip(*np.unique(truth, return_counts=True), strict=True))
    size_a = np.array([sizes[p] for p in pairs[0]])
    size_b = np.array([truths[p] for p in pairs[1]])
    share = shared / truth.size
    information = -(share * (np.log2(shared / size_a) + np.log2(shared / size_b))).sum()
    return {
        "objects": len(sizes),
        "exact": int(((shared == size_a) & (shared == size_b)).sum()),
        "variation_of_information": round(float(abs(information)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="512,512")
    parser.add_argument("--block", default="128,128")
    parser.add_argument("--overlap", default="16,16")
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sizes = {
        name: tuple(int(v) for v in getattr(options, name).split(","))
        for name in ("shape", "block", "overlap")
    }
    truth = tissue(sizes["shape"], options.cells, options.seed)
    grid = make_grid(sizes["shape"], sizes["block"], sizes["overlap"])
    result: dict[str, object] = {"cells": options.cells, "blocks": grid.total, **sizes}
    for name, join in {"overlap": by_overlap, "contact": by_contact}.items():
        began = time.perf_counter()
        result[name] = compare(join(truth, grid), truth)
        result[f"{name}_seconds"] = round(time.perf_counter() - began, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
