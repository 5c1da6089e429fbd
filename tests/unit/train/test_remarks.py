"""Training data that are not meant to be what they are: said once, before the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.config import TrainConfig
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.remarks import doubt_masks

SMALL = {"features": [4, 8], "embedding_dim": 4, "crop": [16, 16], "precision": "float32"}


def drawn(shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Four objects, numbered."""
    labels = np.zeros(shape, np.uint8)
    for number, (y, x) in enumerate(((2, 2), (2, 20), (18, 2), (18, 20)), start=1):
        labels[y : y + 9, x : x + 8] = number
    return labels


def folder_of(folder: Path, labels: np.ndarray, **options: object) -> Path:
    rng = np.random.default_rng(0)
    for n in range(3):
        image = (labels > 0) * 60.0 + rng.integers(0, 20, labels.shape)
        for what, values in (("images", image.astype(np.float32)), ("labels", labels)):
            (folder / what).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / what / f"{n}.tif", values, **options)
    return folder


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((drawn() > 0).astype(np.uint8) * 255, True),
        (drawn() > 0, True),
        (drawn(), False),
        (np.where(drawn() == 1, 255, 0).astype(np.uint8), False),
        (np.where(drawn() < 3, drawn(), 0), False),
    ],
    ids=["mask", "bool", "numbered", "one object", "two objects"],
)
def test_masks_were_trained_on_as_one_object_without_a_word(
    tmp_path: Path, labels: np.ndarray, said: bool
) -> None:
    data = folder_of(tmp_path, labels)
    samples = load_samples(pair_files(data / "images", data / "labels"), TrainConfig())
    assert ("12 separate pieces in 3 images" in doubt_masks(samples)) is said
    assert bool(doubt_masks(samples)) is said


def train(data: Path, *options: str) -> str:
    """What a run of one step says, once it is over."""
    import yaml

    (data / "small.yaml").write_text(yaml.safe_dump({**SMALL, "iterations": 1, "batch_size": 2}))
    folders = ["--images", str(data / "images"), "--labels", str(data / "labels")]
    command = ["train", *folders, "--out", str(data / "run"), "--config", str(data / "small.yaml")]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    return done.stderr


def test_what_is_said_of_training_data_is_in_the_report(tmp_path: Path) -> None:
    data = folder_of(tmp_path, (drawn() > 0).astype(np.uint8) * 255)
    assert train(data).count("one value for all objects") == 1
    assert "one value for all objects" in (data / "run/report.html").read_text()
