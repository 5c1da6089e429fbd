"""Models by name: in a folder of bundles, listed without reading a weight, and used offline."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import yaml
from bundle_runs import disks

from spoco_zoo.bundle.export import cluster_script
from spoco_zoo.bundle.layout import CLUSTER_SCRIPT
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.shipped import (
    MODELS_VARIABLE,
    describe_model,
    find_shipped,
    shipped_models,
)
from spoco_zoo.cli.models import card_text
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from conftest import Exported

# What a process imports first: from then on no address can be reached.
OFFLINE = """
import socket
def refuse(*args, **kwargs):
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
"""


@pytest.fixture
def folder(exported_2d: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(exported_2d.zip, models / "balls-2d.zip")
    (models / "Not An Id.zip").touch()
    (models / "notes.txt").touch()
    monkeypatch.setenv(MODELS_VARIABLE, str(models))
    return models


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    script = f"{code}\nfrom spoco_zoo.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_a_card_says_what_the_bundle_says(folder: Path, exported_2d: Exported) -> None:
    assert "balls-2d" in shipped_models()
    assert "Not An Id" not in shipped_models()
    card = describe_model("balls-2d")
    assert (card.ndim, card.channels, card.voxel_size) == (2, ("DAPI",), (0.5, 0.5))
    assert card.authors == ("Jane Doe", "John Roe")
    assert card.figures["test"] == {"ap50": 0.7, "sbd": 0.8, "n_images": 3}
    assert card.judged_on == "test"
    assert card.figure("ap50") == 0.7
    assert card.figure("ap75") is None
    assert card.size == exported_2d.zip.stat().st_size
    assert load_model("balls-2d").recipe == load_model(exported_2d.zip).recipe


def test_a_bundle_is_described_as_a_file_and_as_a_folder(
    exported_2d: Exported, tmp_path: Path
) -> None:
    with zipfile.ZipFile(exported_2d.zip) as archive:
        archive.extractall(tmp_path / "bundle")
    file, folder = (describe_model(str(path)) for path in (exported_2d.zip, tmp_path / "bundle"))
    assert dataclasses.replace(folder, id=file.id, size=file.size) == file
    assert folder.size > file.size


def test_the_list_is_for_people_and_for_programs(folder: Path) -> None:
    table = run("models")
    assert table.returncode == 0, table.stderr
    row = next(line for line in table.stdout.splitlines() if "balls-2d" in line)
    assert "0.70" in row
    assert "2D" in row
    assert "segment IMAGE --model balls-2d" in table.stderr
    ours = next(
        m for m in json.loads(run("models", "--json").stdout)["models"] if m["id"] == "balls-2d"
    )
    assert ours["figures"]["validation"]["ap50"] == 0.8123
    one = run("models", "balls-2d")
    assert "0.812" in one.stdout
    assert "Jane Doe" in one.stdout


def test_listing_reads_no_weight(folder: Path) -> None:
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))"
    listed = run("models", code=code)
    assert listed.stdout.splitlines()[-1] == "False"


def test_an_unknown_id_ends_with_those_that_exist(folder: Path) -> None:
    done = run("models", "nuclei-on-mars")
    assert done.returncode == 2
    assert "balls-2d" in done.stderr


def test_names_in_a_bundle_do_not_command_the_terminal(folder: Path) -> None:
    path = folder / "balls-2d.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    rdf = yaml.safe_load(members["rdf.yaml"])
    rdf["description"] = "\x1b[2Jgone [red]x[/red]"
    members["rdf.yaml"] = yaml.safe_dump(rdf).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    listed = run("models")
    assert "\x1b" not in listed.stdout
    assert "[red]x" in listed.stdout


def test_one_damaged_bundle_hid_all_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "damaged.zip").write_text("none")
    (folder / "balls-2d").mkdir()
    monkeypatch.chdir(folder)
    listed = run("models", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "balls-2d" in [model["id"] for model in json.loads(listed.stdout)["models"]]
    lines = listed.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["damaged", "Not An Id.zip"]
    assert describe_model("balls-2d").name == "Balls in 2D (test)"


def test_a_share_of_the_objects_is_told_only_where_it_is_one(folder: Path) -> None:
    card = dataclasses.replace(
        describe_model("balls-2d"), annotation="sparse", annotated_fraction=1.0
    )
    assert "of the objects" not in card_text(card)
    assert "sparse" in card_text(card)
    assert "sparse (30% of" in card_text(dataclasses.replace(card, annotated_fraction=0.3))


def test_models_did_not_find_a_bundle_by_its_path(folder: Path) -> None:
    shown = run("models", str(folder / "balls-2d.zip"))
    assert shown.returncode == 0, shown.stderr
    assert "Balls in 2D" in shown.stdout


def test_a_bundle_without_a_recipe_is_named(folder: Path) -> None:
    with zipfile.ZipFile(folder / "empty.zip", "w") as archive:
        archive.writestr(
            "rdf.yaml",
            "type: model\nformat_version: 0.5.4\nweights: {onnx: {source: a.onnx}}\n",
        )
    with pytest.raises(BundleError, match="empty"):
        describe_model("empty")


def test_segment_by_name_without_a_network(folder: Path, tmp_path: Path) -> None:
    image, _ = disks(2)
    tifffile.imwrite(tmp_path / "nuclei.tif", image[0].astype(np.uint16))
    done = run(
        "segment", str(tmp_path / "nuclei.tif"), "--model", "balls-2d",
        "--output", str(tmp_path / "labels.tif"), "--no-report", code=OFFLINE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert labels.shape == image.shape[1:]
    assert labels.max() == json.loads(done.stdout)["objects"] > 0


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_bundles_hold_the_clustering_of_now(name: str) -> None:
    """Else `export --check` takes their script for a foreign one, and does not run it."""
    with find_shipped(name) as path, zipfile.ZipFile(path) as bundle:
        assert bundle.read(CLUSTER_SCRIPT) == cluster_script()
