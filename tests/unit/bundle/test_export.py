from __future__ import annotations

import dataclasses
import gc
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch
import yaml
from bundle_runs import make_run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import spoco_zoo
from spoco_zoo.bundle import layout
from spoco_zoo.bundle.cover import fullest_slice
from spoco_zoo.bundle.description import exact_scale
from spoco_zoo.bundle.export import ExportOptions, export
from spoco_zoo.bundle.formats import OnnxNetwork, compare, load_torchscript, write_weights
from spoco_zoo.bundle.layout import FORMATS, tile_geometry
from spoco_zoo.bundle.load import load_model, recipe_from_config
from spoco_zoo.bundle.official import official_test
from spoco_zoo.bundle.sample import Sample, crops, zscore
from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.config import ClusteringConfig
from spoco_zoo.errors import BundleError, ConfigError, ExportError
from spoco_zoo.nets.model import load_run
from spoco_zoo.nets.receptive import pooling_factor, receptive_radius

if TYPE_CHECKING:
    from conftest import Exported

OPTIONS = ExportOptions(
    name="A model", authors=("A",), formats=("pytorch_state_dict", "torchscript")
)


def rdf_of(bundle: Exported) -> dict:
    return yaml.safe_load((bundle.folder / "rdf.yaml").read_text())


def test_every_format_passes_the_official_test(exported: Exported) -> None:
    assert tuple(check.name for check in exported.result.formats) == FORMATS
    assert all(check.passed and check.sizes == 6 for check in exported.result.formats)
    assert all(exported.result.differences[name] <= 1e-5 for name in FORMATS)


@pytest.mark.parametrize(("ndim", "channels"), [(3, 2), (2, 3)])
def test_models_of_volumes_with_several_channels_could_not_be_exported(
    tmp_path: Path, ndim: int, channels: int
) -> None:
    run = make_run(tmp_path / "run", ndim, channels=channels)
    result = export(run, tmp_path / "a", OPTIONS)
    assert all(check.passed for check in result.formats)
    sample = tifffile.imread(tmp_path / "a" / layout.SAMPLE_INPUT)
    assert sample.shape == np.load(tmp_path / "a" / layout.TEST_INPUT).shape[1:]


@pytest.mark.parametrize("rotary", [((16.0, 20.5),), ((4.0, 16.0, 16.0),)])
def test_embeddings_that_turn_with_position_are_alike_in_every_format(
    tmp_path: Path, rotary: tuple[tuple[float, ...], ...]
) -> None:
    run = make_run(tmp_path / "run", len(rotary[0]), rotary=rotary)
    options = dataclasses.replace(OPTIONS, with_labels=len(rotary[0]) == 2)
    result = export(run, tmp_path / "a", options)
    assert all(check.passed for check in result.formats)
    rdf = yaml.safe_load((tmp_path / "a/rdf.yaml").read_text())
    kwargs = rdf["weights"]["pytorch_state_dict"]["architecture"]["kwargs"]
    assert kwargs["rotary"] == [list(entry) for entry in rotary]
    assert "must start at multiples of (" in (tmp_path / "a/README.md").read_text()
    assert load_model(tmp_path / "a").recipe.net.rotary == rotary


def test_an_author_given_as_text_was_one_author_per_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formats and a card as text, and the home folder, are understood as well."""
    make_run(tmp_path / "run", 2)
    (tmp_path / "card.md").write_text("## Training data\n\nDisks.\n\n## Limits\n\nMany.\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    spoco_zoo.export(
        "~/run",
        "~/a",
        name="A model",
        authors="A. Person",
        formats="pytorch_state_dict",
        card=tmp_path,
    )
    assert "Disks." in (tmp_path / "a/README.md").read_text()
    assert load_model("~/a").recipe.net.ndim == 2
    rdf = yaml.safe_load((tmp_path / "a/rdf.yaml").read_text())
    assert [author["name"] for author in rdf["authors"]] == ["A. Person"]


def test_the_unpacked_bundle_passes_a_later_check(exported: Exported) -> None:
    report = check_bundle(exported.folder, trust_code=False)
    assert report.passed
    assert {check.name for check in report.formats} == set(FORMATS)
    assert report.labels == "equal"
    assert report.not_run == ()


def test_same_run_and_timestamp_give_the_same_members(
    exported_2d: Exported, tmp_path: Path
) -> None:
    result = export(exported_2d.run, tmp_path / "again", exported_2d.options)
    again = {path.name: path.read_bytes() for path in result.path.iterdir()}
    with zipfile.ZipFile(exported_2d.zip) as archive:
        first = {info.filename: archive.read(info) for info in archive.infolist()}
    assert again == first
    assert {path.name for path in tmp_path.iterdir()} == {"again"}


def test_a_wrong_test_output_does_not_pass(exported_2d: Exported, tmp_path: Path) -> None:
    members = {path.name: path.read_bytes() for path in exported_2d.folder.iterdir()}
    wrong = io.BytesIO()
    np.save(wrong, np.load(exported_2d.folder / "test_output.npy")[:, ::-1])
    old = hashlib.sha256(members["test_output.npy"]).hexdigest()
    members["test_output.npy"] = wrong.getvalue()
    new = hashlib.sha256(wrong.getvalue()).hexdigest()
    members["rdf.yaml"] = members["rdf.yaml"].replace(old.encode(), new.encode())
    for name, content in members.items():
        (tmp_path / name).write_bytes(content)
    result = official_test(tmp_path, ["onnx", "torchscript"], known_users=["no-such-user-of-spoco"])
    assert not result.passed
    assert result.status != "passed"
    assert [check.reproduced for check in result.formats] == [False, False]
    assert not gc.get_freeze_count()  # what the test does not look through is looked through again


@pytest.mark.parametrize("size", [(61, 75), (33, 52), (52, 130), (8, 9)])
def test_formats_agree_at_odd_sizes_and_in_batches(
    exported_2d: Exported, size: tuple[int, int]
) -> None:
    network = load_run(exported_2d.run).network
    x = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    files = {name: exported_2d.folder / path for name, path in layout.WEIGHT_FILES.items()}
    scripted = load_torchscript(io.BytesIO(files["torchscript"].read_bytes()))
    with torch.inference_mode():
        expected = network(x)
        assert torch.equal(scripted(x), expected)
        onnx = OnnxNetwork(files["onnx"].read_bytes())(x)
    assert onnx.shape == expected.shape
    assert float((onnx - expected).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_weight_file_of_another_network_is_caught(tmp_path: Path) -> None:
    networks = []
    for seed in (0, 1):
        run = make_run(tmp_path / str(seed), 2, momentum=True)
        networks.append(load_run(run).network if seed == 0 else load_run(run).momentum)
    recipe = load_run(tmp_path / "0").recipe
    geometry = tile_geometry(recipe)
    files = write_weights(networks[1], tmp_path, ("torchscript",), geometry)
    image = zscore(np.random.default_rng(0).random((1, 1, 64, 64), dtype=np.float32))
    with pytest.raises(ExportError, match="torchscript differs"):
        compare(networks[0], files, image, geometry)


def test_what_the_exporter_prints_is_not_in_the_output_of_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = torch.onnx.export

    def talkative(*args, **options):
        print("Applied 30 of general pattern rewrite rules.")  # as onnxscript 0.6 does
        return genuine(*args, **options)

    monkeypatch.setattr(torch.onnx, "export", talkative)
    model = load_run(make_run(tmp_path / "run", 2))
    files = write_weights(model.network, tmp_path, ("onnx",), tile_geometry(model.recipe))
    assert files["onnx"].stat().st_size > 1000
    assert capsys.readouterr().out == ""


def test_onnx_names_its_axes_and_refers_to_no_file(exported: Exported) -> None:
    import onnx

    model = onnx.load(exported.folder / "weights.onnx")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    names = [d.dim_param or d.dim_value for d in dims]
    assert names == ["batch", 1, *"zyx"[-exported.ndim :]]
    assert [opset.version for opset in model.opset_import if not opset.domain] == [18]
    locations = {tensor.data_location for tensor in model.graph.initializer}
    assert locations == {onnx.TensorProto.DEFAULT}


def test_no_member_tells_where_it_was_made(exported: Exported) -> None:
    secrets = [str(Path(spoco_zoo.__path__[0]).parent), str(exported.run.parent), str(Path.home())]
    for path in exported.folder.iterdir():
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for content in contents:
            assert not any(s.encode() in content for s in secrets if len(s) > 1), path.name


def test_sizes_are_multiples_of_the_pooling_factor(exported: Exported) -> None:
    recipe, geometry = load_run(exported.run).recipe, tile_geometry(load_run(exported.run).recipe)
    factor, rdf = pooling_factor(recipe.net), rdf_of(exported)
    space = [axis for axis in rdf["inputs"][0]["axes"] if axis["type"] == "space"]
    assert [axis["id"] for axis in space] == list("zyx"[-exported.ndim :])
    assert tuple(axis["size"]["step"] for axis in space) == factor
    for low, step, halo, axis in zip(
        geometry.minimum, geometry.step, geometry.halo, space, strict=True
    ):
        assert axis["size"]["min"] == low
        assert low % step == halo % step == 0
        assert low - 2 * halo >= step
    if exported.ndim == 2:
        assert all(h >= r for h, r in zip(geometry.halo, receptive_radius(recipe.net), strict=True))


def test_config_spoco_is_the_recipe(exported: Exported) -> None:
    spoco, recipe = rdf_of(exported)["config"]["spoco"], load_run(exported.run).recipe
    assert recipe_from_config(spoco) == recipe
    assert spoco["receptive_radius"] == list(receptive_radius(recipe.net))


def test_default_description_is_that_of_old_readers(exported: Exported) -> None:
    rdf = rdf_of(exported)
    assert rdf["format_version"] == "0.5.4"
    assert rdf["covers"] == ["cover.png"]
    assert rdf["documentation"] == "README.md"


def test_the_architecture_travels_byte_by_byte(exported: Exported) -> None:
    source = Path(spoco_zoo.__path__[0], "nets", "unet.py")
    assert (exported.folder / "spoco_unet.py").read_bytes() == source.read_bytes()


def test_cover_has_the_proportions_that_the_zoo_wants(exported: Exported) -> None:
    with Image.open(exported.folder / "cover.png") as cover:
        pixels = np.asarray(cover)
    assert pixels.shape == (600, 1200, 3)
    assert pixels[:, :400].std() > 10


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"formats": ("onnx",)}, "pytorch_state_dict"),
        ({"formats": ("pytorch_state_dict", "keras")}, "some of"),
        ({"formats": ("pytorch_state_dict",) * 2}, "each once"),
        ({"authors": ()}, "author"),
        ({"authors": ("A", " ; Somewhere")}, "name an author; found 'A', ' ; Somewhere'"),
        ({"license": "no licence of this world"}, "license"),
        ({"name": "a/b/c/d"}, "name"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"cite": (("a paper", "no doi"),)}, "cite"),
        ({"cite": (("a paper",),)}, "two texts"),
        ({"dataset": "an-id; https://example.org/data"}, "two texts"),
        ({"dataset": ("an-id", "no address")}, "dataset"),
        ({"dataset": ("", "https://example.org/data")}, "--dataset"),
        ({"version": "first"}, "model-version"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    options: dict, rule: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rule):
        export(tmp_path / "none", tmp_path / "b.zip", dataclasses.replace(OPTIONS, **options))


def test_the_momentum_network_may_stay_behind(exported_2d: Exported, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, formats=("pytorch_state_dict",), momentum=False)
    result = export(exported_2d.run, tmp_path / "small.zip", options)
    with zipfile.ZipFile(result.path) as file:
        assert layout.MOMENTUM not in file.namelist()
    assert load_model(result.path).momentum is None


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2, clustering=ClusteringConfig(min_size=10**6))
    options = dataclasses.replace(OPTIONS, with_labels=True)
    with pytest.raises(ExportError, match="no object in the example image"):
        export(run, tmp_path / "out" / "b.zip", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["model.pt", "metrics.json", "config.yaml", "sample.npz"])
def test_an_incomplete_run_is_named(missing: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    (run / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        export(run, tmp_path / "b.zip", OPTIONS)


def test_weights_with_nan_are_not_exported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    states = torch.load(run / "model.pt", weights_only=True)
    states["network"]["head.bias"][0] = float("nan")
    torch.save(states, run / "model.pt")
    with pytest.raises(BundleError, match="finite"):
        export(run, tmp_path / "b.zip", OPTIONS)


def test_metrics_without_validation_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    (run / "metrics.json").write_text(json.dumps({"validation": {"sbd": 0.5}}))
    with pytest.raises(BundleError, match="ap50"):
        export(run, tmp_path / "b.zip", OPTIONS)


def test_crop_shows_the_objects_and_mirrors_small_images() -> None:
    geometry = layout.TileGeometry((16, 16), (4, 4), (4, 4))
    labels = np.zeros((700, 20), np.int32)
    labels[600:610, 5:9], labels[620:625, 5:9] = 1, 2
    crop = next(crops(Sample(labels[None].astype(np.float32), labels), geometry))
    assert crop.labels.shape == (512, 20)
    assert set(np.unique(crop.labels)) == {0, 1, 2}
    assert np.array_equal(crop.image[0], crop.labels)
    small = next(crops(Sample(np.ones((1, 7, 18), np.float32), np.ones((7, 18), int)), geometry))
    assert small.image.shape == (1, 16, 16)


@given(st.floats(1e-4, 1e3), st.integers(0, 2**20))
def test_voxels_survive_their_way_through_micrometres(size: float, voxels: int) -> None:
    found = exact_scale(size)
    assert voxels * found / found == voxels
    assert found == pytest.approx(size, rel=1e-7)


def test_sizes_in_voxels_were_one_too_small_for_many_voxel_sizes() -> None:
    voxels = np.arange(1024)
    for thousandths in range(50, 1001):
        scale = exact_scale(thousandths / 1000)
        assert np.array_equal((voxels * scale / scale).astype(int), voxels)


def test_a_model_of_108_nm_could_not_be_exported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2, voxel_size=(0.108, 0.108))
    options = dataclasses.replace(OPTIONS, formats=("pytorch_state_dict",))
    result = export(run, tmp_path / "b.ZIP", options)
    assert all(check.passed for check in result.formats)
    assert zipfile.is_zipfile(result.path)
    assert load_model(result.path).recipe.voxel_size == (0.108, 0.108)


def test_the_cover_of_a_volume_shows_its_fullest_slice() -> None:
    labels = np.zeros((9, 6, 6), np.int32)
    labels[2:4, :3] = labels[7, 2:5] = 1
    assert fullest_slice(labels) == 3
    assert fullest_slice(labels[0]) is ...
    assert fullest_slice(labels * 0) == 4


# The library leaves the architecture file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tiles_of_turning_embeddings_did_not_fit_together_in_the_official_core(
    tmp_path: Path,
) -> None:
    import bioimageio.core

    run = make_run(tmp_path / "run", 2, rotary=((12.0, 12.0),))
    geometry = tile_geometry(load_run(run).recipe)
    assert geometry.step == (12, 12)
    options = ExportOptions(name="Turning", authors=("A",), formats=("pytorch_state_dict",))
    export(run, tmp_path / "bundle", options)
    size = geometry.minimum[0] + 3 * geometry.step[0]
    image = np.random.default_rng(0).random((1, 1, size, size), dtype=np.float32)

    def embedded(**tiles: int) -> np.ndarray:
        result = bioimageio.core.predict(
            model=tmp_path / "bundle" / "rdf.yaml", inputs={"input": image}, **tiles
        )
        return result.members["embeddings"].data.to_numpy()[0]

    inner = (slice(None), *(slice(halo, -halo) for halo in geometry.halo))
    with torch.inference_mode():
        whole = load_run(run).network(torch.from_numpy(zscore(image)))[0].numpy()
    for parameter in (1, 2):
        tiled = embedded(blocksize_parameter=parameter)
        # All are turned by one angle: what lies between two voxels keeps its length. At the
        # edges of the image the core mirrors it, where the network itself sees zeros.
        for axis in (1, 2):
            lengths = [
                np.linalg.norm(np.diff(field[inner], axis=axis), axis=0) for field in (whole, tiled)
            ]
            np.testing.assert_allclose(*lengths, atol=1e-3)
    gc.collect()
