"""Clustering: the flags win over the file, the file over the model, entry by entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from bundle_runs import disks
from test_load import foreign
from typer.testing import CliRunner

import spoco_zoo
from spoco_zoo.cli import app
from spoco_zoo.config import ClusteringConfig, SegmentConfig
from spoco_zoo.nets.model import load_run
from spoco_zoo.segment import embed_part
from spoco_zoo.workflow import segment_with_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Exported


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "image.tif", disks(2)[0][0])
    return tmp_path / "image.tif"


def segmented(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["segment", *map(str, arguments), "--no-report"])
    assert done.exit_code == code, done.output
    return done.stderr


def used(image: Path) -> dict[str, Any]:
    """The clustering of the last run."""
    folder = image.with_name("image.spoco.tif.spoco-run")
    clustering = SegmentConfig.build(folder / "config.yaml").clustering
    assert clustering is not None
    return clustering.model_dump()


@pytest.mark.parametrize(
    ("flags", "changed"),
    [([], {}), (["--seed", 3], {"seed": 3}), (["--min-size", 7], {"min_size": 7})],
    ids=["none", "seed", "min-size"],
)
def test_a_flag_leaves_the_rest_of_the_file_and_the_model(
    flags: list, changed: dict, exported_2d: Exported, image: Path, tmp_path: Path
) -> None:
    tuned = load_run(exported_2d.run).recipe.clustering.model_dump()
    (tmp_path / "own.yaml").write_text("clustering: {bandwidth: 0.123, min_size: 9}\n")
    segmented(image, "--model", exported_2d.zip, "--config", tmp_path / "own.yaml", *flags)
    assert used(image) == {**tuned, "bandwidth": 0.123, "min_size": 9, **changed}


def test_python_and_command_line_take_the_same_from_the_model(
    exported_2d: Exported, image: Path
) -> None:
    tuned = load_run(exported_2d.run).recipe.clustering.model_dump()
    segmented(image, "--model", exported_2d.run, "--min-size", 7)
    assert used(image) == {**tuned, "min_size": 7}
    labels = tifffile.imread(image.with_name("image.spoco.tif"))
    for clustering in ({"min_size": 7}, ClusteringConfig(min_size=7)):
        spoco_zoo.segment(
            image, exported_2d.run, clustering=clustering, overwrite=True, progress=False
        )
        assert used(image) == {**tuned, "min_size": 7}
        assert np.array_equal(tifffile.imread(image.with_name("image.spoco.tif")), labels)


def test_objects_of_a_region_in_a_tiff_could_not_be_measured(
    exported_2d: Exported, image: Path
) -> None:
    region = ("--roi", "4:60,6:62")
    segmented(image, "--model", exported_2d.run, *region, "--measure")
    folder = image.with_name("image.spoco.tif.spoco-run")
    table = pd.read_csv(folder / "objects.csv")
    labels = tifffile.imread(image.with_name("image.spoco.tif"))
    values = tifffile.imread(image)[4:60, 6:62]
    assert len(table) == labels.max() > 0
    means = [values[labels == one].mean() for one in table["label"]]
    np.testing.assert_allclose(table.filter(regex="_mean$").to_numpy()[:, 0], means, rtol=1e-5)


def test_a_page_that_could_not_be_drawn_cost_the_result(exported_2d: Exported, image: Path) -> None:
    class Rough:
        """Takes the image away when it is no longer needed, but for the picture."""

        def __init__(self) -> None:
            self.notes: list[str] = []

        def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
            if phase == "relabel":
                image.unlink(missing_ok=True)

        def note(self, text: str) -> None:
            self.notes.append(text)

    display = Rough()
    result = segment_with_pictures(str(image), exported_2d.run, SegmentConfig(), display)
    assert result.objects > 0
    assert "but not the page and settings beside: the input must exist" in display.notes[-1]


def test_a_loaded_model_was_taken_for_the_path_of_one(exported_2d: Exported, image: Path) -> None:
    model = spoco_zoo.load_model(exported_2d.run)
    first = spoco_zoo.segment(image, model, progress=False)
    labels = tifffile.imread(first.output)
    spoco_zoo.segment(image, exported_2d.run, overwrite=True, progress=False)
    assert np.array_equal(tifffile.imread(first.output), labels)


@pytest.mark.parametrize("weights", ["torchscript", "onnx"])
def test_a_bundle_of_another_author_is_used_with_clustering_flags(
    weights: str, exported_2d: Exported, image: Path, tmp_path: Path
) -> None:
    bundle = foreign(exported_2d, tmp_path / "b", weights)
    lines = segmented(image, "--model", bundle, code=2).strip().splitlines()
    assert len(lines) == 1
    assert "Pass --clustering" in lines[0]
    flags = ("--clustering", "meanshift", "--bandwidth", 0.5)
    segmented(image, "--model", bundle, *flags, "--dry-run")
    workers = 1 if weights == "torchscript" else 0  # starting one takes a while
    segmented(image, "--model", bundle, *flags, "--workers", workers)
    wanted = {**ClusteringConfig().model_dump(), "method": "meanshift", "bandwidth": 0.5}
    assert used(image) == wanted
    spoco_zoo.segment(
        image,
        bundle,
        clustering={"method": "meanshift", "bandwidth": 0.5},
        overwrite=True,
        progress=False,
    )
    assert used(image) == wanted
    assert embed_part(image, bundle).embeddings.shape[0] == 4
