"""A folder for the zoo, and the list of what a person must still do."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import yaml
from bundle_runs import make_run
from typer.testing import CliRunner

from spoco_zoo.bundle.export import ExportOptions, export
from spoco_zoo.bundle.official import quietly
from spoco_zoo.bundle.upload import checklist
from spoco_zoo.cli import app
from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = ExportOptions(
    name="For the zoo",
    authors=("A. Person; Institute",),
    formats=("pytorch_state_dict",),
    github_user="no-such-user-of-spoco",
    structure="nuclei",
    for_upload=True,
)


def test_the_folder_meets_the_conditions_of_the_upload(tmp_path: Path) -> None:
    """Those that bioimageio.spec.upload checks before it sends anything."""
    from bioimageio.spec import load_description
    from bioimageio.spec.model import ModelDescr

    result = export(make_run(tmp_path / "run", 2), tmp_path / "zoo", OPTIONS)
    with quietly(("no-such-user-of-spoco",)):
        description = load_description(tmp_path / "zoo")
        assert isinstance(description, ModelDescr)
        assert description.id is None
    assert result.checklist == tmp_path / "zoo-checklist.md"
    text = result.checklist.read_text()
    assert "- [x] A maintainer" in text
    assert "- [ ] The microscopy" in text
    assert {path.name for path in tmp_path.iterdir()} == {"run", "zoo", "zoo-checklist.md"}
    assert "checklist" not in " ".join(path.name for path in result.path.iterdir())


def test_data_and_citation_are_said_on_the_command_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    command = ["export", str(run), "--out", str(tmp_path / "zoo"), "--name", "For the zoo"]
    command += ["--for-upload", "--formats", "pytorch_state_dict", "--model-version", "1.2.0"]
    wrong = CliRunner().invoke(app, [*command, "--cite", "10.5281/zenodo.1"])
    assert wrong.exit_code == 2
    assert "--cite must have two parts" in wrong.stderr
    about = ["--cite", "The data; 10.5281/zenodo.1", "--dataset", "my-data; https://example.org/d"]
    done = CliRunner().invoke(app, [*command, *about])
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "zoo-checklist.md").read_text()
    assert "- [x] The data of the figures" in text
    assert "- [x] A citation of the training data" in text
    assert yaml.safe_load((tmp_path / "zoo" / "rdf.yaml").read_text())["version"] == "1.2.0"
    kept = str(tmp_path / "zoo.config.yaml")
    assert "exists" in CliRunner().invoke(app, ["export", "--config", kept]).stderr
    again = CliRunner().invoke(app, ["export", "--config", kept, "--overwrite"])
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "zoo-checklist.md").read_text() == text


def test_a_zip_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a folder"):
        export(tmp_path / "none", tmp_path / "zoo.zip", OPTIONS)


def test_a_bare_description_leaves_all_to_a_person() -> None:
    rdf = yaml.safe_load("{id: a-b, authors: [{name: unknown}], cite: [{text: the method}]}")
    done = [item for item in checklist(rdf) if item.done]
    assert len(done) == 1
    assert "official test" in done[0].text


def test_options_are_kept_apart() -> None:
    assert dataclasses.replace(OPTIONS, for_upload=False).taken_as_given == OPTIONS.taken_as_given
