"""Bundles whose network returns labels: every format gives what the script gives."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from bundle_runs import make_run
from scipy import ndimage
from torch import nn

import spoco_zoo
from spoco_zoo.bundle.export import (
    ExportOptions,
    architecture_source,
    choose_example,
    export,
)
from spoco_zoo.bundle.formats import load_torchscript
from spoco_zoo.bundle.labels import check_labels
from spoco_zoo.bundle.layout import FORMATS, TileGeometry
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.run_files import read_run
from spoco_zoo.bundle.sample import Sample, zscore
from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.config import Scoring
from spoco_zoo.errors import ExportError
from spoco_zoo.nets.model import model_fingerprint
from spoco_zoo.segment.cluster import cluster, portable

OPTIONS = ExportOptions(name="With labels", authors=("A",), with_labels=True)
WITHOUT_ONNX = FORMATS[:2]
SCORING = {
    "smoothness": 0.2,
    "reach": 2.0,
    "centre": [3.0] * 8,
    "scale": [1.0] * 8,
    "weights": [0.1, 1.0, *[0.0] * 43],
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2D bundle in all formats, as a folder, with a clustering that closes holes."""
    place = tmp_path_factory.mktemp("labelled")
    run = make_run(place / "run", 2)
    recipe = json.loads((run / "model.json").read_text())
    recipe["clustering"] |= {"fill_holes": True, "scoring": SCORING}
    (run / "model.json").write_text(json.dumps(recipe))
    result = export(run, place / "bundle", OPTIONS)
    assert [check.name for check in result.formats if check.passed] == list(FORMATS)
    return place / "bundle"


def normalised(folder: Path) -> torch.Tensor:
    return torch.from_numpy(zscore(np.load(folder / "test_input.npy")))


def test_torchscript_alone_gives_the_labels(labelled: Path) -> None:
    network = load_torchscript(io.BytesIO((labelled / "weights_torchscript.pt").read_bytes()))
    with torch.inference_mode():
        embeddings, labels = network(normalised(labelled))
    assert np.array_equal(embeddings, np.load(labelled / "test_output.npy"))
    expected = np.load(labelled / "test_labels.npy")
    assert expected.max() > 10
    assert np.array_equal(labels[0, 0], expected)


def test_onnxruntime_alone_gives_the_labels(labelled: Path) -> None:
    session = onnxruntime.InferenceSession(labelled / "weights.onnx")
    assert [output.name for output in session.get_outputs()] == ["embeddings", "labels"]
    image = normalised(labelled).numpy()
    _, labels = session.run(None, {"input": image})
    assert np.array_equal(labels[0, 0], np.load(labelled / "test_labels.npy"))
    _, labels = session.run(None, {"input": np.concatenate([image, image[..., ::-1]])})
    assert np.array_equal(labels[0, 0], np.load(labelled / "test_labels.npy"))


def test_the_example_has_holes_to_close(labelled: Path) -> None:
    parameters = yaml.safe_load((labelled / "rdf.yaml").read_text())
    parameters = parameters["config"]["spoco"]["cluster_script"]["parameters"]
    assert parameters["fill_holes"]
    field = np.load(labelled / "test_output.npy")[0]
    left_open = portable.cluster(field, **{**parameters, "fill_holes": False})
    closed = np.load(labelled / "test_labels.npy")
    assert np.count_nonzero(closed) > np.count_nonzero(left_open)


def test_labels_inside_do_without_scores_and_the_card_says_so(labelled: Path) -> None:
    spoco = yaml.safe_load((labelled / "rdf.yaml").read_text())["config"]["spoco"]
    assert "scoring" not in spoco["cluster_script"]["parameters"]
    assert load_model(labelled).recipe.clustering.scoring is None
    assert "which the labels of this bundle do without" in (labelled / "README.md").read_text()


def test_scores_travel_with_the_script(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    recipe = json.loads((run / "model.json").read_text())
    recipe["clustering"]["scoring"] = SCORING
    (run / "model.json").write_text(json.dumps(recipe))
    options = dataclasses.replace(OPTIONS, with_labels=False, formats=("pytorch_state_dict",))
    export(run, tmp_path / "bundle", options)
    model = load_model(tmp_path / "bundle")
    assert model.recipe.clustering.scoring == Scoring.checked(SCORING)
    field = torch.from_numpy(np.load(tmp_path / "bundle" / "test_output.npy")[0])
    labels = np.load(tmp_path / "bundle" / "test_labels.npy")
    assert labels.max() > 1
    found = cluster(field, model.recipe.clustering, model.recipe.background)
    np.testing.assert_array_equal(found, labels)
    plain = model.recipe.clustering.model_copy(update={"scoring": None})
    assert (cluster(field, plain, model.recipe.background) != labels).any()


def test_no_loop_tells_where_it_was_made(labelled: Path) -> None:
    content = (labelled / "weights.onnx").read_bytes()
    assert content.count(b"Loop") >= 4
    assert str(Path(spoco_zoo.__path__[0]).parent).encode() not in content


def test_the_description_tells_of_both_outputs(labelled: Path) -> None:
    rdf = yaml.safe_load((labelled / "rdf.yaml").read_text())
    assert [output["id"] for output in rdf["outputs"]] == ["embeddings", "labels"]
    assert rdf["outputs"][1]["data"]["type"] == "int32"
    architecture = rdf["weights"]["pytorch_state_dict"]["architecture"]
    assert architecture["callable"] == "SpocoUNetWithLabels"
    assert "Two outputs" in (labelled / "README.md").read_text()


def test_the_architecture_file_needs_torch_alone(labelled: Path) -> None:
    source = (labelled / "spoco_unet_labels.py").read_bytes()
    assert source == architecture_source(with_labels=True)
    assert b"spoco_zoo." not in source
    assert source.startswith(architecture_source())


def test_a_later_check_runs_every_format_without_trust(labelled: Path) -> None:
    report = check_bundle(labelled, trust_code=False)
    assert report.passed, report.error
    assert {check.name for check in report.formats} == set(FORMATS)
    assert report.not_run == ()


def test_spoco_zoo_itself_takes_the_embeddings(labelled: Path) -> None:
    model, run = load_model(labelled), load_model(labelled.parent / "run")
    clustering = run.recipe.clustering.model_copy(update={"scoring": None})
    recipe = run.recipe.model_copy(update={"clustering": clustering})
    states = {"network": run.network.state_dict()}
    assert model.fingerprint == model_fingerprint(recipe, states)


@pytest.mark.parametrize(("ndim", "recipe"), [(3, {}), (2, {"background": None})])
def test_volumes_and_models_without_background(ndim: int, recipe: dict, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ndim, **recipe)
    options = dataclasses.replace(OPTIONS, formats=WITHOUT_ONNX)
    result = export(run, tmp_path / "bundle", options)
    assert [check.name for check in result.formats if check.passed] == list(WITHOUT_ONNX)
    labels = np.load(tmp_path / "bundle" / "test_output_labels.npy")
    assert np.array_equal(labels[0, 0], np.load(tmp_path / "bundle" / "test_labels.npy"))
    assert labels.max() > 1


def test_other_labels_are_an_error() -> None:
    labels = np.zeros((100, 100), np.int32)
    wrong = labels.copy()
    wrong[0, :5] = 1
    assert check_labels(wrong, labels, "a format") == pytest.approx(5e-4)
    wrong[0] = 1
    with pytest.raises(ExportError, match=r"1\.00% of the voxels"):
        check_labels(wrong, labels, "a format")


class AtTheThreshold(nn.Module):
    """Objects of the first channel lie beyond a distance of 3, those of both channels at it."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside, doubtful = (image > image.amin()).unbind(1)
        distance = torch.where(doubtful, 3.0, torch.where(inside, 4.0, 0.0))[:, None]
        return distance, distance


SCRIPT = b"""
from scipy import ndimage


def cluster(embeddings, **parameters):
    return ndimage.label(embeddings[0] >= 3)[0]
"""


@pytest.mark.parametrize("doubtful", [False, True])
def test_an_object_at_a_threshold_was_in_the_example(tmp_path: Path, doubtful: bool) -> None:
    image = np.zeros((2, 16, 1100), np.float32)
    for x in [*range(8, 400, 16), 700, 900]:
        image[0, 4:12, x : x + 8] = 1
    image[1, 4:12, 8:16] = doubtful
    labels = ndimage.label(image[0])[0]
    content = dataclasses.replace(
        read_run(make_run(tmp_path / "run", 2)), sample=Sample(image, labels)
    )
    geometry = TileGeometry((16, 16), (4, 4), (4, 4))
    example, inside = choose_example(content, AtTheThreshold(), geometry, SCRIPT)
    assert len(inside) == 1
    assert bool((example.embeddings == 3).any()) is False
    assert example.labels.max() == (8 if doubtful else 25)
