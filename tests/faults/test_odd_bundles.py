"""Bundles with values of another kind than is meant: refused with one line, never a traceback."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch
from test_hostile_bundles import Members, assert_refused, edited, good, replaced, write

from spoco_zoo.bundle.formats import jit_is_deprecated
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.verify import check_bundle
from spoco_zoo.bundle.weights import read_tensors, read_torchscript
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["good"]  # the fixture


def test_weights_that_are_a_bare_name(good: Members, tmp_path: Path) -> None:
    members = edited(good, lambda rdf: rdf["weights"].update(pytorch_state_dict="weights.pt"))
    assert_refused(write(tmp_path / "b.zip", members), "named by their `source`")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, device="meta"),
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, dtype=torch.complex64),
    ],
    ids=["meta", "sparse", "complex"],
)
def test_tensors_without_plain_numbers(tensor: torch.Tensor, good: Members, tmp_path: Path) -> None:
    state = torch.load(io.BytesIO(good["weights.pt"]), weights_only=True)
    content = io.BytesIO()
    torch.save({name: tensor for name in state}, content)
    with pytest.raises(BundleError, match="tensors"):
        read_tensors(content.getvalue(), "weights.pt")
    members = replaced(good, "weights.pt", content.getvalue())
    assert_refused(write(tmp_path / "b.zip", members), "tensors")


@pytest.mark.parametrize(
    "change",
    [
        {"voxel_size": [0, 0]},
        {"voxel_size": [-1, 1]},
        {"voxel_size": [1, 1, 1]},
        {"voxel_size": []},
        {"voxel_size": [1e200, 1e200]},
        {"object_size": [-1, -1, -1]},
        {"object_size": [1, 1, 1e300]},
    ],
    ids=str,
)
def test_sizes_that_are_none(change: dict, good: Members, tmp_path: Path) -> None:
    members = edited(good, lambda rdf: rdf["config"]["spoco"].update(change))
    assert_refused(write(tmp_path / "b.zip", members), "recipe of this version")


@pytest.mark.parametrize(
    ("where", "value"),
    [("inputs", 5), ("preprocessing", 5), ("preprocessing", [5])],
    ids=str,
)
def test_tensors_and_steps_that_are_none(
    where: str, value: object, good: Members, tmp_path: Path
) -> None:
    def change(rdf: dict) -> None:
        (rdf if where == "inputs" else rdf["inputs"][0])[where] = value

    path = write(tmp_path / "b.zip", edited(good, change))
    with pytest.raises(BundleError, match="lists of mappings"):
        check_bundle(path, trust_code=False)


def test_parameters_that_are_no_numbers(good: Members, tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        rdf["config"]["spoco"]["cluster_script"]["parameters"] = {"bandwidth": "wide"}

    path = write(tmp_path / "b.zip", edited(good, change))
    assert load_model(path).recipe.net.ndim == 2
    with pytest.raises(BundleError, match="must make labels"):
        check_bundle(path, trust_code=False)


def test_a_damaged_member_of_torchscript_ended_in_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with jit_is_deprecated():
        torch.jit.script(torch.nn.Linear(40, 40)).save(str(path))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + 100 + largest.file_size // 2] ^= 16
    with pytest.raises(BundleError, match="must be readable"):
        read_torchscript(bytes(content), "weights.pt")
