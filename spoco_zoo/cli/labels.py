"""Commands for images and labels that exist: ``evaluate``, ``convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import DATA, LOOK, Overwrite, app, check_file, display, exit_codes, show
from spoco_zoo.errors import ConfigError
from spoco_zoo.replacing import replacing
from spoco_zoo.values import integers

__all__ = ["convert", "evaluate"]


@app.command(rich_help_panel=LOOK)
@exit_codes
def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Labels: file, folder or OME-Zarr.")],
    truth: Annotated[Path, typer.Argument(metavar="GROUND_TRUTH", help="The same of the truth.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all scores.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    ignore: Annotated[int | None, typer.Option(help="Truth value to leave out.")] = None,
) -> Path | None:
    """Compare labels with the truth.

    Example: spoco-zoo evaluate predicted/ truth/ --json scores.json
    """
    from spoco_zoo.evaluate import evaluate as compare

    check_file(json_file, "--json", ".json")
    check_file(html, "--html", ".html", ".htm")
    if json_file is not None and json_file == html:
        raise ConfigError("--json and --html must be two files", str(html), "Rename one.")
    with display() as shown:
        result = compare(
            prediction,
            truth,
            ignore=ignore,
            on_image=lambda name, done, total: shown.update("evaluate", done, total),
            on_region=lambda done, total: shown.update("regions", done, total),
        )
        if result.without_truth:
            shown.note(
                f"Predictions without a truth are left out: {len(result.without_truth)}, such as "
                f"{result.without_truth[0]!r}."
            )
        if result.hint:
            shown.note(result.hint)
    values = result.to_dict()
    if json_file is not None:
        with replacing(json_file) as partial:
            partial.write_text(json.dumps(values, indent=2) + "\n")
    if html is not None:
        from spoco_zoo.workflow import write_evaluation_page

        write_evaluation_page(result, html)
    show({name: values[name] for name in ("n_images", "mean", "pooled")})
    return json_file or html


@app.command(rich_help_panel=DATA)
@exit_codes
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="TIFF, OME-Zarr, PNG or JPEG.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="OME-Zarr, or .tif.")],
    labels: Annotated[bool, typer.Option("--labels", help="The image holds labels.")] = False,
    ome_zarr_version: Annotated[str, typer.Option(help="0.4 or 0.5.")] = "0.5",
    chunk: Annotated[str | None, typer.Option(help="Chunk per spatial axis.")] = None,
    level: Annotated[int, typer.Option(help="Level of the source.")] = 0,
    series: Annotated[
        int | None, typer.Option(help="Image of a TIFF that holds several; its first by default.")
    ] = None,
    project: Annotated[
        bool, typer.Option("--project", help="Of a stack, the brightest of all planes.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert TIFF to OME-Zarr with a pyramid, block by block, and back.

    Example: spoco-zoo convert stack.tif stack.ome.zarr
    """
    from spoco_zoo.ngff import convert as convert_image

    with display() as shown:
        convert_image(
            source,
            target,
            chunk=integers(chunk, "chunk"),
            version=ome_zarr_version,
            labels=labels,
            level=level,
            series=series,
            projected=project,
            overwrite=overwrite,
            on_note=shown.note,
            progress=lambda done, total: shown.update("convert", done, total),
        )
    show({"output": target})
