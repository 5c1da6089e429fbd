"""Stores behind HTTP: the loopback server below knows range requests, as object stores do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from spoco_zoo.errors import RemoteError, StoreError
from spoco_zoo.ngff import convert, label_names, open_image, open_labels, plan_label

from .conftest import ramp
from .test_ngff_write import write

pytest.importorskip("aiohttp", reason="HTTP stores need aiohttp")
Make = Callable[..., Path]


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files whole or in part: ``bytes=a-b``, ``bytes=a-`` and ``bytes=-n``."""

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if (file.parent / "private").exists():
            self.send_error(403)
            return
        if not file.is_file():
            self.send_error(404)
            return
        content, status = file.read_bytes(), 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = asked.groups()
            start = int(first) if first else len(content) - int(last)
            content = content[start : int(last) + 1 if first and last else None]
            status = 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_and_labels_are_read_over_http(
    make_image: Make, address: str, tmp_path: Path, version: str
) -> None:
    path = make_image([ramp((40, 30))], "yx", version=version)
    write(plan_label(open_image(path), name="cells"))
    image = open_image(f"{address}/{path.name}/")
    got = image.read(0, 0, None, (slice(3, 20), slice(0, 30)))
    np.testing.assert_array_equal(got[0], ramp((40, 30))[3:20])
    assert (open_labels(f"{address}/{path.name}")[17:25, ::4].values == 5).all()
    convert(f"{address}/{path.name}", tmp_path / "local.zarr")
    assert open_image(tmp_path / "local.zarr").spatial_shape() == (40, 30)


def test_labels_of_a_remote_image_need_an_output(make_image: Make, address: str) -> None:
    path = make_image([ramp((8, 8))], "yx")
    image = open_image(f"{address}/{path.name}")
    with pytest.raises(StoreError, match=r"remote.*--output"):
        plan_label(image, name="cells")


def test_a_refusal_is_not_taken_for_an_image_without_labels(make_image: Make, address: str) -> None:
    path = make_image([ramp((8, 8))], "yx")
    image = open_image(f"{address}/{path.name}")
    assert label_names(image) == ()
    write(plan_label(open_image(path), name="cells"))
    assert label_names(image) == ("cells",)
    (path / "labels" / "private").touch()
    with pytest.raises(RemoteError, match="credentials"):
        label_names(image)


def test_what_is_not_there_is_one_line(address: str) -> None:
    with pytest.raises(StoreError, match=f"{address}/none.zarr") as caught:
        open_image(f"{address}/none.zarr")
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="must answer") as caught:
        open_image("http://127.0.0.1:1/none.zarr")
    assert "\n" not in str(caught.value)
