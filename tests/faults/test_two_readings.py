"""One bundle that two programs read differently: what was vetted must be what runs."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING

import pytest
import yaml
from bioimageio.spec.utils import identify_bioimageio_yaml_file_name
from test_hostile_bundles import Members, assert_refused, good, write

from spoco_zoo.bundle import layout

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["good"]  # the fixture


@pytest.mark.parametrize("name", ["a.rdf.yaml", "z.model.yaml", "bioimageio.yaml"])
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_code_behind_a_second_description_does_not_run(
    name: str, kind: str, good: Members, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    code = good["spoco_unet.py"] + f"\nimport os; os.mkdir({str(marker)!r})\n".encode()
    rdf = yaml.safe_load(good["rdf.yaml"])
    rdf["weights"]["pytorch_state_dict"]["architecture"] |= {
        "source": "evil.py",
        "sha256": hashlib.sha256(code).hexdigest(),
    }
    path = write(tmp_path / "b.zip", {**good, "evil.py": code, name: yaml.safe_dump(rdf).encode()})
    if kind == "folder":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "b")
        path = tmp_path / "b"
    assert_refused(path, f"one description.*{name}")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["rdf.yaml", "model.yaml", "bioimageio.yaml", "a.rdf.yaml", "sub/x.model.yaml"]
)
def test_a_name_that_the_official_library_reads_counts_as_a_description(name: str) -> None:
    assert identify_bioimageio_yaml_file_name(["a.txt", name]) == name
    assert layout.is_description(name)
    assert not layout.is_description(f"{name}.txt")
