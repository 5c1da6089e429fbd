"""Shapes of QuPath and ImageJ become the labels that were drawn."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi
from scipy import ndimage
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.outline_files import write_outlines
from spoco_zoo.outlines import trace
from spoco_zoo.painting import _fill, paint, paint_file


def image(path: Path, shape: tuple[int, ...], axes: str) -> Path:
    pixels = np.zeros(shape, np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": axes})
    return path


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(ring: Any, name: str | None = None, kind: str = "", **plane: int) -> dict[str, Any]:
    """As QuPath exports an annotation."""
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [ring]}
    if plane:
        geometry["plane"] = {"c": -1, "z": 0, "t": 0} | plane
    properties: dict[str, Any] = {"objectType": "annotation"}
    properties |= {"name": name} if name else {}
    properties |= {"classification": {"name": kind, "color": [1, 2, 3]}} if kind else {}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}


def write(path: Path, features: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_what_was_traced_is_filled_again(mask: NDArray[np.bool_]) -> None:
    plane = np.zeros(mask.shape, np.uint32)
    for piece in trace(mask):
        _fill(plane, piece, 3)
    np.testing.assert_array_equal(plane == 3, mask)


@pytest.mark.parametrize(("axes", "shape"), [("YX", (80, 90)), ("ZYX", (5, 40, 50))])
@pytest.mark.parametrize("ending", ["geojson", "zip"])
def test_labels_come_back_from_their_outlines(
    tmp_path: Path, axes: str, shape: tuple[int, ...], ending: str
) -> None:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 3) > 0.02
    labels = ndimage.label(noise)[0].astype(np.uint16)
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="minisblack", metadata={"axes": axes})
    write_outlines(tmp_path / "l.tif", tmp_path / f"l.{ending}")
    raw = image(tmp_path / "raw.tif", shape, axes)
    done = paint_file(tmp_path / f"l.{ending}", raw, tmp_path / "back.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "back.tif"), labels)
    assert done.objects == labels.max() > 1
    assert done.lost == done.left_out == 0


def test_annotations_of_qupath(tmp_path: Path) -> None:
    raw = image(tmp_path / "raw.tif", (30, 40), "YX")
    file = write(
        tmp_path / "a.geojson",
        [
            feature(square(2, 3, 4)),
            feature(square(10, 3, 4), "17"),
            feature(square(20, 3, 5), "Smith's", "Nucleus"),
            feature(square(0, 20, 8), None, "Background*"),
            feature(square(0, 0, 30), None, "Region*"),
            feature(square(50, 50, 3)),
            {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 3]}},
        ],
    )
    done = paint(file, raw)
    expected = np.zeros((30, 40), np.uint32)
    expected[3:7, 2:6], expected[3:7, 10:14], expected[3:8, 20:25] = 18, 17, 19
    expected[20:28, :8] = 65535
    np.testing.assert_array_equal(done.labels, expected)
    assert (done.objects, done.lost, done.left_out) == (3, 1, 2)


def test_rois_of_the_roi_manager(tmp_path: Path) -> None:
    raw = image(tmp_path / "raw.tif", (2, 3, 2, 30, 40), "TZCYX")
    rectangle = ImagejRoi()
    rectangle.roitype, rectangle.name = ROI_TYPE.RECT, "0001-0002"
    rectangle.left, rectangle.top, rectangle.right, rectangle.bottom = 4, 5, 9, 8
    # Of 2 channels, 3 planes and 2 times: the second channel, plane 2, time 1.
    rectangle.position = 1 + 2 * (2 + 3 * 1) + 1
    oval = ImagejRoi()
    oval.roitype, oval.name = ROI_TYPE.OVAL, "background"
    oval.left, oval.top, oval.right, oval.bottom = 20, 10, 30, 20
    oval.z_position, oval.t_position = 2, 1
    line = ImagejRoi.frompoints(np.array([[1, 1], [5, 5]]))
    line.roitype = ROI_TYPE.POLYLINE
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, roi in enumerate((rectangle, oval, line)):
            archive.writestr(f"{number}.roi", roi.tobytes())
    done = paint(tmp_path / "a.zip", raw, background_label=9)
    assert done.axes == "TZYX"
    expected = np.zeros((2, 3, 30, 40), np.uint32)
    expected[1, 2, 5:8, 4:9] = 1
    np.testing.assert_array_equal(done.labels * (done.labels == 1), expected)
    disc = (done.labels == 9).nonzero()
    assert set(disc[0]) == {0}
    assert set(disc[1]) == {1}
    assert len(disc[0]) == pytest.approx(np.pi * 25, rel=0.05)
    assert done.left_out == 1


def test_a_fitted_spline_is_filled_as_the_curve_that_it_shows(tmp_path: Path) -> None:
    raw = image(tmp_path / "raw.tif", (60, 60), "YX")
    corners = [[50, 30], [30, 50], [10, 30], [30, 10]]
    roi = ImagejRoi.frompoints(np.array(corners, np.float32), name="1")
    (tmp_path / "a.roi").write_bytes(roi.tobytes())
    assert (paint(tmp_path / "a.roi", raw).labels == 1).sum() == pytest.approx(2 * 20**2, rel=0.05)
    roi.options |= ROI_OPTIONS.SPLINE_FIT
    (tmp_path / "a.roi").write_bytes(roi.tobytes())
    disc = (paint(tmp_path / "a.roi", raw).labels == 1).sum()
    assert disc == pytest.approx(np.pi * 20**2, rel=0.05)


def test_the_command_writes_what_train_reads(tmp_path: Path) -> None:
    raw = image(tmp_path / "raw.tif", (30, 40), "YX")
    file = write(tmp_path / "a.geojson", [feature(square(2, 3, 4)), feature(square(90, 3, 4))])
    out = tmp_path / "masks.tif"
    done = CliRunner().invoke(app, ["masks", str(file), str(raw), "--out", str(out)])
    assert json.loads(done.stdout) == {"masks": str(out), "objects": 1}
    assert "Objects without a voxel: 1" in done.stderr
    assert tifffile.imread(out).dtype == np.uint16
    again = CliRunner().invoke(app, ["masks", str(file), str(raw), "--out", str(out)])
    assert again.exit_code == 0
    tifffile.imwrite(out, np.ones((30, 40), np.uint16))
    kept = CliRunner().invoke(app, ["masks", str(file), str(raw), "--out", str(out)])
    assert kept.exit_code == 2
    assert tifffile.imread(out).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "cannot be read"),
        ("[1, 2]", "cannot be read"),
        ('{"type": "FeatureCollection"}', "cannot be read"),
        (json.dumps([feature([[1, 2], [3, "a"]])]), "cannot be read"),
        (json.dumps([]), "enclose voxels"),
        (json.dumps([feature(square(90, 90, 5))]), "enclose voxels"),
        (json.dumps([feature(square(2, 2, 5), "65535")]), "below that of known background"),
        (json.dumps([feature(square(2, 2, 5), z=3)]), "planes of their image"),
    ],
)
def test_what_cannot_be_painted_is_refused(tmp_path: Path, content: str, message: str) -> None:
    raw = image(tmp_path / "raw.tif", (30, 40), "YX")
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(DataError, match=message):
        paint_file(tmp_path / "a.geojson", raw, tmp_path / "masks.tif")
    assert not (tmp_path / "masks.tif").exists()


def test_damaged_rois_and_other_files_are_refused(tmp_path: Path) -> None:
    raw = image(tmp_path / "raw.tif", (4, 30, 40), "ZYX")
    roi = ImagejRoi.frompoints(np.array([[1.0, 1.0], [5.0, 1.0], [5.0, 5.0]]), name="a")
    (tmp_path / "a.roi").write_bytes(roi.tobytes())
    with pytest.raises(DataError, match="slice"):
        paint(tmp_path / "a.roi", raw)
    for cut in (3, 40, 80):
        (tmp_path / "b.roi").write_bytes(roi.tobytes()[:cut])
        with pytest.raises(DataError):
            paint(tmp_path / "b.roi", raw)
    (tmp_path / "c.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        paint(tmp_path / "c.zip", raw)
    with pytest.raises(DataError, match="cannot be read"):
        paint(tmp_path / "gone.zip", raw)
    with pytest.raises(DataError, match="file of"):
        paint(tmp_path / "a.svg", raw)
    with pytest.raises(ConfigError, match="must be named"):
        paint_file(tmp_path / "a.roi", raw, tmp_path / "masks.png")


def test_slices_of_a_stack_in_colours_are_not_counted_per_colour(tmp_path: Path) -> None:
    colours = np.zeros((6, 20, 20, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, imagej=True, metadata={"axes": "ZYXS"})
    roi = ImagejRoi.frompoints(np.array(square(2, 2, 6)[:-1]))
    roi.position = 5
    roi.tofile(tmp_path / "one.roi")
    labels = paint(tmp_path / "one.roi", tmp_path / "rgb.tif").labels
    assert np.flatnonzero(labels.any((1, 2))).tolist() == [4]


def test_what_a_mac_puts_into_archives_is_no_roi(tmp_path: Path) -> None:
    roi = ImagejRoi.frompoints(np.array(square(2, 2, 6)[:-1]))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("rois/a.roi", roi.tobytes())
        archive.writestr("__MACOSX/rois/._a.roi", b"Mac OS X")
    assert paint(tmp_path / "a.zip", image(tmp_path / "a.tif", (20, 20), "YX")).objects == 1


def test_shapes_of_a_smaller_copy_of_the_image_were_painted_into_its_corner(tmp_path: Path) -> None:
    large = image(tmp_path / "large.tif", (80, 100), "YX")
    small = image(tmp_path / "small.tif", (40, 50), "YX")
    drawn = [feature(square(x, y, 8)) for x, y in ((1, 1), (40, 3), (2, 30), (41, 31))]
    shapes = write(tmp_path / "shapes.geojson", drawn)
    assert paint(shapes, large).corner == (39, 49)
    assert paint(shapes, small).corner is None
    assert paint(write(shapes, drawn[:3]), large).corner is None  # too few to tell
    assert paint(write(shapes, [*drawn, feature(square(60, 2, 5))]), large).corner is None
    write(shapes, drawn)
    command = ["masks", str(shapes), str(large), "--out", str(tmp_path / "m.tif")]
    told = CliRunner().invoke(app, command).stderr
    assert "within the first 49 x 39 of 100 x 80 pixels" in told


def test_points_alone_are_told_to_enclose_nothing(tmp_path: Path) -> None:
    point = feature([1, 2]) | {"geometry": {"type": "Point", "coordinates": [1, 2]}}
    with pytest.raises(DataError, match="points and lines enclose nothing"):
        paint(write(tmp_path / "a.geojson", [point]), image(tmp_path / "a.tif", (20, 20), "YX"))


def test_odd_shapes_and_numbers(tmp_path: Path) -> None:
    stack = image(tmp_path / "stack.tif", (5, 20, 20), "ZYX")

    def painted(*features: dict[str, Any], **options: Any) -> Any:
        return paint(write(tmp_path / "odd.geojson", list(features)), stack, **options)

    whole = feature(square(2, 2, 6))
    empty = feature([]) | {"geometry": {"type": "Polygon", "coordinates": []}}
    assert (painted(empty, whole).objects, painted(empty, whole).left_out) == (1, 1)
    assert painted(feature(square(2, 2, 6), name="9" * 5000)).labels.max() == 1
    assert painted(feature(square(-1e300, -1e300, 2e300))).labels[0].all()
    with pytest.raises(DataError, match="planes of their image"):
        painted(feature(square(2, 2, 6), z=-1))
    path = write(tmp_path / "far.geojson", [feature(square(2, 2, 6), z=7)])
    path.write_text(path.read_text().replace('"z": 7', '"z": 1e400'))
    with pytest.raises(DataError, match="cannot be read"):
        paint(path, stack)
    with pytest.raises(ConfigError, match=r"below 2\^32"):
        painted(whole, feature(square(9, 9, 6), name="background"), background_label=2**32)
