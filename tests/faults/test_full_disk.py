"""A disk without room is exit code 1 and one line for every command; for some it was 2.

The largest size of a file stands for what is free.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

LIMITED = (
    "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (600, r.RLIM_INFINITY)); "
    "from spoco_zoo.cli import main; main()"
)


@pytest.mark.parametrize(
    "command",
    [
        "convert image.tif out.ome.zarr",
        "convert image.tif out.tif",
        "measure labels.tif image.tif --out out.csv",
        "outlines labels.tif --out out.geojson",
        "evaluate labels.tif labels.tif --json out.json",
        "evaluate labels.tif labels.tif --html out.html",
        "masks out.geojson image.tif --out out.tif",
    ],
)
def test_a_full_disk_was_bad_input_for_some_commands(tmp_path: Path, command: str) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "image.tif", rng.integers(0, 60000, (64, 64)).astype(np.uint16))
    labels = np.kron(np.arange(1, 65).reshape(8, 8), np.pad(np.ones((6, 6)), 1)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    if command.startswith("masks"):
        asked = ["outlines", "labels.tif", "--out", "out.geojson"]
        subprocess.run([sys.executable, "-m", "spoco_zoo", *asked], cwd=tmp_path, check=True)
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before
