"""Sound inputs made unsound: metadata that lie, files that are cut, values that are no numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from inputs import METADATA, Case, Rng, picture, tiff_image, write_metadata, zarr_image

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 1.5, 0.0, -0.5, 1e308, 10**30, 2**63, -(2**63),
    float("nan"), float("inf"), "", "x", "0", "../0", "/etc", "a\nb", "\u0000", "é" * 300,
    [], [[]], [0], ["x", "y"], {}, {"type": "scale"}, {"name": "z"}, "uint16", "<u2", "|O",
]  # fmt: skip


def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree but its root."""
    found = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        found.append((*here, key))
        if isinstance(value, dict | list):
            found += places(value, (*here, key))
    return found


def mutate(rng: Rng, tree: Any) -> str:
    """Change one place of a JSON tree; say which and how."""
    options = places(tree)
    path = options[rng.integers(len(options))]
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key, value = path[-1], parent[path[-1]]
    how = str(rng.choice(["delete", "replace", "replace", "twice", "reverse", "rename", "scale"]))
    if how == "delete":
        del parent[key]
    elif how == "twice" and isinstance(parent, list):
        parent.insert(key, json.loads(json.dumps(value)))
    elif how == "reverse" and isinstance(value, list):
        value.reverse()
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    elif how == "scale" and isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = value * [2, -1, 0.5, 0, 1000][rng.integers(5)]
    else:
        parent[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
        return f"{path} := {parent[key]!r:.40}"
    return f"{how} {path}"


def _spoilt(rng: Rng, path: Path, kind: str, files: Callable[[Path], list[Path]]) -> Case:
    """One to three changes in one of a store's metadata files."""
    case = zarr_image(rng, path, kind)
    chosen = files(path)
    file = chosen[rng.integers(len(chosen))]
    content = json.loads(file.read_text())
    done = [mutate(rng, content) for _ in range(int(rng.integers(1, 4))) if places(content)]
    file.write_text(json.dumps(content))
    case.expected, case.must_work = None, False
    case.note = f"{file.relative_to(path)}: {'; '.join(done)}; was {case.note}"
    return case


def spoilt_group(rng: Rng, path: Path) -> Case:
    """Metadata of the image that lie."""
    return _spoilt(
        rng,
        path,
        "zarr metadata",
        lambda p: [f for f in (p / "zarr.json", p / ".zattrs") if f.exists()],
    )


def spoilt_array(rng: Rng, path: Path) -> Case:
    """Metadata of a level that lie."""
    return _spoilt(
        rng,
        path,
        "zarr array metadata",
        lambda p: [
            f for f in sorted(p.rglob("*")) if f.name in ("zarr.json", ".zarray") and f.parent != p
        ],
    )


def damage(rng: Rng, file: Path) -> str:
    """Cut, empty, flip, delete or lengthen a file."""
    content = bytearray(file.read_bytes())
    how = str(rng.choice(["cut", "empty", "flip", "delete", "longer", "noise"]))
    if how == "cut":
        file.write_bytes(content[: int(rng.integers(0, max(len(content), 1)))])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "delete":
        file.unlink()
    elif how == "longer":
        file.write_bytes(content + b"\0" * 100)
    elif content:
        for _ in range(1 if how == "flip" else 20):
            content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        file.write_bytes(content)
    return f"{how} {file.name}"


def damaged_zarr(rng: Rng, path: Path) -> Case:
    """A store with a broken file: chunk, shard or metadata."""
    case = zarr_image(rng, path, "zarr damage")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    data = [f for f in files if f.name not in METADATA] or files
    chosen = data if rng.random() < 0.8 else files
    file = chosen[rng.integers(len(chosen))]
    case.note = f"{damage(rng, file)} in {file.parent.name}; was {case.note}"
    case.expected, case.must_work = None, False
    return case


def damaged_tiff(rng: Rng, path: Path) -> Case:
    """A TIFF that was cut, emptied or changed."""
    case = tiff_image(rng, path, "tiff damage")
    case.note = f"{damage(rng, case.path)}; was {case.note}"
    case.expected, case.must_work = None, False
    return case


def odd_values(rng: Rng, path: Path) -> Case:
    """NaN, infinity, constants, numbers near the ends of their type."""
    what = str(
        rng.choice(
            ["nan", "inf", "all nan", "constant", "zero", "huge", "tiny", "ends", "complex", "text"]
        )
    )
    data = picture(rng, (30, 33)).astype(float)
    must = True
    if what in ("nan", "inf"):
        data[int(rng.integers(30)), int(rng.integers(33))] = float(what)
        must = False
    elif what == "all nan":
        data[:] = np.nan
        must = False
    elif what in ("constant", "zero"):
        data[:] = 7 if what == "constant" else 0
    elif what == "huge":
        data *= float(rng.choice([1e30, 1e36, 1e200, 1e306]))
        must = False
    elif what == "tiny":
        data *= float(rng.choice([1e-30, 1e-45, 1e-300]))
        must = False
    elif what == "ends":
        kind = str(rng.choice(["i8", "u8", "i4", "u4", "u2", "f4", "f2"]))
        ends = np.iinfo(kind) if kind[0] in "iu" else np.finfo(kind)
        data = np.where(data > 50, ends.max, ends.min).astype(kind)
        must = False
    elif what == "complex":
        data = data + 1j
        must = False
    elif what == "text":
        data = data.astype("S3") if rng.random() < 0.5 else data.astype("m8[s]")
        must = False
    as_tiff = rng.random() < 0.5 and what != "text"
    if as_tiff:
        path = path.with_suffix(".tif")
        tifffile.imwrite(path, data, photometric="minisblack")
    else:
        version = str(rng.choice(["0.4", "0.5"]))
        group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
        group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=(16, 16))[...] = data
        scale = [{"type": "scale", "scale": [1.0, 1.0]}]
        entries = [{"name": a, "type": "space"} for a in "yx"]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        write_metadata(path, {"axes": entries, "datasets": datasets}, version)
    return Case("values", path, "yx", data, must_work=must, note=f"{what} {data.dtype}")


def labels_pair(rng: Rng, path: Path) -> Case:
    """Two label images that may lie about being labels, or fit each other."""
    path.mkdir()
    what = str(
        rng.choice(
            [
                "sound",
                "float",
                "negative",
                "bool",
                "beyond",
                "shape",
                "colour",
                "empty",
                "zarr",
                "wrong axes",
            ]
        )
    )
    shape = (24, 31)
    truth = np.kron(rng.integers(0, 5, (4, 4)), np.ones((8, 8), int))[: shape[0], : shape[1]]
    truth = np.pad(truth, [(0, shape[0] - truth.shape[0]), (0, shape[1] - truth.shape[1])])
    found = np.roll(truth, int(rng.integers(0, 4)), axis=1)
    case = Case("labels", path, note=what, must_work=what in ("sound", "zarr"))
    if what == "float":
        found = found + 0.5 * rng.integers(0, 2)
    elif what == "negative":
        found = found - 3
    elif what == "bool":
        found = found > 2
    elif what == "beyond":
        found = found.astype(np.uint64) * np.uint64(2**62)
    elif what == "shape":
        found = found[:-1] if rng.random() < 0.5 else found[None].repeat(2, axis=0)
    elif what == "colour":
        found = np.stack([found] * 3, axis=-1).astype(np.uint8)
    elif what == "empty":
        truth, found = truth * 0, found * int(rng.integers(0, 2))
        case.must_work = True
    elif what == "wrong axes":
        truth = np.stack([truth, truth + 1])
        found = np.stack([found, found])
    axes = {"photometric": "rgb"} if what == "colour" else {"photometric": "minisblack"}
    if what == "zarr":
        for name, values in (("found", found), ("truth", truth)):
            group = zarr.open_group(path / name, mode="w", zarr_format=3)
            group.create_array("0", shape=values.shape, dtype="u4", chunks=(10, 10))[...] = values
            scale = [{"type": "scale", "scale": [1.0, 1.0]}]
            entries = [{"name": a, "type": "space"} for a in "yx"]
            datasets = [{"path": "0", "coordinateTransformations": scale}]
            content = {"axes": entries, "datasets": datasets}
            block = {"version": "0.5", "image-label": {}, "multiscales": [content]}
            group.attrs["ome"] = block
    else:
        small = found if found.dtype != np.int64 else found.astype(np.int32)
        t_axes = {"axes": "TYX"} if what == "wrong axes" else {}
        tifffile.imwrite(
            path / "found", small, metadata={"axes": "ZYX"} if t_axes else None, **axes
        )
        tifffile.imwrite(
            path / "truth",
            truth.astype(np.uint16),
            metadata=t_axes or None,
            photometric="minisblack",
        )
    case.expected = np.stack([found, truth]) if found.shape == truth.shape else None
    return case
