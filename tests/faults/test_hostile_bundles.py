"""A bundle is untrusted: each of these is refused with one line, and runs no code.

Code that a bundle carries would create a marker file; that file must not exist.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
from bundle_runs import make_run

from spoco_zoo.bundle.archive import Limits, open_bundle, vet_zip
from spoco_zoo.bundle.export import ExportOptions, export
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.rdf import parse_yaml
from spoco_zoo.bundle.verify import check_bundle, read_array
from spoco_zoo.bundle.weights import read_onnx, read_tensors, read_torchscript
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Members:
    place = tmp_path_factory.mktemp("good")
    options = ExportOptions(
        name="A good one", authors=("A",), formats=("pytorch_state_dict", "torchscript")
    )
    export(make_run(place / "run", 2, momentum=True), place / "good.zip", options)
    with zipfile.ZipFile(place / "good.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def replaced(members: Members, name: str, content: bytes) -> Members:
    """The bundle with another file, and the description's hash of it brought up to date."""
    old, new = (hashlib.sha256(c).hexdigest().encode() for c in (members[name], content))
    rdf = members["rdf.yaml"].replace(old, new)
    return {**members, name: content, "rdf.yaml": rdf}


def edited(members: Members, change: Callable[[dict], None]) -> Members:
    rdf = yaml.safe_load(members["rdf.yaml"])
    change(rdf)
    return {**members, "rdf.yaml": yaml.safe_dump(rdf).encode()}


def assert_refused(path: Path, rule: str) -> None:
    """Loading and checking both end in one line that says what is wrong."""
    for attempt in (load_model, lambda p: check_bundle(p, trust_code=False)):
        with pytest.raises(BundleError, match=rule) as caught:
            attempt(path)
        assert "\n" not in str(caught.value)


class Payload:
    """Unpickled, it would create the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.marker),))


def test_the_good_bundle_is_accepted(good: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip", good)
    assert load_model(path).recipe.net.ndim == 2
    report = check_bundle(path, trust_code=False)
    assert report.passed
    assert report.labels == "equal"


def test_wrong_hash(good: Members, tmp_path: Path) -> None:
    weights = bytearray(good["weights.pt"])
    weights[len(weights) // 2] ^= 1
    path = write(tmp_path / "b.zip", {**good, "weights.pt": bytes(weights)})
    assert_refused(path, r"match the hash.*weights\.pt")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "C:\\evil.txt", "..\\evil", "a\nb"]
)
def test_names_that_leave_the_bundle(name: str, good: Members, tmp_path: Path) -> None:
    assert_refused(write(tmp_path / "b.zip", {**good, name: b"x"}), "stay inside")


@pytest.mark.parametrize("source", ["../weights.pt", "/etc/passwd", "sub/../../weights.pt"])
def test_sources_that_leave_the_bundle(source: str, good: Members, tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        rdf["weights"]["pytorch_state_dict"]["source"] = source

    (tmp_path / "weights.pt").write_bytes(good["weights.pt"])
    assert_refused(write(tmp_path / "b.zip", edited(good, change)), "must be in the bundle")


def test_sources_on_the_network(good: Members, tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        rdf["weights"]["pytorch_state_dict"]["source"] = "https://example.org/weights.pt"

    assert_refused(write(tmp_path / "b.zip", edited(good, change)), "must be in the bundle")


def test_symbolic_links_in_a_zip(good: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip", good)
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert_refused(path, "no links")


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "rdf.yaml"])
def test_symbolic_links_in_a_folder(target: str, good: Members, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for name, content in good.items():
        (folder / name).write_bytes(content)
    (folder / "link").symlink_to(target)
    assert_refused(folder, "no links")


def test_weights_that_are_a_link_to_elsewhere(good: Members, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for name, content in good.items():
        (folder / name).write_bytes(content)
    (folder / "weights.pt").rename(tmp_path / "elsewhere.pt")
    (folder / "weights.pt").symlink_to(tmp_path / "elsewhere.pt")
    assert_refused(folder, "no links")


def test_a_zip_bomb(good: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip", good)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("zeros", bytes(64 * 2**20))
    assert path.stat().st_size < 2**20
    assert_refused(path, "plausible size")


def test_a_bomb_inside_of_the_weights(good: Members, tmp_path: Path) -> None:
    inner = io.BytesIO(good["weights.pt"])
    with zipfile.ZipFile(inner, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("weights/data/zeros", bytes(64 * 2**20))
    path = write(tmp_path / "b.zip", replaced(good, "weights.pt", inner.getvalue()))
    assert_refused(path, "plausible size")


def test_too_many_and_too_large_files(good: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip", good)
    for limits, rule in (
        (Limits(members=3), "over 3 files"),
        (Limits(member_bytes=100), "plausible size"),
        (Limits(total_bytes=1000), "exceed 1,000 bytes"),
    ):
        with pytest.raises(BundleError, match=rule):
            open_bundle(path, limits)


def test_a_file_twice(good: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip", good)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("RDF.yaml", b"type: model")
    assert_refused(path, "names in a bundle must differ")


@pytest.mark.parametrize("name", ["weights.pt", "momentum.pt"])
def test_a_pickle_payload_in_the_weights(name: str, good: Members, tmp_path: Path) -> None:
    marker, content = tmp_path / "marker", io.BytesIO()
    torch.save({"head.bias": Payload(marker)}, content)
    path = write(tmp_path / "b.zip", replaced(good, name, content.getvalue()))
    assert_refused(path, "tensors and nothing else")
    assert not marker.exists()


def test_a_bare_pickle_as_weights(good: Members, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content = pickle.dumps(Payload(marker))
    assert_refused(write(tmp_path / "b.zip", replaced(good, "weights.pt", content)), "readable zip")
    assert not marker.exists()


def test_a_pickle_payload_in_an_array(good: Members, tmp_path: Path) -> None:
    marker, content = tmp_path / "marker", io.BytesIO()
    np.save(content, np.array([Payload(marker)], object), allow_pickle=True)
    path = write(tmp_path / "b.zip", replaced(good, "test_output.npy", content.getvalue()))
    with pytest.raises(BundleError, match="plain array"):
        check_bundle(path, trust_code=False)
    assert not marker.exists()


def test_an_array_that_claims_more_than_it_holds() -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**40)}
    )
    with pytest.raises(BundleError, match="plain array"):
        read_array(content.getvalue(), "test_input.npy")


@pytest.mark.parametrize("name", ["weights.pt", "spoco_unet.py", "test_output.npy"])
def test_a_missing_file(name: str, good: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip", {k: v for k, v in good.items() if k != name})
    with pytest.raises(BundleError, match=f"must be in the bundle.*{re.escape(name)}"):
        check_bundle(path, trust_code=False)


def test_an_architecture_with_code_is_not_run(good: Members, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = good["spoco_unet.py"] + f"\nimport os; os.mkdir({str(marker)!r})\n".encode()
    path = write(tmp_path / "b.zip", replaced(good, "spoco_unet.py", code))
    # The tensors fit our own network, so loading can do without the file.
    assert load_model(path).recipe.net.ndim == 2
    report = check_bundle(path, trust_code=False)
    assert [check.name for check in report.formats] == ["torchscript"]
    assert any("pytorch_state_dict" in reason for reason in report.not_run)
    assert not marker.exists()
    assert check_bundle(path, trust_code=True).passed
    assert marker.exists()


def test_arguments_of_our_own_architecture_are_checked(good: Members, tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        kwargs = rdf["weights"]["pytorch_state_dict"]["architecture"]["kwargs"]
        kwargs["features"] = [10**9] * 3

    report = check_bundle(write(tmp_path / "b.zip", edited(good, change)), trust_code=False)
    assert [check.name for check in report.formats] == ["torchscript"]


def test_a_script_with_code_is_not_run(good: Members, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = good["spoco_cluster.py"] + f"\nimport os; os.mkdir({str(marker)!r})\n".encode()
    path = write(tmp_path / "b.zip", replaced(good, "spoco_cluster.py", code))
    report = check_bundle(path, trust_code=False)
    assert report.labels == "not checked"
    assert any("script is not that of this version" in reason for reason in report.not_run)
    assert not marker.exists()


def test_custom_processing_is_not_run(good: Members, tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        step = {"id": "custom", "callable": "f", "source": "spoco_cluster.py", "kwargs": {}}
        rdf["outputs"][0]["postprocessing"] = [step]

    report = check_bundle(write(tmp_path / "b.zip", edited(good, change)), trust_code=False)
    assert report.formats == ()
    assert not report.passed
    assert "custom processing" in report.not_run[0]


class WritesAFile(torch.nn.Module):
    """A network that would write a file while it is being loaded."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.training = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return (self.marker, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):  # type: ignore[no-untyped-def]
        self.marker = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.marker)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
def test_torchscript_that_writes_files_is_not_loaded(good: Members, tmp_path: Path) -> None:
    marker, content = tmp_path / "marker", io.BytesIO()
    torch.jit.save(torch.jit.script(WritesAFile(str(marker))), content)
    marker.unlink(missing_ok=True)
    with pytest.raises(BundleError, match="must only compute"):
        read_torchscript(content.getvalue(), "weights.pt")
    assert not marker.exists()
    path = write(tmp_path / "b.zip", replaced(good, "weights_torchscript.pt", content.getvalue()))
    with pytest.raises(BundleError, match="must only compute"):
        check_bundle(path, trust_code=False)
    assert not marker.exists()


def test_onnx_that_refers_to_other_files() -> None:
    import onnx
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [values[0]], [values[1]], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(BundleError, match="one file"):
        read_onnx(model.SerializeToString(), "weights.onnx")
    hidden = helper.make_node("Constant", [], ["w"], value=weight)
    graph = helper.make_graph([hidden, node], "g", [values[0]], [values[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(BundleError, match="one file"):
        read_onnx(model.SerializeToString(), "weights.onnx")
    assert onnx.__version__


@pytest.mark.parametrize(
    ("state", "rule"),
    [
        ({"w": torch.zeros(1).expand(10**9)}, "tensors by name"),
        ({"w": torch.tensor([float("nan")])}, "finite"),
        ({"w": [1, 2]}, "tensors by name"),
        ([torch.zeros(1)], "state dict"),
    ],
)
def test_weights_that_are_not_what_they_claim(state: object, rule: str) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    with pytest.raises(BundleError, match=rule):
        read_tensors(content.getvalue(), "weights.pt")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"features": [10**9] * 3}, "fit the network|possible size"),
        ({"features": [4] * 40, "pooling": [[1, 1]] * 39}, "12 levels"),
        ({"embedding_dim": 5}, "recipe of this version"),
        ({"features": [4, 6, 9]}, "fit the network"),
        ({"unknown": 1}, "recipe of this version"),
    ],
)
def test_a_recipe_that_does_not_fit(change: dict, rule: str, good: Members, tmp_path: Path) -> None:
    path = write(
        tmp_path / "b.zip", edited(good, lambda rdf: rdf["config"]["spoco"]["net"].update(change))
    )
    assert_refused(path, rule)


def test_descriptions_that_are_no_plain_yaml() -> None:
    laughs = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for content, rule in (
        (b"!!python/object/apply:os.mkdir [marker]", "plain YAML"),
        (laughs.encode(), "200,000 values"),
        (b"a: &a [*a]", "200,000 values"),
        (b"[" * 5000, "plain YAML"),
        (b"\xff\xfe", "plain YAML"),
        (b"x" * (3 * 2**20), "exceed"),
        (b"- a\n- b", "mapping"),
    ):
        with pytest.raises(BundleError, match=rule):
            parse_yaml(content)
    assert not Path("marker").exists()


def test_files_that_are_no_bundle(good: Members, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 not really")
    assert_refused(tmp_path / "b.zip", "readable zip")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "rdf.yaml")
    whole = io.BytesIO(write(tmp_path / "c.zip", good).read_bytes())
    (tmp_path / "cut.zip").write_bytes(whole.getvalue()[:-2000])
    assert_refused(tmp_path / "cut.zip", "readable zip")
    encrypted = bytearray(whole.getvalue())
    entry = encrypted.rindex(b"PK\x01\x02")
    encrypted[entry + 8] |= 1
    with pytest.raises(BundleError, match="encrypted"):
        vet_zip(io.BytesIO(bytes(encrypted)), "b.zip")
