"""``spoco-zoo models``."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from spoco_zoo.cli.app import USE, app, exit_codes
from spoco_zoo.errors import BundleError

if TYPE_CHECKING:
    from spoco_zoo.bundle.shipped import ModelSummary

__all__ = ["models"]

SCORES = {
    "ap50": "AP@0.5",
    "ap75": "AP@0.75",
    "ap90": "AP@0.9",
    "sbd": "symmetric best Dice",
    "dic": "difference in count",
    "arand": "adapted Rand error",
}


@app.command(rich_help_panel=USE)
@exit_codes
def models(
    model_id: Annotated[str | None, typer.Argument(help="Show one, or a bundle, in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the models that need no training: what they are for and how good they are.

    Example: spoco-zoo models nuclei-fluo-2d
    """
    from spoco_zoo.bundle.shipped import MODELS_VARIABLE, describe_model

    if model_id is not None:
        card = describe_model(model_id)
        typer.echo(json.dumps(card.to_dict(), indent=2) if as_json else card_text(card))
        return
    cards = readable_models()
    if as_json:
        typer.echo(json.dumps({"models": [card.to_dict() for card in cards]}, indent=2))
    elif not cards:
        typer.echo(
            "No model ships with this installation. "
            f"{MODELS_VARIABLE}=FOLDER adds the bundles of a folder, by name.",
            err=True,
        )
    else:
        typer.echo(list_text(cards))
        typer.echo(
            "\nAP: average precision TP / (TP + FP + FN), 1 is perfect, on images that the model "
            "has not seen,\nvolumes embedded at once (* on the images that it was tuned on). "
            f"Use one: spoco-zoo segment IMAGE --model {cards[0].id}",
            err=True,
        )


def readable_models() -> list[ModelSummary]:
    """All models that can be described; a line on stderr for each that cannot."""
    from spoco_zoo.bundle.shipped import MODEL_ID, describe_shipped, misnamed, shipped_models
    from spoco_zoo.report.progress import printable

    cards = []
    for name in shipped_models():
        try:
            cards.append(describe_shipped(name))
        except BundleError as error:
            typer.echo(f"not listed: {name}: {printable(str(error))}", err=True)
    for file in misnamed():
        rule = f"the name of a model's file must be {MODEL_ID.pattern}.zip"
        typer.echo(f"not listed: {printable(file)}: {rule}", err=True)
    return cards


def list_text(cards: list[ModelSummary]) -> str:
    """One row per model."""
    from spoco_zoo.report.tables import table_text

    head = ["id", "for", "axes", "um", "AP@0.5", "AP@0.75", "MB"]
    rows = [
        [
            card.id,
            card.description,
            f"{card.ndim}D",
            size_text(card),
            score_text(card, "ap50"),
            score_text(card, "ap75"),
            f"{card.size / 1e6:.1f}",
        ]
        for card in cards
    ]
    return table_text(head, rows, right=["AP@0.5", "AP@0.75", "MB"], whole=["id", "axes", "um"])


def card_text(card: ModelSummary) -> str:
    """Everything about one model."""
    from spoco_zoo.report.tables import pairs_text, table_text

    known = card.annotation == "sparse" and card.annotated_fraction < 1  # 1 if nobody counted
    share = f" ({card.annotated_fraction:.0%} of the objects)" if known else ""
    facts = {
        "id": card.id,
        "name": card.name,
        "for": card.description,
        "limits": card.limits,
        "images": f"{card.ndim}D, {len(card.channels)} channel(s): {', '.join(card.channels)}",
        "pixel size": f"{size_text(card)} um in training" if card.voxel_size else "unknown",
        "object size": objects_text(card),
        "annotation": card.annotation + share,
        "authors": ", ".join(card.authors),
        "licence": card.license,
        "bundle": f"{card.size / 1e6:.1f} MB",
        "use": f"spoco-zoo segment IMAGE --model {shlex.quote(card.id)}",
    }
    sets = [part for part in ("test", "validation") if card.figures.get(part)]
    rows = [
        [label, *(f"{card.figures[part][key]:.3f}" if key in card.figures[part] else "-"
                  for part in sets)]
        for key, label in SCORES.items()
        if any(key in card.figures[part] for part in sets)
    ]  # fmt: skip
    head = ["score"]
    for part in sets:
        count = card.figures[part].get("n_images")
        head.append(f"{part} ({count:g} images)" if count else part)
    text = pairs_text(facts)
    return f"{text}\n\n{table_text(head, rows, right=head[1:])}" if rows else text


def size_text(card: ModelSummary) -> str:
    """Voxel size in micrometres."""
    size = card.voxel_size
    if size is None:
        return "?"
    return f"{size[0]:g}" if len(set(size)) == 1 else " x ".join(f"{v:g}" for v in size)


def score_text(card: ModelSummary, name: str) -> str:
    """A score, with a star if there were no test images."""
    value = card.figure(name)
    if value is None:
        return "-"
    return f"{value:.2f}{'*' if card.judged_on == 'validation' else ''}"


def objects_text(card: ModelSummary) -> str:
    """Sizes of the training objects."""
    if card.object_size is None:
        return ""
    low, middle, high = card.object_size
    what = "pixels" if card.ndim == 2 else "voxels"
    return f"{middle:g} {what} in the median, most between {low:g} and {high:g}"
