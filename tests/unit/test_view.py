"""The page that shows an image: what it serves, and what a real browser draws of it."""

from __future__ import annotations

import concurrent.futures
import io
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
import zarr.codecs.numcodecs
from PIL import Image as Picture
from typer.testing import CliRunner

from spoco_zoo import ngff, view
from spoco_zoo.cli import app
from spoco_zoo.config import SegmentConfig
from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.pictures import colour_embeddings
from spoco_zoo.scene import find_scene, is_served, look_commands
from spoco_zoo.segment import embed_part

pytest.importorskip("neuroglancer", reason="needs the extra `view`")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), "")
SHAPES = {2: (240, 300), 3: (16, 80, 100)}


def write_cells(folder: Path, ndim: int, version: str) -> Path:
    """An OME-Zarr of cells with their true labels."""
    image, truth = crowded_cells(SHAPES[ndim], 0, diameter=24)
    tiff = folder / "cells.ome.tif"
    size = {f"PhysicalSize{axis}": 0.2 for axis in "ZYX"[-ndim:]}
    tifffile.imwrite(
        tiff, image, metadata={"axes": "ZYX"[-ndim:], **size}, photometric="minisblack"
    )
    store = folder / "cells.ome.zarr"
    ngff.convert(tiff, store, version=version)
    target = ngff.plan_label(ngff.open_image(store), name="spoco")
    ngff.create_label(target, dtype=np.uint32, shard=(128,) * ndim, chunk=(64,) * ndim)
    ngff.open_label_array(target, 0)[...] = truth.astype(np.uint32)
    ngff.publish_label(target)
    ngff.write_label_tiff(folder / "labels.tif", truth, (0.2,) * ndim)
    return store


def fetch(address: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
        body: bytes = answer.read()
        return body


def sources(server: view.ViewServer) -> list[str]:
    """Addresses of the layers' data, as the page gets them."""
    found = []
    for layer in server._viewer.state.to_json()["layers"]:
        source = layer["source"][0] if isinstance(layer["source"], list) else layer["source"]
        found.append(source["url"] if isinstance(source, dict) else source)
    return found


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_page_and_chunks_come_over_http(tmp_path: Path, version: str) -> None:
    store = write_cells(tmp_path, 2, version)
    (tmp_path / "secret.txt").write_text("not yours")
    server = view.ViewServer(find_scene(str(store)))
    try:
        page = fetch(server.url).decode()
        scripts = re.findall(r'src="([^"]+\.js)"', page)
        assert sum(len(fetch(server.url + script)) for script in scripts) > 1_000_000
        image, label = (address.partition("://")[2] for address in sources(server))
        name = "zarr.json" if version == "0.5" else ".zattrs"
        found = json.loads(fetch(f"{image}/{name}"))
        assert "multiscales" in (found["attributes"]["ome"] if version == "0.5" else found)
        chunk = "0/c/0/0" if version == "0.5" else "0/0/0"
        stored = (store / "labels/spoco" / chunk).read_bytes()
        assert fetch(f"{label}/{chunk}") == stored
        assert fetch(f"{label}/{chunk}", Range="bytes=3-11") == stored[3:12]
        for outside in (
            f"{image}/../secret.txt", f"{image}/%2e%2e/secret.txt",
            f"{image}/..%2fsecret.txt", image.replace(server._server.token, "x" * 40) + f"/{name}",
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError):
                fetch(outside)
    finally:
        server.close()


def drawn(server: view.ViewServer, folder: Path) -> np.ndarray:
    """What a real browser without a network draws, RGB."""
    browser = subprocess.Popen(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder / 'browser'}", "--remote-debugging-port=0", server.url,
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            png = pool.submit(server.screenshot, 800, 600).result(timeout=240)
    finally:
        browser.terminate()
        browser.wait(30)
    return np.asarray(Picture.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize(("ndim", "kind"), [(2, "0.5"), (3, "0.4"), (2, "tiff")])
def test_a_browser_shows_image_and_labels(tmp_path: Path, ndim: int, kind: str) -> None:
    store = write_cells(tmp_path, ndim, "0.5" if kind == "tiff" else kind)
    scene = find_scene(str(store))
    if kind == "tiff":
        scene = find_scene(str(tmp_path / "cells.ome.tif"), [str(tmp_path / "labels.tif")])
    server = view.ViewServer(scene)
    try:
        picture = drawn(server, tmp_path)
    finally:
        server.close()
    middle = picture[200:400, 300:500] if ndim == 2 else picture[40:260, 40:360]
    strength = np.ptp(middle, axis=-1)
    # Labels are coloured; the image between and under them is grey and varies.
    assert (strength > 30).mean() > 0.4
    assert len(np.unique(middle.reshape(-1, 3) // 32, axis=0)) > 30
    if ndim == 3:
        volume = picture[320:580, 40:360]
        assert (volume.min(axis=-1) > 60).mean() > 0.03


def without_size(store: Path) -> None:
    """Take the unit from every axis, as in stores that were made of bare files."""
    group = zarr.open_group(store)
    ome = dict(group.attrs)["ome"]
    for axis in ome["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    group.attrs["ome"] = ome


def moved(store: Path, shift: list[float]) -> None:
    """Move an image to another place."""
    group = zarr.open_group(store)
    ome = dict(group.attrs)["ome"]
    for dataset in ome["multiscales"][0]["datasets"]:
        scale = dataset["coordinateTransformations"][0]
        translation = {"type": "translation", "translation": shift}
        dataset["coordinateTransformations"] = [scale, translation]
    group.attrs["ome"] = ome


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize("case", ["no size", "size of the image alone", "elsewhere", "int64"])
def test_labels_lay_far_from_their_image_or_could_not_be_drawn(tmp_path: Path, case: str) -> None:
    store = write_cells(tmp_path, 2, "0.5")
    labels = str(tmp_path / "labels.tif")
    if case == "elsewhere":
        moved(store, [1000.0, 500.0])
    else:
        truth = tifffile.imread(labels).astype(np.int64 if case == "int64" else np.uint16)
        tifffile.imwrite(tmp_path / "bare.tif", truth)
        labels = str(tmp_path / "bare.ome.zarr")
        ngff.convert(tmp_path / "bare.tif", labels, labels=True)
    if case == "no size":
        without_size(store)
        without_size(store / "labels/spoco")
    scene = find_scene(str(store), [labels])
    assert scene.notes == ()
    server = view.ViewServer(replace(scene, labels=scene.labels[1:]))
    try:
        picture = drawn(server, tmp_path)
    finally:
        server.close()
    middle = picture[150:450, 200:600]
    assert (np.ptp(middle, axis=-1) > 30).mean() > 0.4
    # Outlines between labels, and many colours: neither one voxel nor one label fills the page.
    assert len(np.unique(middle.reshape(-1, 3) // 32, axis=0)) > 30


def test_a_film_that_begins_dark_was_shown_white(tmp_path: Path) -> None:
    cells = crowded_cells(SHAPES[2], 0, diameter=24)[0]
    film = np.stack([np.zeros_like(cells), cells, cells])
    tifffile.imwrite(
        tmp_path / "film.tif", film, metadata={"axes": "TYX"}, photometric="minisblack"
    )
    low, high = view._contrast(ngff.open_image(tmp_path / "film.tif"), 0)
    assert (low, high) == pytest.approx(tuple(np.percentile(cells, (0.5, 99.8))))


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_a_browser_shows_all_frames_of_a_film_and_any_type(tmp_path: Path, dtype: str) -> None:
    frames = np.stack([crowded_cells(SHAPES[2], seed, diameter=24)[0] for seed in range(3)])
    film = tmp_path / "film.ome.tif"
    tifffile.imwrite(film, frames.astype(dtype), metadata={"axes": "TYX"}, photometric="minisblack")
    if dtype == "float64":
        ngff.convert(film, tmp_path / "film.ome.zarr")
        film = tmp_path / "film.ome.zarr"
    scene = find_scene(str(film))
    server = view.ViewServer(scene)
    try:
        picture = drawn(server, tmp_path)
        # What the page gets, whether or not it has sent its own state back already.
        source = server._source(scene.first, scene.frame(scene.first)).url
        assert source.dimensions.names == ("t", "y", "x")
        assert source.data.shape[0] == 3
    finally:
        server.close()
    assert np.ptp(picture[200:400, 300:500]) > 100


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_browser_shows_embeddings_where_they_were_computed(tmp_path: Path, ndim: int) -> None:
    store = write_cells(tmp_path, ndim, "0.5")
    roi = ((4, 12), (20, 60), (10, 50)) if ndim == 3 else ((60, 180), (50, 170))
    coloured = colour_embeddings(str(store), "nuclei-fluo-2d", SegmentConfig(roi=roi, zoom=1))
    assert coloured.rgb.shape == (*(b - a for a, b in roi), 3)
    scene = replace(find_scene(str(store)), labels=(), coloured=(coloured,))
    server = view.ViewServer(scene)
    try:
        picture = drawn(server, tmp_path)
    finally:
        server.close()
    # The image is grey; colour is where the region is, left of the middle, and nowhere else.
    # In 3D the upper left of the four panels is the plane of x and y. The coloured lines
    # around region and image are thin: less than a tenth of what is coloured.
    pane = picture[20:580] if ndim == 2 else picture[20:290, :400]
    columns = np.nonzero(np.ptp(pane, axis=-1) > 30)[1]
    assert len(columns) > 5000
    first, last = np.percentile(columns, (10, 90))
    assert last < 0.6 * pane.shape[1]
    assert 0.1 * pane.shape[1] < first


def test_embeddings_shown_are_those_of_a_run(tmp_path: Path) -> None:
    store = write_cells(tmp_path, 2, "0.5")
    whole = embed_part(store, "nuclei-fluo-2d")
    assert whole.embeddings.shape[1:] == whole.region.shape
    # The voxel size of the image is not that of training: the network sees it resampled.
    roi = ((60, 180), (50, 170))
    part = embed_part(store, "nuclei-fluo-2d", SegmentConfig(roi=roi))
    np.testing.assert_array_equal(part.embeddings, whole.embeddings[:, *part.region.slices])


@pytest.mark.parametrize(
    ("roi", "said"),
    [
        ("30:30,0:50", "not be empty"),
        ("0:0,0:50", "not be empty"),
        ("0:50", "one entry per spatial axis y,x"),
    ],
)
def test_a_region_without_a_voxel_ended_in_a_traceback(tmp_path: Path, roi: str, said: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    asked = ["view", str(tmp_path / "a.tif"), "--embeddings", "nuclei-fluo-2d", "--roi", roi]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2, done.exception
    assert said in done.stderr


def test_a_region_of_no_embeddings_was_ignored_without_a_word(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    done = CliRunner().invoke(app, ["view", str(tmp_path / "a.tif"), "--roi", "0:4,0:4"])
    assert done.exit_code == 2, done.exception
    assert "--embeddings" in done.stderr


def test_a_label_alone_is_shown_over_its_image(tmp_path: Path) -> None:
    store = write_cells(tmp_path, 2, "0.5")
    scene = find_scene(str(store / "labels/spoco"))
    assert scene.image is not None
    assert scene.image.uri == str(store)
    assert [label.name for label in scene.labels] == ["spoco"]


def test_labels_lie_on_their_image_and_odd_ones_are_told_of(tmp_path: Path) -> None:
    store = write_cells(tmp_path, 2, "0.5")
    truth = tifffile.imread(tmp_path / "labels.tif")
    tifffile.imwrite(tmp_path / "bare.tif", truth)
    tifffile.imwrite(tmp_path / "half.tif", truth[:120])
    scene = find_scene(str(store), [str(tmp_path / "bare.tif")])
    # Without the size of the image they would be drawn five times as large.
    assert [scene.frame(label).size for label in scene.labels] == [pytest.approx((0.2, 0.2))] * 2
    assert scene.notes == ()
    (note,) = find_scene(str(store), [str(tmp_path / "half.tif")]).notes
    assert note.startswith("half.tif covers 120 x 300 voxels, cells.ome.zarr 48 x 60 um:")


def test_labels_of_a_coarser_level_lay_in_a_corner_where_no_size_was_known(tmp_path: Path) -> None:
    image, truth = crowded_cells((80, 120), 0, diameter=24)
    tifffile.imwrite(tmp_path / "a.tif", image)
    tifffile.imwrite(tmp_path / "l.tif", truth[::2, ::2])
    store, labels = tmp_path / "a.ome.zarr", tmp_path / "l.ome.zarr"
    ngff.convert(tmp_path / "a.tif", store, version="0.4")
    ngff.convert(tmp_path / "l.tif", labels, version="0.4", labels=True)
    group = zarr.open_group(labels, mode="r+")
    multiscales = group.attrs["multiscales"]
    for dataset in multiscales[0]["datasets"]:
        scale = np.array(dataset["coordinateTransformations"][0]["scale"]) * 2
        dataset["coordinateTransformations"] = [
            {"type": "scale", "scale": scale.tolist()},
            {"type": "translation", "translation": [0.5, 10.5]},
        ]
    group.attrs["multiscales"] = multiscales
    scene = find_scene(str(store), [str(labels)])
    assert scene.frame(scene.first).size == (1, 1)
    frame = scene.frame(scene.labels[0])
    assert (frame.size, frame.origin) == ((2, 2), (0.5, 10.5))


def test_what_cannot_be_shown_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoco_zoo.scene.TIFF_VOXELS", 10)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(StoreError, match="convert"):
        find_scene(str(tmp_path / "a.tif"))
    done = CliRunner().invoke(app, ["view", str(tmp_path / "nothing.ome.zarr")])
    assert done.exit_code == 2
    assert "nothing at" in done.stderr


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_the_page_cannot_unpack_is_shown_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """It stayed black: LZ4 and filters are known to Zarr's Python package alone."""
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint8))
    store = tmp_path / "a.ome.zarr"
    ngff.convert(tmp_path / "a.tif", store, version=version)
    assert is_served(ngff.open_image(store))
    packed: dict[str, Any] = {"compressors": [zarr.codecs.numcodecs.LZ4()]}
    if version == "0.4":
        packed = {"compressors": None, "filters": [numcodecs.Delta("u1")]}
    array = zarr.create_array(
        store / "0", data=np.ones((8, 8), np.uint8), zarr_format=int(version[-1]) - 2,
        overwrite=True, **packed,
    )  # fmt: skip
    assert (array[...] == 1).all()
    assert not is_served(ngff.open_image(store))
    monkeypatch.setattr("spoco_zoo.scene.TIFF_VOXELS", 10)
    with pytest.raises(StoreError, match=r"packed with (filter delta|numcodecs.lz4), in"):
        find_scene(str(store))


def test_commands_to_look_at_a_result() -> None:
    inside = look_commands("my data/a.ome.zarr", "/d/my data/a.ome.zarr/labels/spoco")
    assert inside == (
        "spoco-zoo view 'my data/a.ome.zarr'",
        "napari --plugin napari-ome-zarr 'my data/a.ome.zarr'",
    )
    beside = look_commands("a.ome.zarr", "/d/b.ome.zarr")
    assert beside == (
        "spoco-zoo view a.ome.zarr --labels /d/b.ome.zarr",
        "napari --plugin napari-ome-zarr a.ome.zarr /d/b.ome.zarr",
    )
    assert look_commands("a.tif", "/d/b.tif")[1] == "napari a.tif /d/b.tif"
    assert look_commands("a.lsm", "/d/b.ome.zarr")[1] == "napari a.lsm /d/b.ome.zarr"
    assert look_commands("a.tif", "/d/b.ome.zarr")[1] == "napari a.tif /d/b.ome.zarr"
    assert look_commands("-a.tif", "/d/b.tif")[0] == "spoco-zoo view ./-a.tif --labels /d/b.tif"


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    import socket

    tifffile.imwrite(tmp_path / "a.tif", np.arange(64, dtype=np.uint8).reshape(8, 8))
    scene = find_scene(str(tmp_path / "a.tif"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="--port"):
            view.ViewServer(scene, port=other.getsockname()[1])
