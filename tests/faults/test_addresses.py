"""Checking a bundle opens no address that the bundle names, and no file outside of it."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_hostile_bundles import Members, edited, good, write

from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["good"]  # the fixture


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    """A web server that notes every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    seen: list[str] = []
    found = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    found.seen = seen  # type: ignore[attr-defined]
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def put(rdf: dict, where: tuple, value: object) -> None:
    for key in where[:-1]:
        rdf = rdf[key]
    rdf[where[-1]] = value


PLACES: list[tuple] = [
    ("inputs", 0, "test_tensor"),
    ("inputs", 0, "sample_tensor"),
    ("outputs", 0, "test_tensor"),
    ("weights", "pytorch_state_dict", "dependencies"),
    ("covers",),
    ("documentation",),
    ("icon",),
    ("parent",),
]


SPELLINGS = ["http:", " h\tttp:/", "HTTP:\\\\"]
"""Others of ``http://`` that parsers of addresses accept."""


@pytest.mark.parametrize(
    ("where", "scheme"),
    [*((place, "http://") for place in PLACES), *((PLACES[0], other) for other in SPELLINGS)],
)
def test_addresses_in_place_of_files_are_not_opened(
    where: tuple, scheme: str, good: Members, server: Any, tmp_path: Path
) -> None:
    address = f"{scheme}127.0.0.1:{server.server_port}/secret.npy"
    value: object = address if len(where) == 1 else {"source": address}
    members = edited(good, lambda rdf: put(rdf, where, [value] if where == ("covers",) else value))
    with pytest.raises(BundleError, match="must be in the bundle"):
        check_bundle(write(tmp_path / "b.zip", members), trust_code=False)
    assert server.seen == []


def test_links_for_people_are_allowed_and_not_opened(
    good: Members, server: Any, tmp_path: Path
) -> None:
    link = f"http://127.0.0.1:{server.server_port}/page"

    def change(rdf: dict) -> None:
        rdf["git_repo"] = link
        rdf["cite"] = [{"text": "A paper", "url": f"{link}/../paper#top"}]
        rdf["training_data"] = {
            "type": "dataset",
            "format_version": "0.3.0",
            "name": "A set",
            "description": "of images",
            "authors": [{"name": "A"}],
            "cite": rdf["cite"],
            "license": "CC0-1.0",
            "source": link,
        }
        del rdf["training_data"]["cite"]
        rdf["config"]["bioimageio"] = {"page": link}

    report = check_bundle(write(tmp_path / "b.zip", edited(good, change)), trust_code=False)
    assert (report.status, report.error) == ("passed", "")
    assert server.seen == []


@pytest.mark.parametrize("kind", ["absolute", "parent"])
def test_files_beside_the_bundle_are_not_read(kind: str, good: Members, tmp_path: Path) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, np.zeros(3))
    source = str(secret) if kind == "absolute" else "../secret.npy"
    members = edited(good, lambda rdf: put(rdf, PLACES[0], {"source": source}))
    folder = tmp_path / "b"
    folder.mkdir()
    for name, content in members.items():
        (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match="must be in the bundle"):
        check_bundle(folder, trust_code=False)
