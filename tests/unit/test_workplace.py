"""A hidden folder to make something in: for one process, and cleared after a killed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).parent / "bundle"))
from bundle_runs import disks, make_run, trained_run
from test_annotated import write_pair

from spoco_zoo.bundle.export import ExportOptions, export
from spoco_zoo.complete import complete_annotation
from spoco_zoo.errors import ConfigError, LedgerError, StoreError
from spoco_zoo.folders import folder_of
from spoco_zoo.locking import alone_in
from spoco_zoo.ngff import convert, open_image
from spoco_zoo.workplace import FORMER, WORK, workplace

KILLED = """
import os, sys
from pathlib import Path
from spoco_zoo.workplace import workplace

with workplace(Path(sys.argv[1])) as work:
    (work / "labels").mkdir()
    (work / "labels" / "half.tif").write_text("half")
    (work / "members").touch()
    os._exit(0)
"""


def die_at_work(target: Path) -> None:
    """Leave what a killed process leaves."""
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", KILLED, str(target)], check=True, env=paths)
    assert target.with_name(f".{target.name}.partial").is_dir()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    die_at_work(tmp_path / "b.zip")
    with workplace(tmp_path / "b.zip") as work:
        assert names(work) == []
    assert names(tmp_path) == []


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with workplace(tmp_path / "b.zip") as work:
        (work / "members").touch()
        with pytest.raises(LedgerError, match=str(os.getpid())), workplace(tmp_path / "b.zip"):
            pass
        assert names(work) == ["members"]
        with workplace(tmp_path / "other.zip"):
            pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(("owner", "name"), [(Path, "iterdir"), (os, "open")])
def test_a_folder_that_another_process_was_just_done_with(
    owner: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended in "no such file": of three processes with one output one in six of those let in."""
    folder, real = tmp_path / ".b.zip.partial", getattr(owner, name)
    removals = iter([folder.rmdir])

    def removed_before(path: Path, *args: object, **kwargs: object) -> object:
        if folder in (path, Path(path).parent):
            next(removals, lambda: None)()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(owner, name, removed_before)
    with workplace(tmp_path / "b.zip") as work:
        assert list(os.scandir(work)) == []
    assert names(tmp_path) == []
    assert list(removals) == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".b.partial").mkdir()
    (tmp_path / ".b.partial" / "thesis.txt").write_text("text")
    with (
        pytest.raises(StoreError, match=r"left to this program; found 'thesis\.txt'"),
        workplace(tmp_path / "b"),
    ):
        pass
    assert names(tmp_path / ".b.partial") == ["thesis.txt"]


def test_what_was_to_be_replaced_comes_back_after_a_kill_in_between(tmp_path: Path) -> None:
    die_at_work(tmp_path / "b")
    (tmp_path / ".b.partial" / WORK / FORMER).mkdir()
    (tmp_path / ".b.partial" / WORK / FORMER / "rdf.yaml").write_text("whole")
    with workplace(tmp_path / "b"):
        assert (tmp_path / "b" / "rdf.yaml").read_text() == "whole"
    assert names(tmp_path) == ["b"]


def test_killed_exports_and_completions_left_hidden_folders(tmp_path: Path) -> None:
    image, labels = disks(2)
    data = write_pair(tmp_path / "data", image[0], labels, None)
    for name in ("more", "b.zip"):
        die_at_work(tmp_path / name)
    run = trained_run(tmp_path / "trained")
    complete_annotation(
        run, data / "images", data / "labels", tmp_path / "more", background_label=255
    )
    options = ExportOptions("Disks", ("A",), formats=("pytorch_state_dict",))
    export(make_run(tmp_path / "run", 2), tmp_path / "b.zip", options)
    assert names(tmp_path) == ["b.zip", "data", "more", "run", "trained"]
    assert names(tmp_path / "more") == ["a.tif"]


@pytest.mark.parametrize("name", ["b.zip", "b"])
def test_an_export_below_a_file_ended_without_a_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ExportOptions("Disks", ("A",), formats=("pytorch_state_dict",))
    with pytest.raises(StoreError, match=r"--out must lie in a folder that can be written"):
        export(make_run(tmp_path / "run", 2), tmp_path / "file" / name, options)


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
def test_an_image_that_a_killed_conversion_had_put_aside_comes_back(
    tmp_path: Path, suffix: str
) -> None:
    source, target = tmp_path / "a.tif", tmp_path / f"b{suffix}"
    tifffile.imwrite(source, np.arange(64, dtype=np.uint8).reshape(8, 8))
    convert(source, target)
    die_at_work(target)
    target.rename(tmp_path / f".{target.name}.partial" / WORK / FORMER)
    with pytest.raises(StoreError, match="not replaced"):
        convert(source, target)
    assert open_image(target).spatial_shape() == (8, 8)
    tifffile.imwrite(source, np.ones((4, 4), np.uint8))
    convert(source, target, overwrite=True)
    assert open_image(target).spatial_shape() == (4, 4)
    assert names(tmp_path) == sorted(["a.tif", target.name])


def test_two_conversions_to_one_target(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint8))
    target = tmp_path / "b.tif"
    with workplace(target), pytest.raises(LedgerError, match=str(os.getpid())):
        convert(tmp_path / "a.tif", target)
    assert names(tmp_path) == ["a.tif"]


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint8))
    convert(tmp_path / "a.tif", tmp_path / "b.ome.zarr")
    (tmp_path / "link.ome.zarr").symlink_to("b.ome.zarr")
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.uint8))
    convert(tmp_path / "a.tif", tmp_path / "link.ome.zarr", overwrite=True)
    assert (tmp_path / "link.ome.zarr").is_symlink()
    assert open_image(tmp_path / "b.ome.zarr").spatial_shape() == (4, 4)


def test_a_folder_that_was_made_in_vain_goes_with_its_parents(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with alone_in(tmp_path / "mine" / "deep" / "run"):
        assert (tmp_path / "mine" / "deep" / "run").is_dir()
    assert list((tmp_path / "mine").iterdir()) == []
    with alone_in(tmp_path / "deep" / "run"):
        (tmp_path / "deep" / "run" / "table").touch()
    assert (tmp_path / "deep" / "run" / "table").exists()


def test_there_is_no_folder_beside_labels_in_an_object_store() -> None:
    with pytest.raises(ConfigError, match="local folder"):
        folder_of("plate", "s3://bucket/labels")
