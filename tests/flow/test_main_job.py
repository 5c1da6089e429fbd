"""The whole tool as its users run it: commands in processes of their own, real components."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from ome_zarr_models import open_ome_zarr
from zarr import open_group

from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.ngff import open_image
from spoco_zoo.segment import open_labels


def spoco_zoo(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command and check its exit code."""
    command = [sys.executable, "-m", "spoco_zoo", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A short demo: enough steps to find most cells, not enough to be proud of."""
    out = tmp_path_factory.mktemp("flow") / "demo"
    done = spoco_zoo("demo", "--out", out, "--size", 320, "--iterations", 150, "--workers", 2)
    return out, json.loads(done.stdout)


def test_the_demo_finds_most_cells(demo: tuple[Path, dict[str, Any]]) -> None:
    out, summary = demo
    assert summary["ap50"] > 0.6
    assert set(summary["bundle_formats"]) == {"pytorch_state_dict", "torchscript", "onnx"}
    for name in ("report.html", "run/report.html", "run/preview.png", "run/training.png"):
        assert (out / name).stat().st_size > 1000
    assert Path(summary["picture"]).stat().st_size > 1000


def test_the_labels_are_a_valid_ome_zarr(demo: tuple[Path, dict[str, Any]]) -> None:
    out, summary = demo
    image = open_image(out / "big.ome.zarr")
    labels = open_labels(out / "big.ome.zarr")
    assert labels.shape == image.spatial_shape(0)
    assert int(labels.max()) == summary["objects"]
    open_ome_zarr(open_group(str(out / "big.ome.zarr"), mode="r"), version="0.5")
    found = open_image(summary["labels"])
    assert [level.shape for level in found.levels] == [level.shape for level in image.levels]


def test_segmenting_again_needs_overwrite_or_another_name(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = demo
    model = out / "model.zip"
    done = spoco_zoo("segment", out / "big.ome.zarr", "--model", model, code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    plan = json.loads(
        spoco_zoo(
            "segment", out / "big.ome.zarr", "--model", model, "--label-name", "two", "--dry-run"
        ).stdout
    )
    assert plan["output"].endswith("labels/two")


@pytest.mark.parametrize("method", ["meanshift", "hdbscan", "consistency"])
def test_every_clustering_is_a_flag_away(
    demo: tuple[Path, dict[str, Any]], method: str, tmp_path: Path
) -> None:
    out, _ = demo
    image, truth = crowded_cells((128, 128), 4242)
    tifffile.imwrite(tmp_path / "cells.tif", image)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    labels = tmp_path / "labels.tif"
    spoco_zoo(
        *("segment", tmp_path / "cells.tif", "--model", out / "model.zip", "--output", labels),
        *("--clustering", method, "--bandwidth", 1.0),
    )
    found = tifffile.imread(labels)
    assert found.shape == truth.shape
    scores = json.loads(spoco_zoo("evaluate", labels, tmp_path / "truth.tif").stdout)
    assert scores["mean"]["n_predicted"] == len(np.unique(found[found > 0])) > 5


def test_the_bundle_checks_and_a_run_segments_like_its_bundle(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = demo
    report = json.loads(spoco_zoo("export", "--check", out / "model.zip").stdout)
    assert report["passed"]
    assert report["labels"] == "equal"
    image, _ = crowded_cells((100, 117), 77)
    tifffile.imwrite(tmp_path / "cells.tif", image)
    results = []
    for name, model in (("run", out / "run"), ("zip", out / "model.zip")):
        labels = tmp_path / f"{name}.tif"
        spoco_zoo("segment", tmp_path / "cells.tif", "--model", model, "--output", labels)
        results.append(tifffile.imread(labels))
    np.testing.assert_array_equal(*results)


def test_sparse_training_in_3d_from_the_command_line(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(2):
        image, labels = crowded_cells((24, 48, 48), number, diameter=14)
        labels[0] = 255
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"{number}.tif", labels.astype(np.uint16))
    config = tmp_path / "small.yaml"
    config.write_text("features: [4, 8]\ncrop: [8, 32, 32]\nbatch_size: 1\niterations: 999\n")
    done = spoco_zoo(
        *("train", "--images", tmp_path / "images", "--labels", tmp_path / "labels"),
        *(
            "--out",
            tmp_path / "run",
            "--ndim",
            3,
            "--annotation",
            "sparse",
            "--instance-ratio",
            0.5,
        ),
        *("--background-label", 255, "--config", config, "--iterations", 4, "--device", "cpu"),
        *("--voxel-size", "0.2,0.1,0.1"),
    )
    metrics = json.loads(done.stdout)
    assert metrics["iterations"] == 4
    recipe = json.loads((tmp_path / "run" / "model.json").read_text())
    assert recipe["annotation"] == "sparse"
    assert recipe["net"]["pooling"] == [[1, 2, 2]]
    assert recipe["background"] == [0.0] * 8


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("segment", "nowhere.ome.zarr", "--model", "nothing.zip"), "nowhere.ome.zarr"),
        (("evaluate", "a.tif", "b.tif"), "a.tif"),
        (("convert", "a.tif", "b.ome.zarr"), "a.tif"),
        (("train", "--images", "a", "--labels", "b", "--out", "c"), "--images must be a folder"),
        (
            ("train", "--images", "a", "--labels", "b", "--out", "c", "--crop", "x"),
            "--crop must be",
        ),
        (("train", "--images", "a", "--labels", "b", "--out", "c", "--ndim", "4"), "'ndim'"),
        (("export", "nowhere", "--out", "x.zip", "--name", "A model"), "nowhere"),
    ],
)
def test_unusable_input_ends_with_one_line_and_code_2(
    arguments: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "spoco_zoo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
