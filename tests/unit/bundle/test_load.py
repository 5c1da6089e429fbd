from __future__ import annotations

import importlib.resources
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spoco_zoo.bundle.foreign import AdmittedSizes, foreign_recipe
from spoco_zoo.bundle.load import load_model, shipped_models
from spoco_zoo.bundle.sample import zscore
from spoco_zoo.bundle.tensors import TensorSpec, embedding_tensors, tensor_spec
from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import BundleError, ConfigError
from spoco_zoo.nets.model import model_from_states
from spoco_zoo.nets.receptive import exact_halo, pooling_factor
from spoco_zoo.segment.network.models import write_model
from spoco_zoo.train.data import make_sample
from spoco_zoo.tuning import embed_all
from spoco_zoo.workflow import start_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Exported

CLUSTERING = ClusteringConfig(bandwidth=0.4)


def test_zip_folder_and_run_are_the_same_model(exported: Exported) -> None:
    models = [load_model(source) for source in (exported.zip, str(exported.folder), exported.run)]
    assert len({model.fingerprint for model in models}) == 1
    assert len({model.recipe.fingerprint() for model in models}) == 1
    x = torch.randn(1, 1, *(13, 21, 30)[-exported.ndim :])
    with torch.inference_mode():
        results = [model.network(x) for model in models]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[2])


def test_the_momentum_network_travels(exported_2d: Exported, exported_3d: Exported) -> None:
    model, x = load_model(exported_2d.zip), torch.randn(1, 1, 32, 32)
    original = load_model(exported_2d.run)
    assert model.momentum is not None
    assert original.momentum is not None
    with torch.inference_mode():
        assert torch.equal(model.momentum(x), original.momentum(x))
        assert not torch.equal(model.momentum(x), model.network(x))
    assert load_model(exported_3d.zip).momentum is None


def test_clustering_given_by_hand_replaces_the_model_s(exported_2d: Exported) -> None:
    for source in (exported_2d.zip, exported_2d.run):
        assert load_model(source, clustering=CLUSTERING).recipe.clustering == CLUSTERING


@pytest.mark.parametrize("source", ["no-such-model", "nowhere/model.zip", "../x", "NUCLEI", ""])
def test_unknown_models_name_those_that_exist(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)  # whatever lies beside the repository
    if source == "":
        source = str(tmp_path / "none")
    with pytest.raises(BundleError, match="shipped models: "):
        load_model(source)


def test_addresses_are_not_fetched() -> None:
    with pytest.raises(BundleError, match="local file"):
        load_model("https://example.org/model.zip")


def test_shipped_models_can_be_loaded() -> None:
    folder = importlib.resources.files("spoco_zoo").joinpath("models")
    assert folder.is_dir() == bool(shipped_models())
    for name in shipped_models():
        assert load_model(name).recipe.net.ndim in (2, 3)


def foreign(bundle: Exported, folder: Path, weights: str, change: Callable | None = None) -> Path:
    """The bundle as another author would have made it: no recipe, one weight format."""
    shutil.copytree(bundle.folder, folder)
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    del rdf["config"]["spoco"]
    rdf["weights"] = {weights: {k: v for k, v in rdf["weights"][weights].items() if k != "parent"}}
    if change is not None:
        change(rdf)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    return folder


@pytest.mark.parametrize("weights", ["torchscript", "onnx"])
def test_foreign_networks_give_their_embeddings(
    exported: Exported, weights: str, tmp_path: Path
) -> None:
    model = load_model(foreign(exported, tmp_path / "b", weights), clustering=CLUSTERING)
    own = load_model(exported.run)
    assert model.recipe.net.ndim == exported.ndim
    assert model.recipe.net.embedding_dim == own.recipe.net.embedding_dim
    assert model.recipe.clustering == CLUSTERING
    assert model.recipe.background is None
    x = torch.from_numpy(zscore(np.load(exported.folder / "test_input.npy")))
    with torch.inference_mode():
        torch.testing.assert_close(model.network(x), own.network(x), rtol=1e-5, atol=3e-5)
        smaller = model.network(x[..., :-3, :-7])
    assert smaller.shape[2:] == x[..., :-3, :-7].shape[2:]
    again = load_model(tmp_path / "b", clustering=CLUSTERING)
    assert again.fingerprint == model.fingerprint
    assert model.fingerprint != own.fingerprint
    assert isinstance(model.to("cpu").network, nn.Module)


def test_our_recipe_with_torchscript_alone_needs_no_flags(
    exported_2d: Exported, tmp_path: Path
) -> None:
    shutil.copytree(exported_2d.folder, tmp_path / "b")
    rdf = yaml.safe_load((tmp_path / "b" / "rdf.yaml").read_text())
    del rdf["weights"]["pytorch_state_dict"]
    (tmp_path / "b" / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    model = load_model(tmp_path / "b")
    assert model.recipe == load_model(exported_2d.run).recipe


@pytest.mark.parametrize("weights", ["torchscript", "onnx"])
def test_networks_of_other_formats_ended_training_and_tuning_in_a_traceback(
    exported_2d: Exported, weights: str, tmp_path: Path
) -> None:
    """To go on from their weights is refused; to tune their clustering is not."""
    shutil.copytree(exported_2d.folder, tmp_path / "b")
    rdf = yaml.safe_load((tmp_path / "b" / "rdf.yaml").read_text())
    rdf["weights"] = {weights: rdf["weights"][weights]}
    (tmp_path / "b" / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    model = load_model(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"--init.* must have a network of this package"):
        start_from(model)
    image = np.load(exported_2d.folder / "test_input.npy")[0]
    labels = np.load(exported_2d.folder / "test_labels.npy")
    (found,) = embed_all(model, [make_sample("a", image, labels)], ["instance"], lambda *_: None)
    assert found.embeddings.shape[1:] == labels.shape


def test_foreign_networks_need_clustering_and_a_format_without_code(
    exported_2d: Exported, tmp_path: Path
) -> None:
    folder = foreign(exported_2d, tmp_path / "a", "onnx")
    with pytest.raises(ConfigError, match="clustering"):
        load_model(folder)
    folder = foreign(exported_2d, tmp_path / "b", "pytorch_state_dict")
    with pytest.raises(BundleError, match="TorchScript or ONNX"):
        load_model(folder, clustering=CLUSTERING)


def test_a_foreign_model_in_memory_cannot_go_to_workers(
    exported_2d: Exported, tmp_path: Path
) -> None:
    for weights in ("onnx", "torchscript"):
        model = load_model(foreign(exported_2d, tmp_path / weights, weights), clustering=CLUSTERING)
        with pytest.raises(ConfigError, match="Pass the path of its bundle"):
            write_model(model, tmp_path / "model.pickle")
    assert not list(tmp_path.glob("model.pickle*"))


def test_weights_in_bfloat16_had_no_fingerprint(exported_2d: Exported) -> None:
    model = load_model(exported_2d.run)
    states = {"network": model.network.state_dict(), "momentum": model.momentum.state_dict()}
    assert model_from_states(model.recipe, states).fingerprint == model.fingerprint
    for name, value in states["network"].items():
        states["network"][name] = value.bfloat16() if value.is_floating_point() else value
    assert model_from_states(model.recipe, states).fingerprint != model.fingerprint


def test_a_clustering_is_checked_before_anything_is_read(exported_2d: Exported) -> None:
    with pytest.raises(ConfigError, match="'bandwidth'"):
        load_model("nowhere.zip", clustering={"bandwidth": -1})
    model = load_model(exported_2d.zip, clustering={"bandwidth": 0.25})
    assert model.recipe.clustering == ClusteringConfig(bandwidth=0.25)


def test_a_folder_of_results_hid_the_model_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = shipped_models()[0]
    expected = load_model(name).fingerprint
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model(name).fingerprint == expected
    (tmp_path / name / "rdf.yaml").touch()
    with pytest.raises(BundleError):
        load_model(name)


def fix_size(rdf: dict) -> None:
    rdf["inputs"][0]["axes"][2]["size"] = 64


def scale_range(rdf: dict) -> None:
    rdf["inputs"][0]["preprocessing"] = [{"id": "scale_range", "kwargs": {}}]


def no_preprocessing(rdf: dict) -> None:
    del rdf["inputs"][0]["preprocessing"]


def sigmoid(rdf: dict) -> None:
    rdf["outputs"][0]["postprocessing"] = [{"id": "sigmoid"}]


def two_outputs(rdf: dict) -> None:
    first, second = dict(rdf["outputs"][0]), dict(rdf["outputs"][0])
    first["id"], second["id"] = "foreground", "boundary"
    rdf["outputs"] = [first, second]


def time_axis(rdf: dict) -> None:
    rdf["inputs"][0]["axes"].append({"type": "time"})


def no_axes(rdf: dict) -> None:
    del rdf["inputs"][0]["axes"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (fix_size, "many sizes"),
        (scale_range, "preprocessing must be"),
        (no_preprocessing, "preprocessing must be"),
        (sigmoid, "postprocessing must be"),
        (two_outputs, "named `embeddings`"),
        (time_axis, "axes must be"),
        (no_axes, "axes of its tensors"),
    ],
)
def test_unsuitable_foreign_networks_are_refused(
    change: Callable, rule: str, exported_2d: Exported, tmp_path: Path
) -> None:
    folder = foreign(exported_2d, tmp_path / "b", "onnx", change)
    with pytest.raises(BundleError, match=rule):
        load_model(folder, clustering=CLUSTERING)


def to_format_04(rdf: dict) -> None:
    """The same model in the words of format 0.4."""
    rdf["format_version"] = "0.4.10"
    rdf["attachments"] = {"files": ["spoco_cluster.py"]}
    rdf["test_inputs"], rdf["test_outputs"] = ["test_input.npy"], ["test_output.npy"]
    rdf["inputs"] = [
        {
            "name": "input",
            "axes": "bcyx",
            "data_type": "float32",
            "shape": {"min": [1, 1, 52, 52], "step": [0, 0, 4, 4]},
            "preprocessing": [
                {
                    "name": "zero_mean_unit_variance",
                    "kwargs": {"mode": "per_sample", "axes": "cyx"},
                }
            ],
        }
    ]
    rdf["outputs"] = [
        {
            "name": "embeddings",
            "axes": "bcyx",
            "data_type": "float32",
            "halo": [0, 0, 24, 24],
            "shape": {
                "reference_tensor": "input",
                "scale": [1, 0, 1, 1],
                "offset": [0, 2, 0, 0],
            },
        }
    ]
    del rdf["maintainers"]
    rdf["timestamp"] = "2025-01-31T12:00:00"


def test_descriptions_of_format_04(exported_2d: Exported, tmp_path: Path) -> None:
    folder = foreign(exported_2d, tmp_path / "b", "onnx", to_format_04)
    model = load_model(folder, clustering=CLUSTERING)
    assert model.recipe.net.embedding_dim == 4
    assert pooling_factor(model.recipe.net) == (4, 4)
    assert all(reach >= 24 for reach in exact_halo(model.recipe.net))
    x = torch.randn(1, 1, 52, 56)
    with torch.inference_mode():
        expected = load_model(exported_2d.run).network(x)
        torch.testing.assert_close(model.network(x), expected, rtol=1e-5, atol=3e-5)
    report = check_bundle(folder, trust_code=False)
    assert report.format_version == "0.4.10"
    assert report.passed, report.error


@given(
    step=st.tuples(*[st.integers(1, 48)] * 2),
    halo=st.tuples(*[st.integers(0, 200)] * 2),
    minimum=st.integers(1, 300),
)
def test_a_foreign_recipe_tiles_safely(
    step: tuple[int, int], halo: tuple[int, int], minimum: int
) -> None:
    source = TensorSpec("input", "bcyx", (minimum,) * 2, step, (0, 0), 1)
    target = TensorSpec("embeddings", "bcyx", (minimum,) * 2, step, halo, 4)
    recipe = foreign_recipe(source, target, 4, CLUSTERING)
    factor = pooling_factor(recipe.net)
    for axis in range(2):
        assert factor[axis] % step[axis] == 0
        assert exact_halo(recipe.net)[axis] >= halo[axis]
        assert recipe.patch[axis] % factor[axis] == 0
        assert recipe.patch[axis] >= minimum


@given(low=st.integers(1, 100), step=st.integers(1, 32), size=st.integers(1, 300))
def test_padding_reaches_the_next_admitted_size(low: int, step: int, size: int) -> None:
    (missing,) = AdmittedSizes((low,), (step,)).padding((size,))
    admitted = {low + n * step for n in range(400)}
    assert size + missing == min(a for a in admitted if a >= size)


def test_both_formats_describe_the_same_tensor(exported_2d: Exported) -> None:
    rdf = yaml.safe_load((exported_2d.folder / "rdf.yaml").read_text())
    new, _, _ = embedding_tensors(rdf)
    to_format_04(rdf)
    assert tensor_spec(rdf["inputs"][0]) == new
