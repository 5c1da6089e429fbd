"""Images of dark objects, which a model of bright ones is shown the other way round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawn_nuclei import nuclei

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import ConfigError
from spoco_zoo.metrics import score
from spoco_zoo.nets.model import Model
from spoco_zoo.ngff import open_image
from spoco_zoo.segment import dry_run, embed_part, segment
from spoco_zoo.segment.ledger import Ledger
from spoco_zoo.segment.network.models import read_model
from spoco_zoo.segment.scale.decision import Look
from spoco_zoo.segment.scale.light import clearness, with_light


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model("nuclei-fluo-2d")


def dark(path: Path, diameter: float = 20) -> tuple[Path, np.ndarray]:
    """Nuclei on a bright ground, and their labels."""
    image, truth = nuclei((256, 256), diameter)
    tifffile.imwrite(path, 255 - image)
    return path, truth


@pytest.mark.parametrize("diameter", [8, 20])
def test_dark_nuclei_were_not_found(diameter: float, model: Model, tmp_path: Path) -> None:
    """AP@0.5 was 0.00, of small ones enlarged besides, and a line told of --invert."""
    image, truth = dark(tmp_path / "a.tif", diameter)
    result = segment(image, model, output=tmp_path / "labels.tif")
    assert "--no-invert" in result.summary["plan"]["notes"]
    assert "--invert" not in result.summary["hint"]
    assert score(tifffile.imread(result.output).astype(np.int32), truth).ap50 > 0.85


def test_what_the_user_asks_for_or_a_run_began_with_stays(model: Model, tmp_path: Path) -> None:
    image, _ = dark(tmp_path / "a.tif")
    asked = dry_run(image, model, SegmentConfig(invert=False))
    assert asked.config.invert is False
    asked.folder.mkdir()
    with Ledger(asked.folder, asked.fingerprint("model", "cluster")):
        pass
    assert dry_run(image, model).config.invert is False
    assert dry_run(image, model, overwrite=True).config.invert is True
    part = embed_part(image, model).embeddings
    turned = embed_part(image, model, SegmentConfig(invert=True)).embeddings
    assert np.array_equal(part, turned)


def test_what_does_not_fit_is_refused_before_anything_is_looked_at(
    model: Model, tmp_path: Path
) -> None:
    """A level that is not there ended in a traceback of the look for the light."""
    image, _ = dark(tmp_path / "a.tif")
    for started in (dry_run, embed_part):
        with pytest.raises(ConfigError, match="level 7 of 1"):
            started(image, model, SegmentConfig(level=7))


def test_a_part_was_seen_in_a_light_of_its_own(model: Model, tmp_path: Path) -> None:
    """An empty one of an image that is turned round."""
    image, _ = nuclei((256, 256), 20)
    wide = np.pad(image.astype(np.int64), ((0, 0), (0, 144)))
    wide = 200 - wide // 2 + np.random.default_rng(0).integers(0, 4, wide.shape)
    tifffile.imwrite(tmp_path / "a.tif", wide.astype(np.uint8))
    corner = SegmentConfig(roi=((100, 132), (360, 392)))
    turned = corner.model_copy(update={"invert": True})
    assert dry_run(tmp_path / "a.tif", model).config.invert
    part, asked = (embed_part(tmp_path / "a.tif", model, c).embeddings for c in (corner, turned))
    assert np.array_equal(part, asked)


def test_the_note_told_of_bright_objects_whatever_the_model_knows(
    model: Model, tmp_path: Path
) -> None:
    image, _ = nuclei((256, 256), 20)
    tifffile.imwrite(tmp_path / "a.tif", image)
    opened = open_image(tmp_path / "a.tif")
    of_dark = replace(model, recipe=model.recipe.model_copy(update={"lean": 0.4}))
    _, note = with_light(opened, of_dark, SegmentConfig(), earlier="True")
    assert "is dark, with clear objects in it that are bright" in note
    assert "trained on dark ones" in note


def test_bright_nuclei_that_cover_most_of_an_image_stay_bright(
    model: Model, tmp_path: Path
) -> None:
    image, truth = nuclei((256, 256), 26)
    rows = np.flatnonzero((truth > 0).any(1)), np.flatnonzero((truth > 0).any(0))
    crowded = image[np.ix_(*rows)]
    crowded = np.where(crowded < np.quantile(crowded, 0.35), crowded, 150 + crowded // 4)
    tifffile.imwrite(tmp_path / "a.tif", crowded.astype(np.uint8))
    assert np.median(crowded) > crowded.mean()
    assert dry_run(tmp_path / "a.tif", model).config.invert is False


def test_few_patches_are_less_clear_than_many_objects(model: Model) -> None:
    recipe = model.recipe
    many, few = Look((200,) * 20), Look((900, 1100))
    assert clearness(many, recipe) > clearness(few, recipe) > 0.9
    assert clearness(Look((200,) * 20, 30, 2000), recipe) < 0.7
    assert clearness(Look((60000,)), recipe) == clearness(Look(()), recipe) == 0
