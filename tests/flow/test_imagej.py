"""ImageJ fills the outlines of labels as they are, and masks fill what ImageJ draws."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from spoco_zoo.outline_files import write_outlines
from spoco_zoo.painting import paint_file

IMAGEJ = Path("/usr/share/java/ij.jar")
"""Of Debian's package ``libij-java``."""
JAVA = shutil.which("java")

pytestmark = pytest.mark.skipif(
    JAVA is None or not shutil.which("javac") or not IMAGEJ.is_file(),
    reason="needs a JDK and ImageJ (apt install default-jdk libij-java)",
)


def in_imagej(verb: str, rois: Path, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Pixels of ROIs that are there (``fill``), or that ImageJ writes before (``draw``)."""
    pixels = rois.with_suffix(".raw")
    source = Path(__file__).parents[1] / "consumers" / "Rois.java"
    command = [str(JAVA), "-Djava.awt.headless=true", "-cp", str(IMAGEJ), str(source)]
    size = map(str, reversed(shape))
    subprocess.run([*command, verb, str(rois), *size, str(pixels)], check=True, timeout=120)
    return np.fromfile(pixels, ">i2").reshape(shape).astype(np.int64)


def test_imagej_fills_outlines_as_the_labels_are(tmp_path: Path) -> None:
    shape = (4, 60, 70)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    labels = ndimage.label(noise > 0.02)[0].astype(np.uint16)
    inside = np.stack([ndimage.binary_fill_holes(plane) for plane in labels > 0])
    assert (inside & (labels == 0)).any(), "no object with a hole"
    labels[:, ::2, 0] = labels.max() + 1  # pieces of one pixel
    tifffile.imwrite(tmp_path / "l.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    write_outlines(tmp_path / "l.tif", tmp_path / "l.zip")
    np.testing.assert_array_equal(in_imagej("fill", tmp_path / "l.zip", shape), labels)


def test_masks_fill_what_imagej_draws(tmp_path: Path) -> None:
    shape = (3, 100, 200)
    drawn = in_imagej("draw", tmp_path / "drawn.zip", shape)
    raw = np.zeros(shape, np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", raw, imagej=True, metadata={"axes": "ZYX"})
    paint_file(tmp_path / "drawn.zip", tmp_path / "raw.tif", tmp_path / "masks.tif")
    masks = tifffile.imread(tmp_path / "masks.tif")
    for number in range(1, 8):
        # Curves are drawn in straight pieces of their own by either program.
        shared = ((masks == number) & (drawn == number)).sum()
        allowed = 0.02 if number in (2, 7) else 0
        united = ((masks == number) | (drawn == number)).sum()
        assert shared >= (1 - allowed) * united > 0, number
