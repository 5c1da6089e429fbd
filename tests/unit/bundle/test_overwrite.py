"""What `export --overwrite` replaces, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest
from bundle_runs import make_run

from spoco_zoo.bundle.export import ExportOptions, _check_destination, export
from spoco_zoo.bundle.load import load_model
from spoco_zoo.errors import BundleError
from spoco_zoo.workplace import put_in_place

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Exported

OPTIONS = ExportOptions(
    name="A model", authors=("A",), formats=("pytorch_state_dict", "torchscript")
)


def test_an_existing_bundle_is_not_overwritten(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    (tmp_path / "b.zip").write_text("mine")
    with pytest.raises(BundleError, match="exists"):
        export(run, tmp_path / "b.zip", OPTIONS)
    assert (tmp_path / "b.zip").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_that_leads_nowhere_stays(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "b.zip").symlink_to(tmp_path / "gone" / "b.zip")
    with pytest.raises(BundleError, match="a link that leads nowhere"):
        _check_destination(tmp_path / "b.zip", dataclasses.replace(OPTIONS, overwrite=overwrite))
    assert (tmp_path / "b.zip").is_symlink()


@pytest.mark.parametrize("kind", ["folder", "file", "link", "archive", "damaged"])
def test_overwrite_does_not_delete_what_is_no_bundle(kind: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    data = tmp_path / "my-data"
    data.mkdir()
    (data / "results.txt").write_text("mine")
    (tmp_path / "link").symlink_to(data)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("inner/rdf.yaml", "{}")
    (tmp_path / "damaged.zip").touch()
    places = {"folder": data, "file": data / "results.txt", "link": tmp_path / "link"}
    out = places.get(kind, tmp_path / f"{kind}.zip")
    with pytest.raises(BundleError, match=r"nothing else; found .*another f"):
        export(run, out, dataclasses.replace(OPTIONS, overwrite=True))
    assert (data / "results.txt").read_text() == "mine"
    assert out.exists()


def test_overwrite_deleted_foreign_files_in_a_bundle_s_folder(
    exported_2d: Exported, tmp_path: Path
) -> None:
    shutil.copytree(exported_2d.folder, tmp_path / "b")
    options = dataclasses.replace(exported_2d.options, overwrite=True)
    _check_destination(tmp_path / "b", options)
    (tmp_path / "b" / "results.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"nothing else; found 'results\.txt'"):
        _check_destination(tmp_path / "b", options)


@pytest.mark.parametrize("former", ["bundle", "empty", "zip"])
def test_overwrite_replaces_a_bundle_whole(former: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    place = tmp_path / "out"
    out = place / ("b.zip" if former == "zip" else "b")
    out.mkdir(parents=True)
    if former == "bundle":
        (out / "rdf.yaml").write_text("attachments: [{source: old.txt}]")
        (out / "old.txt").write_text("old")
    if former == "zip":
        out.rmdir()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("rdf.yaml", "{}")
    options = dataclasses.replace(OPTIONS, overwrite=True, formats=("pytorch_state_dict",))
    assert load_model(export(run, out, options).path).recipe.net.ndim == 2
    assert not (out / "old.txt").exists()
    assert list(place.iterdir()) == [out]


def test_a_bundle_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    out, finished = tmp_path / "b", tmp_path / "finished"
    out.mkdir()
    (out / "rdf.yaml").write_text("mine")
    with pytest.raises(FileNotFoundError):
        put_in_place(finished, out, tmp_path / "former")
    assert (out / "rdf.yaml").read_text() == "mine"
