"""One bundle per number of dimensions, exported once per session."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from bundle_runs import make_run

from spoco_zoo.bundle.export import ExportOptions, ExportResult, export

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """A run, its bundle as a zip file, and the same unpacked."""

    ndim: int
    run: Path
    zip: Path
    folder: Path
    options: ExportOptions
    result: ExportResult


def make_exported(place: Path, ndim: int) -> Exported:
    run = make_run(place / "run", ndim, momentum=ndim == 2)
    options = ExportOptions(
        name=f"Balls in {ndim}D (test)",
        authors=("Jane Doe; Institute of Tests", "John Roe"),
        # The official test looks an unknown user up at GitHub, which tests must not.
        github_user="no-such-user-of-spoco" if ndim == 2 else None,
        structure="Balls",
        timestamp="2025-01-31T12:00:00",
    )
    result = export(run, place / "bundle.zip", options)
    with zipfile.ZipFile(result.path) as archive:
        archive.extractall(place / "bundle")
    return Exported(ndim, run, result.path, place / "bundle", options, result)


@pytest.fixture(scope="session")
def exported_2d(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return make_exported(tmp_path_factory.mktemp("exported2d"), 2)


@pytest.fixture(scope="session")
def exported_3d(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return make_exported(tmp_path_factory.mktemp("exported3d"), 3)


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def exported(request: pytest.FixtureRequest) -> Exported:
    bundle: Exported = request.getfixturevalue(f"exported_{request.param}d")
    return bundle
