"""``spoco-zoo export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import MAKE, Overwrite, app, exit_codes, show
from spoco_zoo.errors import ConfigError

__all__ = ["export"]


@app.command(rich_help_panel=MAKE)
@exit_codes
def export(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.")] = None,
    out: Annotated[Path | None, typer.Option(help="BUNDLE.zip, or a folder.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Author; repeat for more.")] = None,
    license: Annotated[str, typer.Option(help="SPDX identifier.")] = "MIT",
    formats: Annotated[
        str, typer.Option(help="Weight formats, with commas between.")
    ] = "pytorch_state_dict,torchscript,onnx",
    description: Annotated[str | None, typer.Option(help="One sentence about it.")] = None,
    structure: Annotated[str | None, typer.Option(help="The objects, as nuclei.")] = None,
    modality: Annotated[str | None, typer.Option(help="Kind of microscopy.")] = None,
    card: Annotated[Path | None, typer.Option(help="model_cards/ID with card.md.")] = None,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Write the other files of the card.")
    ] = False,
    for_upload: Annotated[
        bool, typer.Option("--for-upload", help="A folder for the zoo, and a checklist.")
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help='Of the figures, as "ID; https://address".')
    ] = None,
    cite: Annotated[
        list[str] | None, typer.Option(help='Beside the method, as "Text; DOI"; repeat for more.')
    ] = None,
    model_version: Annotated[str, typer.Option(help="As 0.1.0.")] = "0.1.0",
    github_user: Annotated[str | None, typer.Option(help="Maintainer on GitHub.")] = None,
    rdf_version: Annotated[str, typer.Option(help="compat, or latest.")] = "compat",
    timestamp: Annotated[str | None, typer.Option(help="Fixed ISO time, for equal bytes.")] = None,
    with_labels: Annotated[
        bool, typer.Option("--with-labels", help="A second output: labels of a whole image.")
    ] = False,
    momentum: Annotated[
        bool, typer.Option(help="The second network, for consistency clustering.")
    ] = True,
    overwrite: Overwrite = False,
    check: Annotated[Path | None, typer.Option(help="Check this bundle and stop.")] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --check: run the bundle's Python code.")
    ] = False,
) -> Path:
    """Export a run as a bioimage.io bundle that has passed the official test.

    Example: spoco-zoo export run --out nuclei.zip --name "My nuclei" --author "A. Person"
    """
    if check is not None:
        from spoco_zoo.bundle.verify import check_bundle

        found = check_bundle(check, trust_code=trust_code)
        show(found.to_dict())
        raise typer.Exit(0 if found.passed else 1)
    if run is None or out is None or name is None:
        raise ConfigError(
            "export needs RUN, --out and --name", "not all of them", "See spoco-zoo export -h."
        )
    if write_card and card is None:
        raise ConfigError("--write-card needs a card", "none", "Pass --card FOLDER.")
    from spoco_zoo.bundle.export import export as export_run
    from spoco_zoo.bundle.model_card import read_card, write_card_files
    from spoco_zoo.bundle.options import ExportOptions

    options = ExportOptions(
        name=name,
        authors=tuple(author or ["unknown"]),
        license=license,
        formats=tuple(map(str.strip, formats.split(","))),  # type: ignore[arg-type]  # checked by export
        with_labels=with_labels,
        momentum=momentum,
        github_user=github_user,
        description=description,
        structure=structure,
        modality=modality,
        card=None if card is None else read_card(card),
        for_upload=for_upload,
        dataset=None if dataset is None else two_parts(dataset, "--dataset"),
        cite=tuple(text_and_doi(text) for text in cite or ()),
        version=model_version,
        rdf_version=rdf_version,  # type: ignore[arg-type]  # checked by export
        timestamp=timestamp,
        overwrite=overwrite,
    )
    result = export_run(run, out, options)
    written = write_card_files(card, run, result.path) if write_card and card else ()
    show(
        {
            "bundle": str(result.path),
            "status": "passed",
            "formats": [item.name for item in result.formats],
            "largest_difference": result.differences,
            "example_objects": result.objects,
            "not_looked_up": list(result.unchecked),
            "checklist": result.checklist and str(result.checklist),
            "card": [str(path) for path in written],
        }
    )
    return result.path


def two_parts(text: str, flag: str) -> tuple[str, str]:
    """What stands before and after the last semicolon.

    Raises
    ------
    ConfigError
        If either is missing.
    """
    first, _, second = (part.strip() for part in text.rpartition(";"))
    if not (first and second):
        raise ConfigError(
            f"{flag} must have two parts with a semicolon between", repr(text), "See export -h."
        )
    return first, second


def text_and_doi(text: str) -> tuple[str, str]:
    """A citation and its DOI, which may hold semicolons itself, and be given as an address.

    Examples
    --------
    >>> text_and_doi("Saito; et al.; https://doi.org/10.1002/a7<852::AID>3.0.CO;2-N")
    ('Saito; et al.', '10.1002/a7<852::AID>3.0.CO;2-N')
    """
    found = re.fullmatch(r"(.*);\s*(?:https?://(?:dx\.)?doi\.org/|doi:\s*)?(10\..*)", text, re.I)
    return (found[1].strip(), found[2].strip()) if found else two_parts(text, "--cite")
