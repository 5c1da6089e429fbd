"""Cards: text by hand, everything else from the run and its bundle."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from bundle_runs import make_run

from spoco_zoo.bundle.export import ExportOptions, export
from spoco_zoo.bundle.model_card import parse_card, read_card, write_card_files
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Exported

TEXT = """# Nuclei

Finds balls.

## Use

```
## not a heading
```

## Training data

Forty images of balls.

## Limits

Never shown a cube.
"""
OPTIONS = ExportOptions(name="Balls", authors=("A",), formats=("pytorch_state_dict",))


def test_a_card_is_split_at_its_headings() -> None:
    card = parse_card(TEXT, "card.md")
    assert card.introduction == "Finds balls."
    assert card.training_data == "Forty images of balls."
    assert card.limits == "Never shown a cube."
    assert card.others == {"Use": "```\n## not a heading\n```"}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (TEXT.replace("## Limits", "## Other"), "none for Limits"),
        (TEXT.replace("Forty images of balls.", ""), "none for Training data"),
        (TEXT + "## Validation\nPerfect.\n", "written from the figures"),
        (TEXT + "## Use\nAgain.\n", "must differ"),
        ("", "Training data and Limits"),
    ],
)
def test_incomplete_cards_are_refused(text: str, rule: str) -> None:
    with pytest.raises(BundleError, match=rule):
        parse_card(text, "card.md")


def test_a_folder_without_card(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"readable card\.md"):
        read_card(tmp_path)


def test_the_readme_holds_the_card_and_the_figures(tmp_path: Path) -> None:
    folder = tmp_path / "balls"
    folder.mkdir()
    (folder / "card.md").write_text(TEXT)
    options = dataclasses.replace(OPTIONS, card=read_card(folder))
    result = export(make_run(tmp_path / "run", 2), tmp_path / "bundle", options)
    readme = (result.path / "README.md").read_text()
    for text in ("Finds balls.", "Forty images of balls.", "Never shown a cube.", "## Use"):
        assert readme.count(text) == 1
    assert "## Validation" in readme
    assert "| 0.812 | 0.700 |" in readme
    assert "Never shown a cube." in (result.path / "rdf.yaml").read_text()


def test_the_other_files_come_from_run_and_bundle(exported_2d: Exported, tmp_path: Path) -> None:
    written = write_card_files(tmp_path / "id", exported_2d.run, exported_2d.zip)
    assert [path.name for path in written] == ["config.yaml", "metrics.json", "cover.png"]
    assert (tmp_path / "id" / "cover.png").read_bytes() == (
        exported_2d.folder / "cover.png"
    ).read_bytes()
    assert sorted(path.name for path in (tmp_path / "id").iterdir()) == sorted(
        path.name for path in written
    )


def test_the_bundle_of_another_run_is_refused(exported_2d: Exported, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    with pytest.raises(BundleError, match="must come from its run"):
        write_card_files(tmp_path / "id", run, exported_2d.zip)
    assert not (tmp_path / "id").exists()
