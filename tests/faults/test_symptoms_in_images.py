"""Images that once ended in a traceback, a hang or a wrong result."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.errors import DataError, StoreError
from spoco_zoo.ngff import convert, open_image, write_label_tiff
from spoco_zoo.segment.normalise import measure


def test_a_tiff_of_64_bit_integers_was_a_type_that_zarr_did_not_know(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.int64).reshape(3, 4) * 2**40
    for number, order in enumerate("<>"):
        file = tmp_path / f"{number}.tif"
        tifffile.imwrite(file, values, byteorder=order, compression="zlib")
        convert(file, tmp_path / f"{number}.ome.zarr")
        found = zarr.open_array(tmp_path / f"{number}.ome.zarr" / "0", mode="r")[...]
        np.testing.assert_array_equal(found, values)


def make_zarr(path: Path) -> Path:
    tifffile.imwrite(path.with_suffix(".tif"), np.ones((20, 30), np.uint16))
    convert(path.with_suffix(".tif"), path, version="0.4")
    return path


@pytest.mark.parametrize("length", [10**30, 2**63, 2**40])
def test_a_claimed_length_of_an_axis_took_all_memory(tmp_path: Path, length: int) -> None:
    path = make_zarr(tmp_path / "a.ome.zarr")
    metadata = json.loads((path / "0" / ".zarray").read_text())
    metadata["shape"][0] = length
    (path / "0" / ".zarray").write_text(json.dumps(metadata))
    tracemalloc.start()
    try:
        with pytest.raises(StoreError) as caught:
            open_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 2**26


def test_complex_numbers_in_a_tiff_lost_their_imaginary_part(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 9), np.complex64))
    with pytest.raises(StoreError, match="real numbers"):
        open_image(tmp_path / "a.tif")


def test_what_to_do_with_a_bare_array_was_of_no_help(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(20, 30), dtype="uint8")
    with pytest.raises(StoreError, match="save it as TIFF"):
        open_image(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "b.zarr").create_array("0", shape=(20, 30), dtype="uint8")
    with pytest.raises(StoreError, match="make one of a TIFF with"):
        open_image(tmp_path / "b.zarr")


@pytest.mark.parametrize("command", ["convert", "segment"])
def test_a_cut_tiff_ended_in_a_traceback(tmp_path: Path, command: str) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.ones((40, 50), np.uint16))
    file.write_bytes(file.read_bytes()[:-500])
    arguments = [command, str(file)]
    if command == "convert":
        arguments.append(str(tmp_path / "o.ome.zarr"))
    else:
        import sys

        sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
        from bundle_runs import make_run

        run = make_run(tmp_path / "run", 2)
        arguments += ["--model", str(run), "--output", str(tmp_path / "o.zarr")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, (done.stderr, done.exception)
    assert len([x for x in done.stderr.splitlines() if x.startswith("spoco-zoo: ")]) == 1
    assert "Traceback" not in done.stderr


def test_a_lack_of_memory_ended_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object, **__: object) -> None:
        np.empty(2**62, np.uint8)

    monkeypatch.setattr("spoco_zoo.evaluate.evaluate", hungry)
    done = CliRunner().invoke(app, ["evaluate", "a.tif", "b.tif"])
    assert done.exit_code == 1
    assert done.stderr.startswith("spoco-zoo: not enough memory: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("size", [1e38, 1e100, 1e300])
def test_numbers_that_float32_cannot_hold_became_nan_embeddings(
    tmp_path: Path, size: float
) -> None:
    values = np.full((20, 20), size)
    values[3, 4] = 0
    tifffile.imwrite(tmp_path / "a.tif", values)
    image = open_image(tmp_path / "a.tif")
    with pytest.raises(DataError, match="voxel 0,0"):
        measure(image, 0, 0, (0,))


@pytest.mark.parametrize("made", ["labels.tif", "labels.ome.zarr"])
def test_labels_of_ours_were_segmented_as_if_they_were_an_image(tmp_path: Path, made: str) -> None:
    values = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((16, 16))).astype(np.uint16)
    write_label_tiff(tmp_path / "labels.tif", values)
    convert(tmp_path / "labels.tif", tmp_path / "labels.ome.zarr", labels=True)
    before = sorted(tmp_path.iterdir())
    for more in ([], ["--dry-run"]):
        command = ["segment", str(tmp_path / made), "--model", "nuclei-fluo-2d", *more]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, done.output
        assert "values must be intensities; found labels" in done.stderr
    assert sorted(tmp_path.iterdir()) == before
