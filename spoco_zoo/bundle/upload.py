"""What the zoo still needs from a person before a bundle is uploaded. Nothing is sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from spoco_zoo.bundle import layout
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Item", "checklist", "checklist_text", "write_checklist"]

NAMELESS = {"", "unknown"}


@dataclass(frozen=True)
class Item:
    """One point of the list; `done` is what the description itself shows."""

    done: bool
    text: str


def checklist(rdf: dict[str, Any]) -> tuple[Item, ...]:
    """Points of a description that the zoo's upload or its reviewers ask for.

    Parameters
    ----------
    rdf : dict
        The description of a bundle that has passed the official test.
    """
    authors = [person for person in rdf.get("authors") or [] if isinstance(person, dict)]
    card = (rdf.get("config") or {}).get("bioimageio") or {}
    maintainers = rdf.get("maintainers") or []
    named = bool(authors) and all(str(a.get("name")).lower() not in NAMELESS for a in authors)
    return (
        Item(True, "The official test passed in every weight format (export proved it)."),
        Item(not rdf.get("id"), "No `id`: the zoo gives one at upload, and refuses any other."),
        Item(named, "Every author is named (`--author`)."),
        Item(all(a.get("affiliation") for a in authors), 'Affiliations: `--author "Name; Place"`.'),
        Item(any(a.get("orcid") for a in authors), "ORCID of the authors, in rdf.yaml."),
        Item(bool(maintainers), "A maintainer with a GitHub account (`--github-user`)."),
        Item(bool(card.get("target_structure")), "The structure that it finds (`--structure`)."),
        Item(bool(card.get("modality")), "The microscopy (`--modality`)."),
        Item(
            bool(card.get("evaluations")),
            "The data of the figures, with its address (`--dataset`).",
        ),
        Item(len(rdf.get("cite") or []) > 1, "A citation of the training data (`--cite`)."),
    )


BY_EYE = (
    "The GitHub account and every address exist: nothing was looked up.",
    "The name says what the model is for, and no model of the zoo bears it already.",
    "The licence fits that of the training data.",
    "The cover shows a result that you would show.",
    "README: training data and limits are described, and the figures are those you expect.",
    "The images in test_input.npy and sample_input.tif may be published.",
)


def checklist_text(rdf: dict[str, Any], folder: str) -> str:
    """The list as Markdown."""
    items = checklist(rdf)
    lines = [f"- [{'x' if item.done else ' '}] {item.text}" for item in items]
    by_eye = [f"- [ ] {text}" for text in BY_EYE]
    return "\n".join(
        [
            f"# Before `{folder}` is uploaded",
            "",
            "## Read from the description",
            "",
            *lines,
            "",
            "Change options and export again rather than files in the folder; after an edit of "
            "rdf.yaml run `spoco-zoo export --check`.",
            "",
            "## Only a person can tell",
            "",
            *by_eye,
            "",
            "## Then",
            "",
            f"Upload the files of `{folder}` at bioimage.io, or with a token of that site by "
            f"`bioimageio.spec.upload('{folder}/{layout.DESCRIPTION}')`.",
            "",
        ]
    )


def write_checklist(folder: Path) -> Path:
    """Write the list for a bundle's folder beside it, and return where.

    It does not go into the folder, which is uploaded as it is.
    """
    rdf = yaml.safe_load((folder / layout.DESCRIPTION).read_text(encoding="utf-8"))
    path = folder.with_name(f"{folder.name}-checklist.md")
    with replacing(path) as partial:
        partial.write_text(checklist_text(rdf, folder.name), encoding="utf-8")
    return path
