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
from spoco_zoo.ngff.metadata import SPATIAL
from spoco_zoo.scene import MOST_CHANNELS, frame_of, is_served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.ngff import Image
    from spoco_zoo.scene import Frame, Scene

__all__ = ["ViewServer"]

COLOURS = ("#ffffff", "#ff4fd8", "#35e0ff", "#ffd23f", "#7dff6a", "#ff7a45")
"""Of one channel alone, and of several."""
SAMPLE = 2**20
"""Values from which the contrast follows."""
MOST_TIMES = 8
"""That are looked at for it."""
METRES = 1e-6
"""In a micrometre."""
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
        frame = scene.frame(first)
        names = first.spatial[::-1]
        scales = [size * METRES for size in frame.size[::-1]]
        state.dimensions = ng.CoordinateSpace(names=[*names], units="m", scales=scales)
        if scene.image is not None:
            for channel in range(min(scene.image.n_channels, MOST_CHANNELS)):
                name = scene.image.channel_names[channel]
                title = f"channel {name}" if name.isdecimal() else name
                state.layers.append(name=title, layer=self._channel(scene.image, channel, frame))
        for part in scene.coloured:
            axes = (*"zyx"[-len(part.frame.size) :], "c^")
            source = _placed(_local(part.rgb, axes, part.frame), axes, part.frame)
            layer = ng.ImageLayer(source=source, shader=COLOURED)
            state.layers.append(name=part.name, layer=layer)
        for label in scene.labels:
            source = self._source(label, scene.frame(label), labels=True)
            layer = ng.SegmentationLayer(source=source, selected_alpha=0.45)
            layer.hide_segment_zero = True
            # Names inside of metadata are copied along with stores.
            state.layers.append(name=f"labels {os.path.basename(label.uri)}", layer=layer)
        shape = first.spatial_shape()
        middle = zip(shape, frame.origin, frame.size, strict=True)
        state.position = [n / 2 + at / size for n, at, size in middle][::-1]
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

    def _channel(self, image: Image, channel: int, frame: Frame) -> Any:
        """A layer of one channel, its contrast between two quantiles of a coarse level."""
        import neuroglancer as ng

        several = image.n_channels > 1
        low, high = _contrast(image, channel)
        layer = ng.ImageLayer(
            source=self._source(image, frame, channel),
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

    def _source(self, image: Image, frame: Frame, channel: int = 0, *, labels: bool = False) -> Any:
        """Where the page gets the chunks of an image, and where they lie."""
        if is_served(image):
            scheme = "zarr3" if image.version == "0.5" else "zarr2"
            # The page calls an axis of its layer alone so.
            axes = tuple("c'" if axis == "c" else axis for axis in image.axes)
            own = frame_of(image)
            return _placed(f"{scheme}://{self._address(image)}", axes, frame, own)
        where = [slice(0, n) for n in image.spatial_shape()]
        times = [image.read(0, time, [channel], where)[0] for time in range(image.n_times)]
        values = np.stack(times) if "t" in image.axes else times[0]
        axes = (*(["t"] if "t" in image.axes else []), *image.spatial)
        return _placed(_local(_drawable(values, labels), axes, frame, labels), axes, frame)

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
    """Quantiles of the middle of the coarsest level that has enough voxels.

    Of the time at which the page opens; where all is alike there, of the next ones.
    """
    shapes = [image.spatial_shape(level) for level in range(len(image.levels))]
    level = max([i for i, shape in enumerate(shapes) if prod(shape) >= SAMPLE // 16] or [0])
    edge = max(round(SAMPLE ** (1 / len(shapes[level]))), 1)
    where = [slice((n - min(n, edge)) // 2, (n + min(n, edge)) // 2) for n in shapes[level]]
    middle = image.n_times // 2
    low = high = 0.0
    for time in sorted(range(image.n_times), key=lambda time: abs(time - middle))[:MOST_TIMES]:
        values = image.read(level, time, [channel], where).astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = map(float, np.percentile(values, (0.5, 99.8)))
        if high > low:
            return low, high
    return low, low + 1


def _space(axes: Sequence[str], frame: Frame) -> Any:
    """Coordinates in voxels of a frame; times and channels have no unit."""
    import neuroglancer as ng

    sizes = dict(zip(SPATIAL[-len(frame.size) :], frame.size, strict=True))
    units = ["m" if axis in sizes else "" for axis in axes]
    scales = [sizes[axis] * METRES if axis in sizes else 1 for axis in axes]
    return ng.CoordinateSpace(names=[*axes], units=units, scales=scales)


def _placed(source: Any, axes: Sequence[str], frame: Frame, own: Frame | None = None) -> Any:
    """A source whose voxels lie where the frame says, whatever size the page would give them.

    The page itself puts what has its `own` frame where that begins, in voxels.
    """
    import neuroglancer as ng

    ndim = len(frame.size)
    shift = np.divide(frame.origin, frame.size)
    if own is not None:
        shift -= np.divide(own.origin, own.size)
    matrix = np.eye(len(axes), len(axes) + 1)
    for axis, value in zip(SPATIAL[-ndim:], shift, strict=True):
        matrix[axes.index(axis), -1] = value
    space = _space(axes, frame)
    transform = ng.CoordinateSpaceTransform(
        input_dimensions=space, output_dimensions=space, matrix=matrix
    )
    return ng.LayerDataSource(url=source, transform=transform)


def _local(values: np.ndarray, axes: Sequence[str], frame: Frame, labels: bool = False) -> Any:
    """A source that is cut from memory."""
    import neuroglancer as ng

    kind = "segmentation" if labels else "image"
    return ng.LocalVolume(values, dimensions=_space(axes, frame), volume_type=kind)


def _drawable(values: np.ndarray, labels: bool) -> np.ndarray:
    """Values in a type that the page can draw."""
    known = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
    other = np.uint64 if labels else np.float32
    return values if values.dtype.name in known else values.astype(other)
