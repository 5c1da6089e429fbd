"""Images and labels of every kind that users have, each with what a reader must find in it.

Everything is written with bare zarr, tifffile and json, never with this package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

Rng = np.random.Generator

KIND = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SHAPES = {
    "yx": [(37, 45), (300, 20), (1, 40), (40, 1), (1, 1), (64, 64)],
    "zyx": [(9, 21, 23), (1, 30, 31), (8, 1, 20), (5, 16, 16)],
}
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "b1"]


@dataclass
class Case:
    """One input: where it lies, what it holds, and whether it must be accepted."""

    kind: str
    path: Path
    axes: str = "yx"
    expected: np.ndarray | None = None
    """Values of the finest level in the order of `axes`; None to read them independently."""
    must_work: bool = True
    note: str = ""
    options: list[str] = field(default_factory=list)


def picture(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Noise with a few bright boxes, whole numbers 0..120, so that every type can hold it."""
    image = rng.integers(0, 20, shape)
    for _ in range(4):
        corner = [int(rng.integers(0, n)) for n in shape]
        image[tuple(slice(c, c + max(n // 4, 2)) for c, n in zip(corner, shape, strict=True))] += 80
    return np.minimum(image, 120)


def axes_and_values(rng: Rng, *, channels: bool = True) -> tuple[str, np.ndarray]:
    """Axes and values of an image of one channel, at times with t and c of length 1 or t of 2."""
    space = "yx" if rng.random() < 0.6 else "zyx"
    shape = SHAPES[space][rng.integers(len(SHAPES[space]))]
    lead = str(rng.choice(["", "", "", "c", "t", "tc"])) if channels else ""
    sizes = tuple(int(rng.integers(1, 3)) if axis == "t" else 1 for axis in lead)
    return lead + space, picture(rng, (*sizes, *shape))


# --- OME-Zarr


def zarr_image(rng: Rng, path: Path, kind: str = "zarr layout") -> Case:
    """A valid OME-Zarr 0.4 or 0.5 of a random layout."""
    axes, values = axes_and_values(rng)
    dtype = str(rng.choice(DTYPES))
    data = (values > 50) if dtype == "b1" else values.astype(dtype)
    version = str(rng.choice(["0.4", "0.5"]))
    levels, scales = pyramid(rng, data, axes)
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    layout = random_layout(rng, data, version)
    note = f"{version} {axes} {data.shape} {dtype} {layout['note']}"
    for i, level in enumerate(levels):
        array = create(group, str(i), level, layout, axes)
        array[...] = level
        if layout["holes"] and i == 0:
            data = punch(rng, path / "0", data, array)
    write_metadata(path, multiscale(axes, scales, rng), version)
    if rng.random() < 0.15 and version == "0.4":
        zarr.consolidate_metadata(path)
    finite = bool(np.isfinite(data.astype(float)).all())
    return Case(kind, path, axes, data, must_work=finite, note=note)


def pyramid(rng: Rng, data: np.ndarray, axes: str) -> tuple[list[np.ndarray], list[list[float]]]:
    """Levels of whole or broken ratios, as different programs write them."""
    base = [0.5 if axis in "zyx" else 1.0 for axis in axes]
    levels, scales = [data], [base]
    for _ in range(int(rng.integers(0, 3))):
        ratio = float(rng.choice([2, 2, 3, 1.5, 4]))
        fine = levels[-1]
        shape = [
            max(1, int(rng.choice([np.floor, np.ceil, np.round])(n / ratio))) if a in "yx" else n
            for n, a in zip(fine.shape, axes, strict=True)
        ]
        if tuple(shape) == fine.shape:
            break
        picks = [
            np.minimum((np.arange(m) * n) // m, n - 1)
            for m, n in zip(shape, fine.shape, strict=True)
        ]
        levels.append(fine[np.ix_(*picks)])
        stated = rng.random() < 0.5
        scales.append(
            [
                s * (ratio if stated and a in "yx" else n / m)
                for s, a, n, m in zip(scales[-1], axes, fine.shape, shape, strict=True)
            ]
        )
    return levels, scales


def random_layout(rng: Rng, data: np.ndarray, version: str) -> dict[str, Any]:
    """Chunks, shards, byte order, codecs, fill value; `holes` if chunks may be left out."""
    chunk = tuple(
        int(rng.integers(1, n + 3)) if n < 64 else int(rng.integers(7, 40)) for n in data.shape
    )
    chunk = tuple(max(c, n // 12, 1) for c, n in zip(chunk, data.shape, strict=True))
    shard = tuple(c * int(rng.integers(1, 4)) for c in chunk) if rng.random() < 0.4 else None
    fills: list[Any] = [0, 0, 1, None]
    if data.dtype.kind == "f":
        fills += [float("nan"), float("inf"), 0.5]
    fill = fills[rng.integers(len(fills))]
    endian = str(rng.choice(["little", "big"]))
    codec = int(rng.integers(4))
    separator = str(rng.choice(["/", "."]))
    order = str(rng.choice(["C", "F"]))
    return {
        "chunk": chunk,
        "shard": shard if version == "0.5" else None,
        "fill": fill,
        "endian": endian,
        "codec": codec,
        "separator": separator,
        "order": order,
        "holes": rng.random() < 0.3,
        "note": f"{chunk} {shard} fill {fill} {endian} codec {codec} {separator}{order}",
    }


def create(group: Any, name: str, data: np.ndarray, layout: dict[str, Any], axes: str) -> Any:
    """An array of a layout, for either Zarr format."""
    fill = layout["fill"]
    if group.metadata.zarr_format == 3:
        if data.dtype.kind == "b" and fill is not None:
            fill = bool(fill)
        serializer = "auto" if data.itemsize == 1 else BytesCodec(endian=layout["endian"])
        codecs = [None, ZstdCodec(checksum=True), GzipCodec(), BloscCodec()]
        return group.create_array(
            name, shape=data.shape, dtype=data.dtype, chunks=layout["chunk"],
            shards=layout["shard"], fill_value=fill, serializer=serializer,
            compressors=codecs[layout["codec"]], dimension_names=list(axes),
        )  # fmt: skip
    order = ">" if layout["endian"] == "big" and data.itemsize > 1 else "<"
    codecs2 = [
        None,
        {"id": "zstd", "level": 1},
        {"id": "gzip", "level": 1},
        {"id": "zlib", "level": 1},
    ]
    return group.create_array(
        name, shape=data.shape, dtype=data.dtype.newbyteorder(order), chunks=layout["chunk"],
        fill_value=fill, compressors=codecs2[layout["codec"]], order=layout["order"],
        chunk_key_encoding={"name": "v2", "separator": layout["separator"]},
    )  # fmt: skip


def punch(rng: Rng, folder: Path, data: np.ndarray, array: Any) -> np.ndarray:
    """Delete a chunk file, which by the specification then reads as the fill value."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in METADATA)
    if files:
        files[rng.integers(len(files))].unlink()
    return np.asarray(zarr.open_array(folder, mode="r")[...]).astype(data.dtype)


METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}


def multiscale(axes: str, scales: list[list[float]], rng: Rng) -> dict[str, Any]:
    """Metadata of a multiscale, with or without what is optional."""
    entries = [{"name": a, "type": KIND[a]} for a in axes]
    if rng.random() < 0.5:
        entries = [{**e, "unit": "micrometer"} if e["type"] == "space" else e for e in entries]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for i, scale in enumerate(scales)
    ]
    if rng.random() < 0.4:
        for entry in datasets:
            shift = {"type": "translation", "translation": [0.25] * len(axes)}
            entry["coordinateTransformations"].append(shift)  # type: ignore[attr-defined]
    found: dict[str, Any] = {"axes": entries, "datasets": datasets}
    if rng.random() < 0.7:
        found["name"] = "image"
    return found


def write_metadata(path: Path, content: dict[str, Any], version: str) -> None:
    """Put a multiscale where its version keeps it."""
    group = zarr.open_group(path, mode="r+")
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [content]}
    else:
        group.attrs.put({"multiscales": [{"version": "0.4", **content}]})


def old_or_new_zarr(rng: Rng, path: Path) -> Case:
    """Versions that are not read: 0.1 to 0.3, and what 0.6 may become."""
    case = zarr_image(rng, path, "zarr versions")
    case.must_work = False
    three = (path / "zarr.json").exists()
    file = path / ("zarr.json" if three else ".zattrs")
    content = json.loads(file.read_text())
    block = content["attributes"]["ome"] if three else content
    first = block["multiscales"][0]
    version = str(rng.choice(["0.1", "0.2", "0.3", "0.6", "0.6rc1", "1.0", "", "null"]))
    case.note = f"version {version}, was {case.note}"
    target = block if three else first
    if version == "null":
        target.pop("version", None)
        # A 0.4 image may leave its version out: it is told by its axes.
        case.must_work = False
    else:
        target["version"] = version
    if version in ("0.1", "0.2"):
        first.pop("axes")
    elif version == "0.3":
        first["axes"] = list(case.axes)
    elif version == "0.6":
        first["coordinateSystems"] = [{"name": "physical", "axes": first.pop("axes")}]
    file.write_text(json.dumps(content))
    return case


# --- TIFF

TIFF_AXES = {
    "yx": ["YX"],
    "zyx": ["ZYX", "QYX"],
    "cyx": ["CYX"],
    "tyx": ["TYX"],
    "czyx": ["CZYX", "ZCYX"],
    "tczyx": ["TCZYX", "TZCYX"],
    "tzyx": ["TZYX"],
    "tcyx": ["TCYX"],
}


def tiff_image(rng: Rng, path: Path, kind: str = "tiff layout") -> Case:
    """A valid TIFF of a random make."""
    axes, values = axes_and_values(rng)
    make = str(rng.choice(["plain", "ome", "imagej", "big", "rgb", "pyramid"]))
    dtypes = ["u1", "u2", "f4"] if make == "imagej" else DTYPES
    dtype = str(rng.choice(["u1", "u2"] if make == "rgb" else dtypes))
    data = (values > 50) if dtype == "b1" else values.astype(dtype)
    options: dict[str, Any] = {}
    if make != "imagej":
        options["compression"] = [None, "zlib", "lzw", "zstd", "packbits"][rng.integers(5)]
        if rng.random() < 0.4:
            options["byteorder"] = ">"
        if rng.random() < 0.3 and min(data.shape[-2:]) >= 16:
            options["tile"] = (16, 16)
        elif rng.random() < 0.4:
            options["rowsperstrip"] = int(rng.integers(1, data.shape[-2] + 1))
    case = Case(kind, path.with_suffix(".tif"), axes, data)
    case.note = f"{make} {axes} {data.shape} {dtype} {options}"
    stored = str(rng.choice(TIFF_AXES[axes]))
    if make == "rgb":
        return rgb_tiff(case, data, axes, options)
    if make in ("plain", "big", "imagej") and data.ndim > 3 and make != "imagej":
        make = "ome"
    order = [axes.index(a.lower()) for a in stored.replace("Q", "Z")]
    arranged = data.transpose(order)
    options |= {"photometric": "minisblack", "metadata": {"axes": stored}}
    if make == "imagej":
        # ImageJ stores all five axes, and its reader drops those of length 1.
        options |= {"imagej": True, "metadata": {"axes": stored.replace("Q", "Z")}}
        arranged, options["metadata"]["axes"] = imagej_order(data, axes)
    elif make == "ome" or (make == "pyramid" and data.ndim > 2):
        # OME-TIFF knows no such types, and its writer refuses them.
        options["ome"] = dtype not in ("f2", "i8", "u8", "b1")
    if dtype == "b1":
        options.pop("compression", None)
        options.pop("rowsperstrip", None)
        options.pop("tile", None)
    if (
        make == "pyramid"
        and data.ndim == 2
        and min(data.shape) > 1
        and dtype[0] == "u"
        and dtype != "u8"
    ):
        with tifffile.TiffWriter(
            case.path, ome=True, byteorder=options.pop("byteorder", None)
        ) as f:
            f.write(arranged, subifds=1, **options)
            options.pop("metadata")
            f.write(np.ascontiguousarray(arranged[::2, ::2]), subfiletype=1, **options)
    else:
        tifffile.imwrite(case.path, arranged, bigtiff=make == "big", **options)
    return as_found(case, data)


def imagej_order(data: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """The data with the axes in ImageJ's order TZCYX."""
    order = [a for a in "tzcyx" if a in axes]
    return data.transpose([axes.index(a) for a in order]), "".join(order).upper()


def rgb_tiff(case: Case, data: np.ndarray, axes: str, options: dict[str, Any]) -> Case:
    """A colour picture: three channels, which the model of one channel must refuse."""
    plane = data.reshape(-1, *data.shape[-2:])[0]
    colour = np.stack([plane, plane[::-1], plane[:, ::-1]], axis=-1)
    tifffile.imwrite(case.path, colour, photometric="rgb", **options)
    case.axes, case.expected = "cyx", np.moveaxis(colour, -1, 0)
    return case


def as_found(case: Case, data: np.ndarray) -> Case:
    """A TIFF does not always keep axes of length 1: compare without them."""
    keep = [i for i, a in enumerate(case.axes) if a in "yx" or data.shape[i] > 1]
    case.axes = "".join(case.axes[i] for i in keep)
    case.expected = data.reshape([data.shape[i] for i in keep])
    return case
