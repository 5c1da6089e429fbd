"""An image and its labels in the browser, at any size, without a copy.

neuroglancer's page, which its Python package brings along, fetches the chunks of
an OME-Zarr by itself; this module serves both from one port of this machine. Of a
TIFF, which has no such chunks, neuroglancer's own server cuts them from memory.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from spoco_zoo.errors import ConfigError
from spoco_zoo.scene import is_served

if TYPE_CHECKING:
    from spoco_zoo.ngff import Image
    from spoco_zoo.scene import Coloured, Scene

__all__ = ["ViewServer"]

COLOURS = ("#ffffff", "#ff4fd8", "#35e0ff", "#ffd23f", "#7dff6a", "#ff7a45")
"""Of one channel alone, and of several."""
MOST_CHANNELS = 6
SAMPLE = 2**20
COLOURED = """void main() {
  emitRGB(vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)),
               toNormalized(getDataValue(2))));
}
"""
SHADER = """#uicontrol invlerp normalized
#uicontrol vec3 colour color(default="{colour}")
void main() {{ float v = normalized(); emitRGBA(vec4(colour * v, v)); }}
"""


class ViewServer:
    """A page in the browser, served until closed.

    Parameters
    ----------
    scene : Scene
    host : str
        Address to listen on. Whoever reaches it and knows the page's address sees
        the data: the default is this machine alone.
    port : int
        0 for any free one.

    Raises
    ------
    ConfigError
        If neuroglancer is not installed, or the port is taken.
    """

    def __init__(self, scene: Scene, *, host: str = "127.0.0.1", port: int = 0) -> None:
        if importlib.util.find_spec("neuroglancer") is None:
            raise ConfigError(
                "view needs the package neuroglancer",
                "an installation without it",
                "Install it with `pip install 'spoco-zoo[view]'`.",
            )
        import neuroglancer

        _check_port(host, port)
        neuroglancer.set_server_bind_address(host, port)
        neuroglancer.server.start()
        self._server = neuroglancer.server.global_server
        self._viewer = neuroglancer.Viewer()
        self._roots: list[str] = []
        with self._viewer.txn() as state:
            self._fill(state, scene)

    @property
    def url(self) -> str:
        """Address of the page."""
        return str(self._viewer.get_viewer_url())

    def screenshot(self, width: int = 1000, height: int = 700) -> bytes:
        """PNG of what an open page shows, taken when all its chunks have come.

        Waits until somebody has opened the page.
        """
        return bytes(self._viewer.screenshot(size=[width, height]).screenshot.image)

    def close(self) -> None:
        """Stop serving."""
        import neuroglancer

        neuroglancer.stop()

    def _fill(self, state: Any, scene: Scene) -> None:
        """Layers, scales and layout of the page."""
        import neuroglancer as ng

        first = scene.first
        names = first.spatial[::-1]
        scales = _metres(first.voxel_size(), len(names))[::-1]
        space = ng.CoordinateSpace(names=[*names], units="m", scales=[*scales])
        state.dimensions = space
        if scene.image is not None:
            for channel in range(min(scene.image.n_channels, MOST_CHANNELS)):
                name = scene.image.channel_names[channel]
                title = f"channel {name}" if name.isdecimal() else name
                state.layers.append(name=title, layer=self._channel(scene.image, channel))
        for part in scene.coloured:
            layer = ng.ImageLayer(source=_local_colours(part), shader=COLOURED)
            state.layers.append(name=part.name, layer=layer)
        for label in scene.labels:
            source = self._source(label, labels=True)
            layer = ng.SegmentationLayer(source=source, selected_alpha=0.45)
            layer.hide_segment_zero = True
            state.layers.append(name=f"labels {label.name}".strip(), layer=layer)
        shape = first.spatial_shape()
        state.position = [n / 2 for n in shape[::-1]]
        flat = len(shape) == 2 or shape[0] == 1
        state.layout = "xy" if flat else "4panel"
        state.cross_section_scale = max(shape[-2:]) / (700 if flat else 350)
        state.projection_scale = 1.5 * max(shape)
        # Where an image has nothing to show its layer is transparent.
        state.cross_section_background_color = "#000000"
        # A voxel of unknown size is drawn as one micrometre, which no bar should claim.
        state.show_scale_bar = first.voxel_size() is not None
        state.show_axis_lines = False
        state.show_slices = False

    def _channel(self, image: Image, channel: int) -> Any:
        """A layer of one channel, its contrast between two quantiles of a coarse level."""
        import neuroglancer as ng

        several = image.n_channels > 1
        low, high = _contrast(image, channel)
        layer = ng.ImageLayer(
            source=self._source(image, channel),
            shader=SHADER.format(colour=COLOURS[channel if several else 0]),
            shader_controls={"normalized": {"range": [low, high]}},
            blend="additive",
            opacity=1.0,
        )
        if several and is_served(image):
            layer.local_position = [channel]
        if len(image.spatial) == 3:
            layer.volume_rendering_mode = "max"
        return layer

    def _source(self, image: Image, channel: int = 0, *, labels: bool = False) -> Any:
        """Where the page gets the chunks of an image."""
        import neuroglancer as ng

        if is_served(image):
            scheme = "zarr3" if image.version == "0.5" else "zarr2"
            return f"{scheme}://{self._address(image)}"
        where = [slice(0, n) for n in image.spatial_shape()]
        times = [image.read(0, time, [channel], where)[0] for time in range(image.n_times)]
        values = np.stack(times) if "t" in image.axes else times[0]
        lead = ["t"] if "t" in image.axes else []
        space = ng.CoordinateSpace(
            names=[*lead, *image.spatial],
            units=[*("" for _ in lead), *("m" for _ in image.spatial)],
            scales=[*(1 for _ in lead), *_metres(image.voxel_size(), len(image.spatial))],
        )
        kind = "segmentation" if labels else "image"
        return ng.LocalVolume(_drawable(values), dimensions=space, volume_type=kind)

    def _address(self, image: Image) -> str:
        """Address of a store: its own if it is remote, else below this server."""
        if "://" in image.uri:
            return image.uri
        store = os.path.realpath(image.uri)
        if store not in self._roots:
            self._serve(store, len(self._roots))
            self._roots.append(store)
        # The name is only for the eye; the number says which store it is.
        name = quote(Path(store).name)
        return f"{self._base}/{self._roots.index(store)}/{name}"

    @property
    def _base(self) -> str:
        # The token keeps other users of this machine from guessing the address.
        return f"{self._server.server_url}/data/{self._server.token}"

    def _serve(self, store: str, number: int) -> None:
        """Serve the files of a store, byte ranges included, and nothing beside it."""
        from tornado.web import StaticFileHandler

        pattern = rf"/data/{self._server.token}/{number}/[^/]+/(.*)"
        self._server.app.add_handlers(".*", [(pattern, StaticFileHandler, {"path": store})])


def _check_port(host: str, port: int) -> None:
    """Refuse a port in use with one line, before a server's thread meets it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                "address and port must be free on this machine",
                f"{reason} ({host}:{port})",
                "Choose another --port.",
            ) from error


def _contrast(image: Image, channel: int) -> tuple[float, float]:
    """Quantiles of the middle of the coarsest level that has enough voxels."""
    shapes = [image.spatial_shape(level) for level in range(len(image.levels))]
    level = max([i for i, shape in enumerate(shapes) if prod(shape) >= SAMPLE // 16] or [0])
    edge = max(round(SAMPLE ** (1 / len(shapes[level]))), 1)
    where = [slice((n - min(n, edge)) // 2, (n + min(n, edge)) // 2) for n in shapes[level]]
    values = image.read(level, 0, [channel], where).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (0.5, 99.8)) if values.size else (0, 1)
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1)


def _local_colours(part: Coloured) -> Any:
    """A source of three channels, cut from memory."""
    import neuroglancer as ng

    ndim = part.rgb.ndim - 1
    space = ng.CoordinateSpace(
        names=[*"zyx"[-ndim:], "c^"],
        units=["m"] * ndim + [""],
        scales=[*_metres(part.voxel_size, ndim), 1],
    )
    return ng.LocalVolume(
        part.rgb, dimensions=space, voxel_offset=[*part.start, 0], volume_type="image"
    )


def _drawable(values: np.ndarray) -> np.ndarray:
    """Values in a type that the page can draw."""
    known = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
    return values if values.dtype.name in known else values.astype(np.float32)


def _metres(size: tuple[float, ...] | None, ndim: int) -> tuple[float, ...]:
    """Voxel size in metres from micrometres; one micrometre where it is unknown."""
    return tuple(s * 1e-6 for s in size) if size else (1e-6,) * ndim
