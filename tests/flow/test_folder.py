"""A folder of images: one command for all of them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
from bundle_runs import disks, make_run

from spoco_zoo.cli import app
from spoco_zoo.folder_rows import FolderResult, Row
from spoco_zoo.ngff import convert, open_image
from spoco_zoo.overview import remark_zoom
from spoco_zoo.report.progress import printable

BAD = "not an image"


def spoco_zoo(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("folder") / "run", 2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A TIFF, a PNG, an OME-Zarr, and what is none of them."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    grey = [disks(2, seed)[0][0] for seed in range(3)]
    tifffile.imwrite(folder / "a.tif", grey[0])
    Image.fromarray(np.clip(grey[1] / 5, 0, 255).astype(np.uint8)).save(folder / "b.png")
    tifffile.imwrite(tmp_path / "c.tif", grey[2])
    convert(str(tmp_path / "c.tif"), str(folder / "c.ome.zarr"))
    (folder / "notes.txt").write_text("none")
    (folder / "._a.tif").write_text("of macOS")
    return folder


def labels_in(path: Path) -> np.ndarray:
    image = open_image(path)
    return image.read(0, 0, None, tuple(slice(0, n) for n in image.spatial_shape()))[0]


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "images.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_every_image_gets_the_labels_that_it_would_get_alone(
    images: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels"
    done = spoco_zoo("segment", images, "--model", run, "--output", out, "--measure")
    shown = json.loads(done.stdout)
    assert shown["images"] == 3
    assert "Folders in" in done.stderr
    named = {"a.tif": "a.tif", "b.png": "b.tif", "c.ome.zarr": "c.ome.zarr"}
    rows = rows_of(tmp_path / "labels.spoco-run")
    assert set(rows) == set(named)
    for source, label in named.items():
        alone = tmp_path / f"alone-{label}"
        one = spoco_zoo("segment", images / source, "--model", run, "--output", alone)
        np.testing.assert_array_equal(labels_in(out / label), labels_in(alone))
        assert int(rows[source]["objects"]) == json.loads(one.stdout)["objects"] > 0
        assert Path(rows[source]["labels"]) == out / label
    assert shown["objects"] == sum(int(row["objects"]) for row in rows.values())
    table = pd.read_csv(shown["table"])
    assert table.groupby("image").size().to_dict() == {
        name: int(row["objects"]) for name, row in rows.items()
    }
    page = Path(shown["report"]).read_text()
    assert page.count("data:image/png") == 1
    assert all(name in page for name in named)


def test_what_is_done_is_left_and_what_is_mended_is_done(
    images: Path, run: Path, tmp_path: Path
) -> None:
    (images / "d.tif").write_text(BAD)
    command = ("segment", images, "--model", run, "--output", tmp_path / "labels")
    done = spoco_zoo(*command, code=3)
    assert "1 of 4 images lack labels: d.tif: the input must be" in done.stderr
    assert ".. " not in done.stderr
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "labels").glob("*.tif")}
    assert sorted(p.name for p in before) == ["a.tif", "b.tif"]
    shutil.copy(images / "a.tif", images / "d.tif")
    plan = json.loads(spoco_zoo(*command, "--dry-run").stdout)
    assert plan["images"] == ["d.tif"]
    done = spoco_zoo(*command)
    assert "left as they are: 3 (--overwrite)" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    np.testing.assert_array_equal(
        labels_in(tmp_path / "labels" / "d.tif"), labels_in(tmp_path / "labels" / "a.tif")
    )
    rows = rows_of(tmp_path / "labels.spoco-run")
    assert rows["a.tif"]["objects"] == rows["d.tif"]["objects"] != "0"
    table = Path(json.loads(spoco_zoo(*command, "--measure").stdout)["table"])
    assert table.is_file()
    spoco_zoo(*command, "--overwrite")
    assert not table.exists()  # its ids were those of labels that are gone
    assert all(p.stat().st_mtime_ns > then for p, then in before.items())


@pytest.mark.parametrize(
    "name",
    [
        "n" * 90 + ".tif",
        "$5$ and \\frac$.tif",
        "new\nline\x1b.tif",
        "\u7d30\u80de.tif",
        os.fsdecode(b"\xe9.tif"),
    ],
)
def test_names_of_files_were_taken_for_formulas_or_text(
    images: Path, run: Path, tmp_path: Path, name: str
) -> None:
    """All was segmented, then table and page failed, each time again."""
    shutil.copy(images / "a.tif", images / name)
    out = tmp_path / "labels"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = spoco_zoo("segment", images, "--model", run, "--output", out, "--measure")
    rows = rows_of(tmp_path / "labels.spoco-run")
    assert rows[printable(name)]["objects"] == rows["a.tif"]["objects"]
    assert set(pd.read_csv(json.loads(done.stdout)["table"])["image"]) == set(rows)


def test_labels_that_are_there_are_measured_and_drawn_as_their_run_saw_the_image(
    images: Path, run: Path, tmp_path: Path
) -> None:
    """Without --roi intensities were those of the image's corner."""
    command = ("segment", images, "--model", run, "--output", tmp_path / "labels")
    roi = ("--roi", "16:64,16:64")
    first = spoco_zoo(*command, *roi, "--measure")
    folder = tmp_path / "labels" / "a.tif.spoco-run"
    table = (folder / "objects.csv").read_bytes()
    rows = rows_of(tmp_path / "labels.spoco-run")
    for name in ("objects.csv", "segment.png", "segment.html"):
        (folder / name).unlink()
    # As after Ctrl-C while the picture was drawn.
    assert spoco_zoo(*command, "--measure").stdout == first.stdout
    assert (folder / "objects.csv").read_bytes() == table
    assert (folder / "segment.png").is_file()
    assert (folder / "segment.html").is_file()
    assert rows_of(tmp_path / "labels.spoco-run") == rows


def test_labels_of_an_earlier_version_are_left_and_measured(
    images: Path, run: Path, tmp_path: Path
) -> None:
    """Settings that are gone made them count as lacking, and the table had no object of them."""
    command = ("segment", images, "--model", run, "--output", tmp_path / "labels")
    first = spoco_zoo(*command)
    for name in ("a.tif", "b.tif"):
        report = tmp_path / "labels" / f"{name}.spoco-run" / "segment.json"
        summary = json.loads(report.read_text())
        summary["config"]["gone"] = 0
        summary.pop("model")
        report.write_text(json.dumps(summary))
    done = spoco_zoo(*command, "--measure")
    assert "left as they are: 3; made by another model or version: 2 (--overwrite)" in done.stderr
    assert json.loads(done.stdout)["objects"] == json.loads(first.stdout)["objects"]
    assert "a.tif,1," in (tmp_path / "labels.spoco-run" / "objects.csv").read_text()


def test_without_a_folder_labels_lie_where_they_do_for_one_image(images: Path, run: Path) -> None:
    for note in ("images 3/3", "Labels among the images are left out: 2."):
        done = spoco_zoo("segment", images, "--model", run, "--no-report")
        assert note in done.stderr
    assert labels_in(images / "a.spoco.tif").max() > 0
    assert labels_in(images / "b.spoco.tif").max() > 0
    assert (images / "c.ome.zarr" / "labels" / "spoco" / "zarr.json").is_file()
    assert (
        "data:image/png" not in (images.with_name("images.spoco-run") / "images.html").read_text()
    )


def test_a_dry_run_writes_nothing(images: Path, run: Path, tmp_path: Path) -> None:
    (images / "d.tif").write_text(BAD)
    before = sorted(tmp_path.rglob("*"))
    done = spoco_zoo("segment", images, "--model", run, "--output", tmp_path / "new", "--dry-run")
    plan = json.loads(done.stdout)
    assert plan["images"] == ["a.tif", "b.png", "c.ome.zarr"]
    assert list(plan["refused"]) == ["d.tif"]
    assert sorted(tmp_path.rglob("*")) == before
    asked = ("segment", images / "c.ome.zarr", "--model", run, "--output", tmp_path / "c.ome.zarr")
    alone = json.loads(spoco_zoo(*asked, "--dry-run").stdout)
    line = plan["plans"]["c.ome.zarr"]
    assert all(alone[name] in line for name in ("shape", "blocks", "disk needed", "run"))
    assert plan["disk needed"].startswith("at most ")


def test_a_dry_run_refuses_what_the_run_would(images: Path, run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.eye(40, dtype=np.uint8)).save(images / "d.png")
    command = ("segment", images, "--model", run, "--output", tmp_path / "new")
    plan = spoco_zoo(*command, "--roi", "0:60,0:80", "--dry-run")
    assert list(json.loads(plan.stdout)["refused"]) == ["d.png"]
    spoco_zoo("segment", images, "--model", tmp_path / "none", "--dry-run", code=2)


def test_what_cannot_be_done_at_all_is_refused(images: Path, run: Path, tmp_path: Path) -> None:
    command = ("segment", images, "--model", run)
    for output in (tmp_path / "labels.tif", images / "a.tif", "s3://bucket/labels"):
        assert "local folder" in spoco_zoo(*command, "--output", output, code=2).stderr
    (tmp_path / "file").write_text("")
    assert "a file at" in spoco_zoo(*command, "--output", tmp_path / "file", code=2).stderr
    for flags in (("--model", tmp_path / "none"), ("--model", run, "--device", "cuda:77")):
        lines = spoco_zoo("segment", images, *flags, code=2).stderr.splitlines()
        assert len(lines) == 1  # no fault of the images, so said once
    shutil.copy(images / "a.tif", images / "a.tiff")
    assert "names that are unique" in spoco_zoo(*command, code=2).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "a folder of them" in spoco_zoo("segment", empty, "--model", run, code=2).stderr
    shutil.copy(images / "a.tif", empty / "a_cp_masks.tif")
    assert "labels alone" in spoco_zoo("segment", empty, "--model", run, code=2).stderr


def test_all_fields_of_a_plate_get_their_labels(images: Path, run: Path, tmp_path: Path) -> None:
    plate = tmp_path / "plate.zarr"
    for place, block in (
        (plate, {"plate": {"wells": [{"path": "B/2"}]}}),
        (plate / "B", {}),
        (plate / "B" / "2", {"well": {"images": [{"path": "0"}, {"path": "1"}]}}),
    ):
        place.mkdir()
        ome = {"attributes": {"ome": {"version": "0.5", **block}}}
        (place / "zarr.json").write_text(
            json.dumps({"zarr_format": 3, "node_type": "group", **ome})
        )
    for name in "01":
        shutil.copytree(images / "c.ome.zarr", plate / "B" / "2" / name)
    spoco_zoo("segment", plate, "--model", run, "--measure")
    rows = rows_of(tmp_path / "plate.zarr.spoco-run")
    assert list(rows) == ["B/2/0", "B/2/1"]
    assert int(rows["B/2/1"]["objects"]) > 0
    assert rows["B/2/1"]["labels"] == str(plate / "B" / "2" / "1" / "labels" / "spoco")
    table = pd.read_csv(tmp_path / "plate.zarr.spoco-run" / "objects.csv")
    assert set(table["image"]) == set(rows)
    plan = json.loads(spoco_zoo("segment", plate, "--model", run, "--dry-run").stdout)
    assert (plan["images"], plan["have_labels"]) == ([], ["B/2/0", "B/2/1"])
    spoco_zoo("segment", plate, "--model", run, "--output", tmp_path / "labels", "--no-report")
    assert {p.name for p in (tmp_path / "labels").glob("*.zarr")} == {
        "B_2_0.ome.zarr",
        "B_2_1.ome.zarr",
    }


def test_images_that_were_seen_at_different_sizes_are_told_of(tmp_path: Path) -> None:
    def row(name: str, objects: int, zoom: float | None) -> Row:
        report = tmp_path / f"{name}.json"
        report.write_text(json.dumps({"config": {"zoom": zoom}}))
        return Row(name, name, objects, report=report)

    same = (row("a", 3, None), row("b", 4, 1), row("empty", 0, 2), Row("lost"))
    assert remark_zoom(FolderResult(tmp_path, same)) == ""
    told = remark_zoom(FolderResult(tmp_path, (*same, row("c", 1, 2))))
    assert "2 as they are, 1 at 2 times their size. If all were taken alike, --zoom 1 -" in told


def test_only_names_that_match_are_segmented(images: Path, run: Path, tmp_path: Path) -> None:
    for name in ("s_w1.TIF", "s_w2.TIF", "s_w1.png"):
        shutil.copy(images / ("b.png" if name.endswith("png") else "a.tif"), images / name)
    command = ("segment", images, "--model", run, "--output", tmp_path / "labels")
    done = spoco_zoo(*command, "--only", "*_w1.TIF", "--no-report")
    assert json.loads(done.stdout)["images"] == 1
    assert [p.name for p in (tmp_path / "labels").glob("*.tif")] == ["s_w1.tif"]
    plan = json.loads(spoco_zoo(*command, "--only", "[ab].*", "--dry-run").stdout)
    assert plan["images"] == ["a.tif", "b.png"]
    done = spoco_zoo(*command, "--only", "*w3*", code=2)
    assert "found '*w3*' for 6 in" in done.stderr
    one = spoco_zoo("segment", images / "a.tif", "--model", run, "--only", "*", code=2)
    assert "--only chooses images of a folder" in one.stderr


def test_a_file_called_like_a_formula_is_no_formula_in_the_tables(
    run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("=A1+1.tif", "b=1.tif"):
        tifffile.imwrite(folder / name, disks(2)[0][0])
    spoco_zoo("segment", folder, "--model", run, "--output", tmp_path / "labels", "--measure")
    result = tmp_path / "labels.spoco-run"
    assert set(rows_of(result)) == {"./=A1+1.tif", "b=1.tif"}
    assert all((folder / name).is_file() for name in rows_of(result))
    assert "\n=" not in (result / "objects.csv").read_text()
