"""Settings that hold for every test, and data that many need."""

from __future__ import annotations

import os

# Before numpy and torch start their pools: tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Times depend on what else the machine does, so no example has a deadline. Examples are the same
# in every run: a failure that was seen once can be seen again.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real microscopy beside the repository; skips where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data are not beside the repository (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def draw_pairs() -> Callable[[Path, int, int], Path]:
    """Writes so many images of two squares each, of so many pixels a side, with labels."""

    def draw(folder: Path, count: int, side: int) -> Path:
        rng = np.random.default_rng(0)
        part = side // 16
        labels = np.zeros((side, side), np.uint16)
        labels[2 * part : 6 * part, 2 * part : 6 * part] = 1
        labels[8 * part : 14 * part, 7 * part : 13 * part] = 2
        for name in ("images", "labels"):
            (folder / name).mkdir()
        for n in range(count):
            image = labels * 60 + rng.integers(0, 20, labels.shape)
            tifffile.imwrite(folder / "images" / f"{n}.tif", image.astype(np.float32))
            tifffile.imwrite(folder / "labels" / f"{n}.tif", labels)
        return folder

    return draw


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Address of a real S3 server in a process of its own; skips where it is not installed."""
    server = os.environ.get("SPOCO_MOTO_SERVER") or shutil.which("moto_server")
    if server is None:
        pytest.skip("moto_server is not installed: pip install 'moto[server]', also elsewhere")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests, with the reason, where there is no GPU."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
