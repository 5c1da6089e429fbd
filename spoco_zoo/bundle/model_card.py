"""Model cards: what a person writes about a model, and what is made from its run and bundle.

::

    model_cards/<id>/
        card.md        written by hand: training data, limits, anything else worth saying
        config.yaml    settings of the training, enough to train the model again
        metrics.json   its figures
        cover.png      its own result
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spoco_zoo import run_folder
from spoco_zoo.bundle import layout
from spoco_zoo.bundle.archive import open_bundle
from spoco_zoo.bundle.run_files import public_settings, read_run
from spoco_zoo.errors import BundleError
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ModelCard", "parse_card", "read_card", "write_card_files"]

CARD_FILE = "card.md"
TRAINING_DATA, LIMITS = "Training data", "Limits"
GENERATED = ("Validation",)


@dataclass(frozen=True)
class ModelCard:
    """The text of a card.

    Attributes
    ----------
    introduction : str
        What stands between the title and the first section.
    sections : dict of str to str
        Text by heading, in the order of the file; always with training data and limits.
    """

    introduction: str
    sections: dict[str, str]

    @property
    def training_data(self) -> str:
        """What the model was trained on."""
        return self.sections[TRAINING_DATA]

    @property
    def limits(self) -> str:
        """Where it fails."""
        return self.sections[LIMITS]

    @property
    def others(self) -> dict[str, str]:
        """The sections that have no fixed place in a bundle's README."""
        return {k: v for k, v in self.sections.items() if k not in (TRAINING_DATA, LIMITS)}


def read_card(folder: Path) -> ModelCard:
    """Read ``card.md`` of a card's folder.

    Raises
    ------
    BundleError
        If there is none, or it breaks a rule of `parse_card`.
    """
    path = folder / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"a card's folder must hold a readable {CARD_FILE}",
            f"{type(error).__name__} at {path}",
            "Write one, with the sections Training data and Limits.",
        ) from error
    return parse_card(text, str(path))


def parse_card(text: str, name: str) -> ModelCard:
    """Split a card at its headings of second level; the title is left out.

    Parameters
    ----------
    text : str
        Markdown.
    name : str
        What to call the card in an error.

    Raises
    ------
    BundleError
        If training data or limits are not described, a heading comes twice, or a
        section is one that is written from figures.

    Examples
    --------
    >>> lines = ["# A", "For B.", "## Training data", "C.", "## Limits", "D."]
    >>> card = parse_card(chr(10).join(lines), "card.md")
    >>> card.introduction, card.training_data, card.limits
    ('For B.', 'C.', 'D.')
    """
    head, sections, fenced = None, {"": ""}, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            head = line[3:].strip()
            if head in sections or head in GENERATED:
                rule = "headings of a card must differ, and Validation is written from the figures"
                raise BundleError(rule, f"{head!r:.60} in {name}", "Rename or remove it.")
            sections[head] = ""
        elif not (line.startswith("# ") and head is None and not fenced):
            sections[head or ""] += line + "\n"
    sections = {key: value.strip() for key, value in sections.items()}
    missing = [key for key in (TRAINING_DATA, LIMITS) if not sections.get(key)]
    if missing:
        raise BundleError(
            f"a card must have text under '## {TRAINING_DATA}' and '## {LIMITS}'",
            f"none for {' and '.join(missing)} in {name}",
            "Write it: nobody can judge a model without it.",
        )
    return ModelCard(sections.pop(""), sections)


def write_card_files(folder: Path, run: Path, bundle: Path) -> tuple[Path, ...]:
    """Write ``config.yaml``, ``metrics.json`` and ``cover.png`` of a card.

    Same run and bundle, same bytes. ``card.md`` is never touched.

    Parameters
    ----------
    folder : Path
        ``model_cards/<id>``; made if it is not there.
    run : Path
        Finished run, the source of settings and figures.
    bundle : Path
        Its bundle, the source of the cover.

    Raises
    ------
    BundleError
        If the run is incomplete, or the bundle damaged, without cover, or of another run.
    """
    files, settings = open_bundle(bundle), public_settings(read_run(run).config).encode()
    if files.read(layout.TRAINING_CONFIG) != settings:
        raise BundleError(
            "a card's bundle must come from its run", f"other settings in {bundle}", "Export again."
        )
    contents = {
        run_folder.CONFIG: settings,
        run_folder.METRICS: (run / run_folder.METRICS).read_bytes(),
        layout.COVER: files.read(layout.COVER),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return tuple(folder / name for name in contents)
