"""Bundles that promise what they do not give: the check says so in one line, and fails."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "bundle"))
from bundle_runs import make_run

from spoco_zoo.bundle.export import ExportOptions, export


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("right")
    options = ExportOptions(
        name="A right one", authors=("A",), formats=("pytorch_state_dict", "torchscript")
    )
    export(make_run(place / "run", 2), place / "b.zip", options)
    with zipfile.ZipFile(place / "b.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_array(members: dict[str, bytes], name: str, change: float) -> dict[str, bytes]:
    """The bundle with another array, and the hash in the description that fits it."""
    content = io.BytesIO()
    array = np.load(io.BytesIO(members[name]))
    np.save(content, (array + change).astype(array.dtype))
    old, new = (hashlib.sha256(c).hexdigest() for c in (members[name], content.getvalue()))
    rdf = members["rdf.yaml"].replace(old.encode(), new.encode())
    return {**members, name: content.getvalue(), "rdf.yaml": rdf}


def checked(path: Path, members: dict[str, bytes]) -> subprocess.CompletedProcess[str]:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    command = [sys.executable, "-m", "spoco_zoo", "export", "--check", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("test_output.npy", 1.0, "."),
        ("test_labels.npy", 1.0, "labels differ"),
    ],
)
def test_wrong_promises(
    name: str, change: float, error: str, members: dict[str, bytes], tmp_path: Path
) -> None:
    done = checked(tmp_path / "b.zip", with_array(members, name, change))
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["passed"]
    assert re.search(error, report["error"])
    assert "\n" not in report["error"]
    assert "Traceback" not in done.stderr


def test_a_wrong_hash_is_one_line_and_exit_code_2(
    members: dict[str, bytes], tmp_path: Path
) -> None:
    weights = bytearray(members["weights.pt"])
    weights[len(weights) // 2] ^= 1
    done = checked(tmp_path / "b.zip", {**members, "weights.pt": bytes(weights)})
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
