"""The parts of reports, and whole pages in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spoco_zoo.report import Figure, Section, html_page, overlay
from spoco_zoo.report.sections import (
    command_line,
    evaluation_sections,
    provenance,
    segment_sections,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), "")
SUMMARY = {
    "plan": {
        "output": "/data/a.ome.zarr/labels/spoco", "shape": "64 x 512 x 512 voxels, 1 time point",
        "voxel size": "0.3 x 0.1 x 0.1 micrometer", "blocks": "8 of 64 x 256 x 256",
        "resampled": "no", "notes": "The image is <grey>.",
    },
    "objects": 1234,
    "objects_per_block": {"histogram": {"64": 3, "128": 5}},
    "faces": {"faces": 12, "joined": 40, "refused_overlap": 3, "refused_embedding": 1},
    "blocks": {"blocks": 8, "read_seconds": 1.5, "embed_seconds": 60.0, "cluster_seconds": 9.0},
    "sizes": {"objects": 1234, "smallest": 9, "largest": 300, "histogram": {"8": 34, "256": 1200}},
    "seconds": {"blocks": 71.0, "faces": 0.5, "relabel": 1.0},
    "failures": [{"phase": "blocks", "place": "block 3", "reason": "NaN at voxel 1,2"}],
}  # fmt: skip


def test_a_segmentation_is_told_in_order() -> None:
    sections = segment_sections(SUMMARY, ["spoco-zoo view a.ome.zarr", "napari a.ome.zarr"])
    headings = [section.heading for section in sections]
    assert headings[:4] == ["Result", "Look at it", "Blocks without result", "Sizes"]
    result = dict(sections[0].table)
    assert result["objects"] == "1,234"
    assert result["time"] == "1 min 12 s"
    assert sections[2].table[1] == ("blocks", "block 3", "NaN at voxel 1,2")
    assert sections[3].bars == (("8 to 15", 34.0), ("256 to 511", 1200.0))
    assert ("sizes.histogram.256", "1200") in sections[-1].table


def test_of_very_many_failures_a_page_lists_the_first(tmp_path: Path) -> None:
    one = SUMMARY["failures"][0]
    many = [{**one, "place": f"block {n}"} for n in range(1500)]
    sections = segment_sections({**SUMMARY, "failures": many}, [])
    html_page(tmp_path / "a.html", "Many", sections)
    text = (tmp_path / "a.html").read_text()
    assert text.count(one["reason"]) == 1000
    assert "And 500 more" in text


def test_a_run_without_objects_or_failures_has_a_page(tmp_path: Path) -> None:
    empty = {**SUMMARY, "objects": 0, "failures": [], "sizes": {"objects": 0}, "seconds": {}}
    sections = segment_sections(empty, [])
    assert "Sizes" not in [section.heading for section in sections]
    html_page(tmp_path / "a.html", "Nothing", sections)
    assert "<h2>Result</h2>" in (tmp_path / "a.html").read_text()


def test_an_evaluation_names_the_worst_images() -> None:
    images = {f"image {i}": i / 20 for i in range(20)}
    sections = evaluation_sections({"ap50": 0.9, "ap75": 0.5}, [5, 0, 3, 9], images)
    assert sections[0].bars == (("IoU 0.5", 0.9), ("IoU 0.75", 0.5))
    assert sections[1].bars[-1] == ("0.75 to 1.00", 9.0)
    assert sections[2].bars[0] == ("image 0", 0.0)
    assert len(sections[2].bars) == 10


def test_provenance_holds_command_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Called from Python." in provenance().text
    monkeypatch.setattr(sys, "argv", ["/usr/bin/spoco-zoo", "segment", "my image.tif"])
    assert command_line() == "spoco-zoo segment 'my image.tif'"
    section = provenance()
    assert section.code == command_line()
    assert {"torch", "numpy", "Python"} <= {row[0] for row in section.table}


def test_bars_are_text_too(tmp_path: Path) -> None:
    bars = (("none", 0.0), ("<few>", 2.0), ("many", 4000.0))
    html_page(tmp_path / "a.html", "Bars", [Section("Sizes", bars=bars)])
    text = (tmp_path / "a.html").read_text()
    assert re.findall(r"width:([\d.]+)%", text) == ["0.0", "0.1", "100.0"]
    assert "&lt;few&gt;" in text
    assert "4,000" in text


@pytest.fixture
def page(tmp_path: Path) -> Path:
    labels = np.kron(np.arange(1, 31).reshape(5, 6), np.ones((30, 30), int))
    overlay(labels.astype(float) % 7, labels, tmp_path / "a.png")
    figure = Figure(tmp_path / "a.png", "The middle of the image.")
    sections = segment_sections(SUMMARY, ["spoco-zoo view " + "very-long-name" * 12 + ".ome.zarr"])
    html_page(tmp_path / "report.html", "Segmentation of a.ome.zarr", sections, [figure])
    return tmp_path / "report.html"


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize("width", [500, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_page(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--hide-scrollbars",
            f"--window-size={width},1800", f"--blink-settings=preferredColorScheme={int(not dark)}",
            f"--user-data-dir={tmp_path / 'browser'}", f"--screenshot={shot}", page.as_uri(),
        ],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    pixels = np.asarray(Image.open(shot).convert("L")).astype(int)
    assert pixels.shape[1] == width
    paper = np.median(pixels)
    assert paper < 60 if dark else paper > 230
    # Nothing reaches over the margins: long names break or scroll inside of their box.
    assert (abs(pixels[:, -8:] - paper) < 12).all()
    assert (abs(pixels - paper) > 60).mean() > 0.03
