"""What a run writes beside its labels, and into them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.ngff import open_image


def test_a_film_of_nuclei(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dots = np.zeros((2, 96, 96))
    dots[(np.repeat([0, 1], 8), *rng.integers(8, 88, (2, 16)))] = 1
    film = 4000 * ndimage.gaussian_filter(dots, (0, 3, 3)) + rng.normal(100, 3, dots.shape)
    about = {"axes": "TYX", "TimeIncrement": 1.5, "TimeIncrementUnit": "min"}
    source, output = tmp_path / "film.ome.tif", tmp_path / "labels.tif"
    tifffile.imwrite(source, film.astype(np.uint16), ome=True, metadata=about)
    asked = ["segment", str(source), "--model", "nuclei-fluo-2d-sparse", "--output", str(output)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert open_image(output).interval == 90
    summary = json.loads((tmp_path / "labels.tif.spoco-run" / "segment.json").read_text())
    assert summary["model"]["source"] == "nuclei-fluo-2d-sparse"
    assert len(summary["model"]["fingerprint"]) > 8
    # In a store the step of time is there as well, in the unit that was given.
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "film.ome.zarr")])
    assert done.exit_code == 0, done.output
    path = tmp_path / "film.ome.zarr" / "zarr.json"
    stored = json.loads(path.read_text())
    multiscale = stored["attributes"]["ome"]["multiscales"][0]
    multiscale["axes"][0]["unit"] = "minute"
    path.write_text(json.dumps(stored))
    assert open_image(tmp_path / "film.ome.zarr").interval == 90 * 60
