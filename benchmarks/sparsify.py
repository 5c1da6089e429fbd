"""Sparse annotation made from a dense one, for experiments.

Keeps a random share of all objects of the training images, takes away the others (0, not
annotated), and paints strokes of known background as a user would: slowly turning lines that
stay clear of every object. Images that a split file lists under ``val`` or ``test`` stay dense:
all of their objects are kept, and all of their background is known. Example::

    python -m benchmarks.sparsify LABELS SPARSE --ratio 0.1 --strokes 0.03 --seed 0 \\
        --split benchmarks/splits/dsb2018-fluo.json --images IMAGES
    spoco-zoo train --annotation sparse --background-label 65535 --out RUN \\
        --images SPARSE/images-train --labels SPARSE \\
        --val-images SPARSE/images-val --val-labels SPARSE

Prints one JSON line. Needs dense labels: a voxel of value 0 is background.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tifffile

from spoco_zoo.naming import SUFFIXES
from spoco_zoo.train.files import read_array

TURN = 0.15  # standard deviation of the change of direction per voxel, radians
LENGTH = 120  # longest stroke, voxels
RADIUS = 1.5  # half of a stroke's width, voxels


def choose_objects(counts: list[int], ratio: float, seed: int) -> list[np.ndarray]:
    """Positions (0-based) of the kept objects of each image, a share `ratio` of all of them."""
    owner = np.repeat(np.arange(len(counts)), counts)
    position = np.concatenate([np.arange(n) for n in counts])
    order = np.random.default_rng([seed, 17]).permutation(len(owner))
    chosen = order[: max(1, round(ratio * len(owner)))]
    return [np.sort(position[chosen[owner[chosen] == i]]) for i in range(len(counts))]


def paint_strokes(background: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Strokes over about `share` of a background.

    Parameters
    ----------
    background : ndarray
        bool ([Z,] Y, X); in 3D strokes lie in planes of constant z.
    share : float
        Of the background's voxels.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        bool, of the same shape, within the background.
    """
    painted = np.zeros_like(background)
    places = np.argwhere(background)
    budget = round(share * len(places))
    reach = int(RADIUS)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = dy**2 + dx**2 <= RADIUS**2
    while budget > 0:
        start = places[rng.integers(len(places))]
        plane, ink = background[tuple(start[:-2])], painted[tuple(start[:-2])]
        point, angle = start[-2:].astype(float), rng.uniform(0, 2 * np.pi)
        for _ in range(LENGTH):
            y, x = np.round(point).astype(int)
            inside = 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]
            if budget <= 0 or not inside or not plane[y, x]:
                break
            rows, columns = (y + dy)[disk], (x + dx)[disk]
            fits = (rows >= 0) & (columns >= 0)
            fits &= (rows < plane.shape[0]) & (columns < plane.shape[1])
            rows, columns = rows[fits], columns[fits]
            fresh = plane[rows, columns] & ~ink[rows, columns]
            ink[rows[fresh], columns[fresh]] = True
            budget -= int(fresh.sum())
            angle += rng.normal(0, TURN)
            point += np.sin(angle), np.cos(angle)
    return painted


def sparsify(labels: np.ndarray, keep: np.ndarray, strokes: np.ndarray, value: int) -> np.ndarray:
    """Labels with the objects at positions `keep` (of the sorted ids), and background strokes."""
    ids = np.unique(labels[labels > 0])
    sparse = np.where(np.isin(labels, ids[keep]), labels, 0)
    sparse[strokes] = value
    return sparse


def write_all(options: argparse.Namespace) -> dict[str, object]:
    """Write every label file of a folder, and return what was done."""
    files = sorted(p for p in options.labels.iterdir() if p.suffix.lower() in SUFFIXES)
    split = json.loads(options.split.read_text()) if options.split else {}
    if options.out.exists():
        raise SystemExit(f"sparsify: {options.out} is there already; choose another folder")
    held = {name: part for part in ("val", "test") for name in split.get(part, ())}
    arrays = [read_array(path, labels=True) for path in files]
    names = [path.name.split(".")[0] for path in files]
    counts = [
        len(np.unique(a[a > 0])) if n not in held else 0 for a, n in zip(arrays, names, strict=True)
    ]
    if any(bool((a == options.background_label).any()) for a in arrays):
        raise SystemExit("sparsify: an object has the background's value; pass another one")
    kept = choose_objects(counts, options.ratio, options.seed)
    options.out.mkdir(parents=True)
    background = painted = 0
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        clear = array == 0
        if name in held:
            result = np.where(clear, options.background_label, array)
        else:
            rng = np.random.default_rng([options.seed, 18, i])
            strokes = paint_strokes(clear, options.strokes, rng)
            result = sparsify(array.astype(np.int64), kept[i], strokes, options.background_label)
            background, painted = background + int(clear.sum()), painted + int(strokes.sum())
        dtype = np.uint16 if result.max() < 2**16 else np.uint32
        tifffile.imwrite(options.out / f"{name}.tif", result.astype(dtype), compression="zlib")
    if options.images:
        link_images(options.images, options.out, {n: held.get(n, "train") for n in names})
    return {
        "images": len(files),
        "dense": len(held),
        "objects": sum(counts),
        "kept": sum(len(k) for k in kept),
        "background_known": round(painted / max(background, 1), 4),
    }


def link_images(images: Path, out: Path, parts: dict[str, str]) -> None:
    """One folder of links per part, so that each can be given to ``train`` alone."""
    for path in sorted(images.iterdir()):
        part = parts.get(path.name.split(".")[0])
        if part is not None and path.suffix.lower() in SUFFIXES:
            folder = out / f"images-{part}"
            folder.mkdir(exist_ok=True)
            (folder / path.name).symlink_to(path.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path, metavar="IN_LABELS", help="folder of dense labels")
    parser.add_argument("out", type=Path, metavar="OUT_LABELS", help="new folder")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of objects to keep")
    parser.add_argument("--strokes", type=float, default=0.03, help="share of the background")
    parser.add_argument("--background-label", type=int, default=65535)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=Path, help="JSON: lists of names train, val and test")
    parser.add_argument("--images", type=Path, help="folder of images to link, by part")
    print(json.dumps(write_all(parser.parse_args())))


if __name__ == "__main__":
    main()
