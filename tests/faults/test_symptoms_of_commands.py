"""Commands that once destroyed a file, hung, or ended in a traceback over a slip of the pen."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
sys.path.insert(0, str(Path(__file__).parent))
from hearing import all_ears
from planted import code_model, exact_cluster, tissue, write_image
from typer.testing import CliRunner

from spoco_zoo.beside import measure_result
from spoco_zoo.cli import app
from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import find_labels, write_label_tiff
from spoco_zoo.report.progress import progress
from spoco_zoo.segment import segment

CELLS = tissue((60, 70), 12, seed=1)
MODEL = code_model(CELLS)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "a.tif", CELLS.astype(np.uint16))
    return tmp_path / "a.tif"


def label(source: Path, output: Path, *, overwrite: bool = True) -> None:
    segment(source, MODEL, output=output, overwrite=overwrite, cluster=exact_cluster)


def refused(*arguments: str | Path) -> str:
    """What a command says that ends with exit code 2 and one line."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 2, (done.stderr, done.exception)
    assert len([x for x in done.stderr.splitlines() if x.startswith("spoco-zoo: ")]) == 1
    return done.stderr


@pytest.mark.parametrize("name", ["a.tif", "soft.tif", "hard.tif", "folder/a.tif"])
def test_overwrite_replaced_the_image_itself_by_its_labels(image: Path, name: str) -> None:
    (image.parent / "soft.tif").symlink_to(image)
    (image.parent / "hard.tif").hardlink_to(image)
    (image.parent / "folder").symlink_to(image.parent)
    before = image.read_bytes()
    with pytest.raises(StoreError, match="outside its input"):
        label(image, image.parent / name)
    assert image.read_bytes() == before
    assert not list(image.parent.glob("*.spoco-run"))


@pytest.mark.parametrize("kind", ["grey", "colour", "text", "folder", "dangling"])
def test_overwrite_replaced_files_that_are_no_labels(image: Path, kind: str) -> None:
    other = image.parent / "other.tif"
    if kind == "text":
        other.write_text("notes")
    elif kind == "folder":
        other.mkdir()
    elif kind == "dangling":
        other.symlink_to("nowhere")
    else:
        colour = {"photometric": "rgb"} if kind == "colour" else {}
        tifffile.imwrite(other, np.ones((60, 70, 3)[: 3 if colour else 2], np.uint8), **colour)
    with pytest.raises(StoreError, match="only labels are ever replaced"):
        label(image, other)
    assert (other.is_symlink(), other.is_dir()) == (kind == "dangling", kind == "folder")
    if kind == "grey":
        assert tifffile.imread(other).dtype == np.uint8


def test_labels_of_a_tiff_are_replaced_with_and_without_their_mark(image: Path) -> None:
    output = image.parent / "labels.tif"
    label(image, output, overwrite=False)
    with pytest.raises(StoreError, match="add --overwrite"):
        label(image, output, overwrite=False)
    tifffile.imwrite(output, tifffile.imread(output) * 0)  # as other software saves it
    label(image, output)
    os.rename(output, image.parent / "moved.tif")
    label(image, image.parent / "moved.tif")
    assert tifffile.imread(image.parent / "moved.tif").max() == 12


def test_labels_were_written_into_the_store_of_the_image(tmp_path: Path) -> None:
    store = write_image(tmp_path / "a.ome.zarr", CELLS, "YX")
    (tmp_path / "link").symlink_to(store)
    for output in (store / "x.tif", tmp_path / "link" / "x.tif", tmp_path / "link" / "x.zarr"):
        with pytest.raises(StoreError, match="outside its input"):
            label(store, output)
        assert not output.exists()


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--workers -1", "0 or more"),
        ("--device gpu", "auto, cpu, cuda"),
        ("--device cuda:x", "auto, cpu, cuda"),
        ("--device meta", "auto, cpu, cuda"),
        ("--device cuda:99", "and be there"),
        ("--device cuda:99 --workers 2", "and be there"),
        ("--device gpu --scheduler none.json", "auto, cpu, cuda"),
        ("--gpus a", "indices of GPUs"),
        ("--gpus 99", "indices of GPUs"),
        ("--gpus 0 --device cpu", "one GPU"),
        ("--workers 2 --scheduler none.json", "its own workers"),
    ],
)
def test_machines_that_are_not_there_cost_the_labels_or_time_or_were_ignored(
    image: Path, asked: str, said: str, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    labels = image.parent / "labels.tif"
    label(image, labels, overwrite=False)
    before = labels.read_bytes()
    arguments = [*asked.split(), "--output", labels, "--overwrite", *flags]
    assert said in refused("segment", image, "--model", "nuclei-fluo-2d", *arguments)
    assert labels.read_bytes() == before


def test_a_version_of_ome_zarr_was_ignored_where_a_tiff_is_written(image: Path) -> None:
    asked = ("--model", "nuclei-fluo-2d", "--ome-zarr-version", "0.4", "--dry-run")
    assert "ends in .ome.zarr" in refused("segment", image, *asked)


@pytest.mark.parametrize("command", ["convert", "segment", "measure"])
def test_of_several_images_in_a_file_the_first_was_used_without_a_word(
    tmp_path: Path, command: str
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(np.arange(32 * 40, dtype=np.uint16).reshape(32, 40))  # a thumbnail
        tiff.write(CELLS.astype(np.uint16))
    write_label_tiff(tmp_path / "l.tif", np.ones((32, 40), int))
    places = {
        "convert": ["convert", "a.tif", "o.ome.zarr"],
        "segment": ["segment", "a.tif", "--model", "nuclei-fluo-2d", "--dry-run"],
        "measure": ["measure", "l.tif", "a.tif", "--out", "o.csv"],
    }[command]
    arguments = [str(tmp_path / one) if "." in one else one for one in places]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.stderr, done.exception)
    said = done.stdout if command == "segment" else done.stderr
    assert "2 images: 0: YX (32, 40); 1: YX (60, 70). The first is used" in said
    assert "--series 1" in said


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize(
    ("place", "rule"),
    [("none/x.json", "a file in a folder that can be written"), (".", "a new file, or one that")],
)
def test_scores_that_had_no_place_ended_in_a_traceback_after_all_the_work(
    tmp_path: Path, option: str, place: str, rule: str
) -> None:
    write_label_tiff(tmp_path / "l.tif", CELLS)
    labels = tmp_path / "l.tif"
    said = refused("evaluate", labels, labels, option, tmp_path / place)
    assert f"{option} must name {rule}" in said
    assert [file.name for file in tmp_path.iterdir()] == ["l.tif"]


def test_a_table_that_had_no_place_was_measured_first(image: Path) -> None:
    said = refused("measure", image, image, "--out", image.parent / "none" / "x.csv")
    assert "--out must name a file in a folder that can be written" in said


def test_a_demo_in_place_of_a_file_ended_in_a_traceback(image: Path) -> None:
    assert "--out must be a new or empty folder" in refused("demo", "--out", image)


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_beyond_all_ports_ended_in_a_traceback(image: Path, port: str) -> None:
    pytest.importorskip("neuroglancer")
    assert "port must be" in refused("view", image, "--no-browser", "--port", port)


def test_a_channel_of_superscript_digits_ended_in_a_traceback(image: Path) -> None:
    assert "--channel" in refused("segment", image, "--model", "nuclei-fluo-2d", "--channel", "²")


@pytest.mark.parametrize("name", ["ü b", "a b", "../x", "_a", ""])
def test_names_of_labels_that_the_rule_forbids_were_taken(image: Path, name: str) -> None:
    said = refused("segment", image, "--model", "nuclei-fluo-2d", "--label-name", name)
    assert "a label's name must be" in said


@pytest.mark.parametrize("output", ["part.tif", "part.ome.zarr"])
def test_objects_of_a_region_could_not_be_measured_in_a_tiff(image: Path, output: str) -> None:
    region = SegmentConfig(roi=((10, 50), (20, 70)))
    result = segment(str(image), MODEL, region, output=image.parent / output, cluster=exact_cluster)
    with progress(quiet=True) as shown:
        table = pd.read_csv(measure_result(str(image), result.output, result.report, region, shown))
    labels = find_labels(result.output).read(0, 0, None, (slice(0, 40), slice(0, 50)))[0]
    for name in table["label"]:
        inside = CELLS[10:50, 20:70][labels == name]
        assert (table.loc[table["label"] == name, "channel0_mean"] == inside.mean()).all()
    assert len(table) == result.objects > 1


def test_a_table_that_could_not_be_written_hid_the_labels(image: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "objects.csv")

    monkeypatch.setattr("spoco_zoo.beside.write_table", full)
    command = ["segment", str(image), "--model", "nuclei-fluo-2d", "--measure"]
    done = CliRunner().invoke(app, [*command, "--output", str(image.with_name("labels.tif"))])
    assert json.loads(done.stdout)["output"] == str(image.with_name("labels.tif"))
    assert done.exit_code == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_with_a_tilde_made_a_folder_of_that_name(image: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(image.parent))
    monkeypatch.chdir(image.parent)
    done = CliRunner().invoke(app, ["measure", "~/a.tif", "a.tif", "--out=~/table.csv"])
    assert done.exit_code == 0, done.stderr
    assert len(pd.read_csv(image.parent / "table.csv")) == CELLS.max()
    assert not (image.parent / "~").exists()


def test_a_result_that_could_not_be_printed_was_taken_for_a_run_to_go_on_with(image: Path) -> None:
    target = image.with_name("labels.tif")
    command = [sys.executable, "-m", "spoco_zoo", "segment", str(image), "-q"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--model", "nuclei-fluo-2d-sparse", "--output", str(target)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "all is done, but the result could not be printed" in done.stderr
    assert "Go on with" not in done.stderr
    assert target.exists()


def test_messages_that_could_not_be_shown_ended_a_run(image: Path) -> None:
    target = image.with_name("labels.tif")
    command = [sys.executable, "-m", "spoco_zoo", "segment"]
    options = ["--model", "nuclei-fluo-2d-sparse", "--output", str(target)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, str(image), *options], stderr=full, stdout=-1, check=False)
        assert done.returncode == 0
        assert json.loads(done.stdout)["output"] == str(target)
        missing = subprocess.run([*command, "none.tif", *options], stderr=full, check=False)
    assert missing.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_end_that_was_asked_for_left_half_a_conversion(image: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(image, rng.integers(0, 2**16, (6000, 6000), np.uint16))
    target = image.with_name("b.ome.zarr")
    command = [sys.executable, "-m", "spoco_zoo", "convert", str(image), str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=all_ears)
    while not (image.parent / f".{target.name}.partial" / "work" / target.name / "0").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "spoco-zoo: interrupted"
    # Threads of zarr that were at work may leave something even then, which is no hindrance.
    assert not target.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in image.parent.iterdir()) == [image.name, target.name]
