"""Images without objects teach what background looks like, and take a share of the crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.crops import MOST_EMPTY, CropSampler, Geometry, teaches_background
from spoco_zoo.train.data import Sample
from spoco_zoo.train.run import train

from .pictures import TINY, load, pair, picture

SETTINGS = TINY.model_copy(update={"iterations": 8, "validate_every": 8, "warmup": 100})
NAMES = '{"train": ["a", "n0", "n1", "n2"], "val": ["b"]}'


def folder_of(folder: Path, seed: int) -> Path:
    """Two images with objects, and three of a seed's noise without any."""
    image, labels = picture(shape=(32, 32))
    for name, pixels in (("a", image + 60 * (labels > 0)), ("b", image)):
        pair(folder, name, pixels.astype(np.float32), labels)
    for n in range(3):
        noise = np.random.default_rng([seed, n]).integers(0, 90, labels.shape)
        pair(folder, f"n{n}", noise.astype(np.float32), np.zeros_like(labels))
    (folder / "split.json").write_text(NAMES)
    return folder


def trained(folder: Path, said: list[str], **changes: object) -> dict[str, torch.Tensor]:
    config = SETTINGS.model_copy(update={"split": str(folder / "split.json"), **changes})
    done = train(
        folder / "images",
        folder / "labels",
        folder / "run",
        config,
        clusterer=cluster,
        say=said.append,
    )
    assert done is not None
    states: dict[str, dict[str, torch.Tensor]] = torch.load(
        folder / "run" / "model.pt", weights_only=True
    )
    return states["network"]


def test_what_images_without_objects_show_made_no_difference(tmp_path: Path) -> None:
    said: list[str] = []
    one, other = (trained(folder_of(tmp_path / str(n), n), said) for n in (1, 2))
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert not any("left out" in text for text in said)


def test_images_without_annotation_are_left_out_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    trained(folder_of(tmp_path, 1), said, annotation="sparse")
    assert any("3 of 4 training images hold no annotation" in text for text in said)


def test_crops_of_them_are_a_fifth_at_most_and_lie_at_known_background(tmp_path: Path) -> None:
    samples = load(folder_of(tmp_path, 1))
    full = [sample for sample in samples if len(sample.centres)]
    empty = [sample for sample in samples if teaches_background(sample)]
    assert (len(full), len(empty)) == (2, 3)
    stroke = empty[0].labels.copy()
    stroke[:], stroke[30, 30] = 0, -1
    marked = Sample("marked", empty[0].image, stroke, empty[0].centres, empty[0].statistics)
    crops = CropSampler(full, (16, 16), Geometry(bent=0.0), 0, 1000, [marked])
    names = [crops.name(i) for i in range(1000)]
    assert 0.5 * MOST_EMPTY < names.count("marked") / 1000 < 1.3 * MOST_EMPTY
    shown = [crops[i][1] for i in range(100) if names[i] == "marked"]
    assert all(bool((labels == -1).any()) for labels in shown)


@pytest.mark.parametrize("share", [0, 3])
def test_without_them_crops_are_what_they_were(tmp_path: Path, share: int) -> None:
    samples = load(folder_of(tmp_path, 1))
    full = [sample for sample in samples if len(sample.centres)]
    plain = CropSampler(full, (16, 16), Geometry(), share, 10)
    given = CropSampler(full, (16, 16), Geometry(), share, 10, [])
    for a, b in zip((plain[i] for i in range(10)), (given[i] for i in range(10)), strict=True):
        assert torch.equal(a[0], b[0])
