"""Stores written with bare zarr and json, so that the reader is never tested against our writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

KIND = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def ramp(shape: Sequence[int], dtype: Any = np.uint16) -> np.ndarray:
    """Values that differ from voxel to voxel in every direction."""
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % 60013).astype(dtype)


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., Path]:
    """Write an OME-Zarr image with the given levels; returns its path."""

    def make(
        levels: Sequence[np.ndarray],
        axes: str = "zyx",
        *,
        version: str = "0.5",
        name: str = "image.ome.zarr",
        transforms: Sequence[list[dict[str, Any]]] | None = None,
        outer: list[dict[str, Any]] | None = None,
        channels: Sequence[str] = (),
        shards: tuple[int, ...] | None = None,
        chunks: tuple[int, ...] | None = None,
        compressors: Any = "auto",
        unit: str | None = "micrometer",
    ) -> Path:
        path = tmp_path / name
        group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
        datasets = []
        for i, data in enumerate(levels):
            layout: dict[str, Any] = {"chunks": chunks or data.shape, "compressors": compressors}
            if version == "0.5":
                layout |= {"dimension_names": list(axes), "shards": shards}
            array = group.create_array(str(i), shape=data.shape, dtype=data.dtype, **layout)
            array[...] = data
            scale = [a / b for a, b in zip(levels[0].shape, data.shape, strict=True)]
            default = [{"type": "scale", "scale": scale}]
            transform = transforms[i] if transforms else default
            datasets.append({"path": str(i), "coordinateTransformations": transform})
        axis_list = [{"name": a, "type": KIND[a]} for a in axes]
        if unit:
            axis_list = [{**a, "unit": unit} if a["type"] == "space" else a for a in axis_list]
        multiscale: dict[str, Any] = {"name": "test", "axes": axis_list, "datasets": datasets}
        if outer:
            multiscale["coordinateTransformations"] = outer
        window = {"min": 0, "max": 1, "start": 0, "end": 1}
        block: dict[str, Any] = {"multiscales": [multiscale]}
        if channels:
            block["omero"] = {
                "channels": [{"label": c, "color": "FFFFFF", "window": window} for c in channels]
            }
        if version == "0.5":
            group.attrs["ome"] = {"version": "0.5", **block}
        else:
            multiscale["version"] = "0.4"
            group.attrs.put(block)
        return path

    return make
