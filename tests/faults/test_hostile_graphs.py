"""Models that would take all time or memory, and names that would be more than names."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
import torch
from onnx import TensorProto, helper
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
from bundle_runs import disks, make_run

from spoco_zoo import run_folder
from spoco_zoo.bundle.archive import read_members
from spoco_zoo.bundle.load import recipe_from_config
from spoco_zoo.bundle.rdf import parse_yaml
from spoco_zoo.bundle.tensors import embedding_tensors
from spoco_zoo.bundle.trial import try_network
from spoco_zoo.cli import app
from spoco_zoo.errors import BundleError, StoreError
from spoco_zoo.nets.model import load_run

SECONDS, MEMORY = 12, 3 * 2**30


class Endless(torch.nn.Module):
    """Never returns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() < 1):
            x = x * 0
        return x


class Gigantic(torch.nn.Module):
    """Asks for a terabyte."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(1 << 38).sum()


def torchscript(network: torch.nn.Module) -> bytes:
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(network), content)
    return content.getvalue()


def onnx_model(nodes: list, initializers: list) -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    assert onnx.__version__
    return model.SerializeToString()


def endless_onnx() -> bytes:
    """A loop of 2^62 rounds."""
    rounds = helper.make_tensor("rounds", TensorProto.INT64, [], [2**62])
    go = helper.make_tensor("go", TensorProto.BOOL, [], [True])
    names = [("i", TensorProto.INT64, []), ("c", TensorProto.BOOL, [])]
    inside = [helper.make_tensor_value_info(*name) for name in names]
    inside.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 1, 4, 4]))
    outside = [helper.make_tensor_value_info("c2", TensorProto.BOOL, [])]
    outside.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 1, 4, 4]))
    body = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Cos", ["v"], ["w"])]
    loop = helper.make_node(
        "Loop", ["rounds", "go", "x"], ["y"], body=helper.make_graph(body, "b", inside, outside)
    )
    return onnx_model([loop], [rounds, go])


def gigantic_onnx() -> bytes:
    """A constant of a terabyte, made while the graph is loaded."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2**38])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["ones"]),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return onnx_model(nodes, [shape])


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("torchscript", lambda: torchscript(Endless())),
        ("torchscript", lambda: torchscript(Gigantic())),
        ("onnx", endless_onnx),
        ("onnx", gigantic_onnx),
    ],
    ids=["endless script", "gigantic script", "endless onnx", "gigantic onnx"],
)
def test_absurd_graphs_end_within_their_limits(kind: str, make) -> None:
    with pytest.raises(BundleError, match=f"within {SECONDS} s") as caught:
        try_network(make(), kind, "weights", (1, 1, 4, 4), 0, seconds=SECONDS, memory=MEMORY)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
def test_a_sound_graph_passes_its_trial() -> None:
    try_network(torchscript(torch.nn.Conv2d(1, 2, 1)), "torchscript", "w", (1, 1, 4, 4), 0)


def description(minimum: object, step: object, halo: int) -> dict:
    space = [
        {"type": "space", "id": a, "size": {"min": minimum, "step": step}, "halo": halo}
        for a in "yx"
    ]
    axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["a"]}, *space]
    scaling = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]
    return {
        "inputs": [{"id": "input", "axes": axes, "preprocessing": scaling}],
        "outputs": [{"id": "embeddings", "axes": axes}],
    }


def test_plausible_sizes_are_accepted() -> None:
    assert embedding_tensors(description(16, 16, 8))[0].minimum == (16, 16)


@pytest.mark.parametrize(
    "sizes", [(2**20, 16, 0), (16, 10**15 + 37, 0), (16, 16, 10**12), (16, 16, -5)]
)
def test_huge_sizes_are_refused_before_anything_runs(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(BundleError, match=r"small images|plausible"):
        embedding_tensors(description(*sizes))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["net"].update(pooling=[[10**9, 10**9]] * 2),
        lambda r: r["net"].update(pooling=[[128, 1]] * 2),
        lambda r: r.update(patch=[10**6, 10**6]),
        lambda r: r["clustering"].update(bandwidth=float("inf")),
        lambda r: r.update(delta_dist=float("inf")),
        lambda r: r.update(background=[float("nan")] * 4),
    ],
    ids=["pooling", "total pooling", "patch", "bandwidth", "delta_dist", "background"],
)
def test_recipes_that_ask_for_more_than_there_is(change, tmp_path: Path) -> None:
    recipe = json.loads((make_run(tmp_path / "run", 2) / run_folder.RECIPE).read_text())
    recipe_from_config(recipe)
    change(recipe)
    with pytest.raises(BundleError):
        recipe_from_config(recipe)


@pytest.mark.parametrize("states", [[1], {"network": 3}, {"other": {}}])
def test_a_run_whose_weights_are_something_else(states: object, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    torch.save(states, run / "model.pt")
    with pytest.raises(BundleError, match="those of a network"):
        load_run(run)


def test_a_zip_that_lies_about_its_sizes() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**24))
    lying = content.getvalue().replace((2**24).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != content.getvalue()
    with pytest.raises((BundleError, zipfile.BadZipFile)):
        read_members(lying, "b.zip")


@pytest.mark.parametrize(
    "content",
    [
        b"a: " + b"9" * 10_000,
        b"{" * 3000,
        b"a: &a\n" + b"  <<: *a\n" * 3000,
        b"? " * 2000,
        b"a: !!timestamp 9999-99-99",
        b"a: !!binary '\xc3\xa9'",
        b"\x00",
        b"a: [" + b"&x 1, " * 100_000 + b"*x" * 5 + b"]",
    ],
    ids=["number", "nested", "merges", "keys", "time", "binary", "null", "anchors"],
)
def test_more_yaml_that_means_harm(content: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        parse_yaml(content)
    assert "\n" not in str(caught.value)


HARMFUL = [
    "<script>alert(1)<script>",
    "$(touch marker)",
    "`touch marker`",
    "; touch marker",
    "-rf",
    "--overwrite",
    "%s%n",
    "\x1b[2J",
    "a'b\"c&d",
]


@pytest.mark.parametrize("name", HARMFUL)
def test_names_that_are_commands_or_html_stay_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "run", 2)
    file = tmp_path / f"{name.replace('/', '_')}.tif"
    image, _ = disks(2)
    values = image.astype(np.uint16)
    metadata = {"axes": "CYX", "Channel": {"Name": [name]}}
    tifffile.imwrite(file, values, ome=True, metadata=metadata, photometric="minisblack")
    arguments = ["segment", str(file), "--model", str(run), "--output", "o.zarr"]
    done = CliRunner().invoke(app, arguments)
    if name.isprintable():
        assert done.exit_code == 0, done.stderr
        page = next(tmp_path.glob("*.spoco-run/*.html")).read_text()
        assert "<script" not in page
    else:  # no XML may hold such a name, so the OME description is broken
        assert done.exit_code == 2
        assert done.stderr.rstrip().isprintable()
    assert not (tmp_path / "marker").exists()
    refused = CliRunner().invoke(app, [*arguments[:-1], "p.zarr", f"--label-name={name}"])
    assert refused.exit_code == 2
    assert refused.stderr.rstrip().isprintable()
    assert not (tmp_path / "p.zarr").exists()


def test_a_folder_of_labels_with_html_in_its_names(tmp_path: Path) -> None:
    labels = np.kron(np.arange(4).reshape(2, 2), np.ones((8, 8), int)).astype(np.uint16)
    for folder in ("found", "truth"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "<img src=x onerror=y>.tif", labels)
    page = tmp_path / "page.html"
    folders = [str(tmp_path / "found"), str(tmp_path / "truth")]
    done = CliRunner().invoke(app, ["evaluate", *folders, "--html", str(page)])
    assert done.exit_code == 0, done.stderr
    assert "onerror=y&gt;" in page.read_text()
    assert "<img src=x" not in page.read_text()


def test_a_name_with_a_line_break_leaves_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "a\nb\x1b[2J"), "o.zarr"])
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.rstrip().isprintable()
    assert issubclass(StoreError, ValueError)
    assert not os.path.lexists("o.zarr")
