"""The tool on a CUDA device, against itself on the CPU. Skipped where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from spoco_zoo import evaluate, load_model
from spoco_zoo.cli import app
from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.nets.receptive import exact_halo, pooling_factor, receptive_radius
from spoco_zoo.segment.blocks import make_box
from spoco_zoo.segment.embed import embed
from spoco_zoo.segment.field import make_field
from spoco_zoo.segment.network.inference import made_ready

pytestmark = pytest.mark.gpu
# Distances between embeddings of both devices; delta_var is 0.5. In float32 sums have another
# order. bfloat16 is a fiftieth of delta_var off as a rule, and more in a few voxels.
CLOSE, ROUNDED = 2e-3, 0.25


def spoco_zoo(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images and labels, and a run that was trained on the device."""
    folder = tmp_path_factory.mktemp("gpu")
    for n in range(12):
        image, labels = crowded_cells((160, 160), n)
        for kind, values in (("images", image), ("labels", labels)):
            (folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(folder / kind / f"{n}.tif", values)
    (folder / "c.yaml").write_text("iterations: 300\nvalidate_every: 100\nbatch_size: 16\n")
    train = ["train", *pairs(folder), "--out", folder / "run", "--config", folder / "c.yaml"]
    spoco_zoo(*train, "--device", "cuda")
    return folder


def pairs(data: Path) -> list[object]:
    return ["--images", data / "images", "--labels", data / "labels"]


def test_training_learns(data: Path) -> None:
    metrics = json.loads((data / "run" / "metrics.json").read_text())
    assert metrics["validation"]["ap50"] > 0.8
    lines = (data / "run" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < 0.6 * losses[0]


def test_a_sparse_run_goes_on_after_its_first_checkpoint(data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("iterations: 8\nvalidate_every: 4\nbatch_size: 4\n")
    train = ["train", *pairs(data), "--out", tmp_path / "run", "--config", tmp_path / "c.yaml"]
    train += ["--instance-ratio", "0.3", "--device", "cuda"]
    spoco_zoo(*train)
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "consistency" in log
    (tmp_path / "run" / "model.json").unlink()
    spoco_zoo(*train, "--resume")
    assert (tmp_path / "run" / "model.json").is_file()


@pytest.fixture(scope="module")
def image(data: Path) -> Path:
    """An image that is made in many blocks, with its truth beside it."""
    pixels, truth = crowded_cells((600, 640), 99)
    tifffile.imwrite(data / "big.tif", pixels)
    tifffile.imwrite(data / "truth.tif", truth)
    return data / "big.tif"


def field_of(
    data: Path, image: Path, device: torch.device, precision: Any, batch: int
) -> torch.Tensor:
    """Embeddings of the whole image in patches, on the CPU."""
    model = load_model(data / "run")
    pixels = tifffile.imread(image).astype(np.float32)
    scaled = ((pixels - pixels.mean()) / pixels.std())[None]
    net = model.recipe.net
    field = make_field(
        pixels.shape, (128, 128), exact_halo(net),
        factor=pooling_factor(net), radius=receptive_radius(net), blend="linear",
    )  # fmt: skip
    region = make_box([(0, n) for n in pixels.shape])
    network = made_ready(model.network, device, precision)
    found = embed(network, scaled, field, region, net=net, device=device, batch=batch)
    return found.embeddings.cpu()


@pytest.mark.parametrize(
    ("precision", "share", "tolerance"), [("float32", 1.0, CLOSE), ("auto", 0.999, ROUNDED)]
)
def test_embeddings_are_those_of_the_cpu(
    data: Path, image: Path, precision: Any, share: float, tolerance: float
) -> None:
    own = field_of(data, image, torch.device("cuda"), precision, 16)
    other = field_of(data, image, torch.device("cpu"), "float32", 1)
    apart = (own - other).norm(dim=0).numpy()
    assert np.quantile(apart, share) < tolerance


def test_a_batch_is_halved_while_memory_is_short(data: Path, image: Path) -> None:
    device = torch.device("cuda")
    whole = field_of(data, image, device, "float32", 4)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    field_of(data, image, device, "float32", 1)
    single = torch.cuda.max_memory_reserved()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(2.5 * single / total)
        pressed = field_of(data, image, device, "float32", 128)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert float((pressed - whole).abs().max()) < CLOSE


def segmented(image: Path, data: Path, out: Path, *options: object) -> np.ndarray:
    spoco_zoo("segment", image, "--model", data / "run", "--output", out, *options)
    return tifffile.imread(out)


@pytest.mark.parametrize("method", ["instance", "meanshift", "hdbscan"])
def test_the_objects_are_those_of_the_cpu(
    data: Path, image: Path, tmp_path: Path, method: str
) -> None:
    options = ["--clustering", method, "--block", "256,256", "--overlap", "32,32"]
    segmented(image, data, tmp_path / "a.tif", *options, "--device", "cuda")
    segmented(image, data, tmp_path / "b.tif", *options, "--device", "cpu")
    scores = evaluate(tmp_path / "a.tif", tmp_path / "b.tif")
    assert scores.pooled.ap50 > 0.97, scores
    if method == "instance":
        assert evaluate(tmp_path / "a.tif", data / "truth.tif").pooled.ap50 > 0.8


def test_float32_on_both_devices_gives_nearly_every_voxel_alike(
    data: Path, image: Path, tmp_path: Path
) -> None:
    options = ["--precision", "float32", "--block", "256,256", "--overlap", "32,32"]
    own = segmented(image, data, tmp_path / "a.tif", *options, "--device", "cuda")
    other = segmented(image, data, tmp_path / "b.tif", *options, "--device", "cpu")
    assert ((own > 0) == (other > 0)).mean() > 0.999
    assert evaluate(tmp_path / "a.tif", tmp_path / "b.tif").pooled.ap50 > 0.99


def test_workers_have_a_device_each(data: Path, image: Path, tmp_path: Path) -> None:
    options = ["--block", "256,256", "--overlap", "32,32"]
    segmented(image, data, tmp_path / "a.tif", *options, "--device", "cuda")
    command = [sys.executable, "-m", "spoco_zoo", "segment", image, "--model", data / "run"]
    command += ["--output", tmp_path / "b.tif", *options, "--gpus", "0"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Not voxel by voxel: which patches share a batch, and so the order of sums, is another.
    assert evaluate(tmp_path / "b.tif", tmp_path / "a.tif").pooled.ap50 > 0.99


def test_one_run_gives_the_same_labels_twice(data: Path, image: Path, tmp_path: Path) -> None:
    first = segmented(image, data, tmp_path / "a.tif", "--device", "cuda")
    again = segmented(image, data, tmp_path / "b.tif", "--device", "cuda")
    np.testing.assert_array_equal(first, again)


def test_a_run_is_tuned_and_exported(data: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    tune = ["tune", data / "run", *pairs(data), "--methods", "instance", "--out", out]
    spoco_zoo(*tune, "--device", "cuda")
    spoco_zoo("export", data / "run", "--out", tmp_path / "m.zip", "--name", "Cells on a GPU")
    spoco_zoo("segment", image, "--model", tmp_path / "m.zip", "--output", tmp_path / "c.tif")
    assert evaluate(tmp_path / "c.tif", data / "truth.tif").pooled.ap50 > 0.8


def test_sparse_annotation_is_completed(data: Path, tmp_path: Path) -> None:
    out, command = tmp_path / "more", ["complete", data / "run", *pairs(data)]
    spoco_zoo(*command, "--background-label", 65535, "--out", out, "--device", "cuda")
    assert len(list(out.glob("*.tif"))) == 12


def test_a_shipped_model_segments_a_volume(tmp_path: Path) -> None:
    pixels, truth = crowded_cells((48, 96, 96), 5)
    tifffile.imwrite(tmp_path / "v.tif", pixels)
    tifffile.imwrite(tmp_path / "t.tif", truth)
    for device in ("cuda", "cpu"):
        spoco_zoo(
            "segment", tmp_path / "v.tif", "--model", "cells-synthetic-3d",
            "--output", tmp_path / f"{device}.tif", "--device", device,
        )  # fmt: skip
    assert evaluate(tmp_path / "cuda.tif", tmp_path / "cpu.tif").pooled.ap50 > 0.95
