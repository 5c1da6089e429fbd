"""Sparse annotation for experiments, made from dense labels."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import tifffile

from benchmarks.sparsify import choose_objects, paint_strokes, write_all
from spoco_zoo.config import TrainConfig
from spoco_zoo.train.data import BACKGROUND, load_samples
from spoco_zoo.train.files import pair_files


@pytest.mark.parametrize("shape", [(80, 90), (4, 60, 70)])
def test_strokes_cover_their_share_and_stay_off_the_objects(shape):
    background = np.ones(shape, bool)
    background[..., 20:40, 10:50] = False
    strokes = paint_strokes(background, 0.05, np.random.default_rng(0))
    assert not (strokes & ~background).any()
    share = strokes.sum() / background.sum()
    assert share == pytest.approx(0.05, abs=0.01)


def test_objects_are_drawn_over_the_whole_data_set():
    def draw(seed: int) -> list[list[int]]:
        return [list(k) for k in choose_objects([10, 0, 190], 0.1, seed=seed)]

    assert sum(len(k) for k in draw(3)) == 20
    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_training_reads_what_was_written(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    rng = np.random.default_rng(0)
    truth = np.zeros((64, 64), np.uint16)
    for k in range(4):
        truth[8 + 12 * k : 16 + 12 * k, 8:16] = k + 1
    for name in ("a", "b", "c"):
        tifffile.imwrite(images / f"{name}.tif", rng.normal(size=(64, 64)).astype(np.float32))
        tifffile.imwrite(labels / f"{name}.tif", truth)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["a", "b"], "val": ["c"], "test": []}))
    out = tmp_path / "sparse"
    options = argparse.Namespace(
        labels=labels,
        out=out,
        ratio=0.25,
        strokes=0.03,
        background_label=65535,
        seed=0,
        split=split,
        images=images,
    )
    done = write_all(options)
    assert (done["objects"], done["kept"], done["dense"]) == (8, 2, 1)
    config = TrainConfig(annotation="sparse", background_label=65535)
    training = load_samples(pair_files(out / "images-train", out), config)
    validation = load_samples(pair_files(out / "images-val", out), config)
    assert sum(len(sample.centres) for sample in training) == 2
    assert all((sample.labels == BACKGROUND).any() for sample in training)
    assert len(validation[0].centres) == 4
    assert (validation[0].labels != 0).all()
