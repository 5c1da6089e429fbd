"""``spoco-zoo outlines``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import LOOK, Overwrite, app, check_file, display, exit_codes, show
from spoco_zoo.errors import ConfigError

__all__ = ["outlines"]


@app.command(rich_help_panel=LOOK)
@exit_codes
def outlines(
    labels: Annotated[str, typer.Argument(help="Label image, or image that holds labels.")],
    out: Annotated[
        Path, typer.Option(help="OUTLINES.geojson for QuPath, or ROIS.zip for ImageJ and Fiji.")
    ],
    label_name: Annotated[str | None, typer.Option(help="Which label, of several.")] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Whose pixels count, for labels of a region or a coarser level; "
            "and whose channels, for ROIs of a film or stack."
        ),
    ] = None,
    annotations: Annotated[
        bool,
        typer.Option("--annotations", help="For QuPath, objects to be edited: not detections."),
    ] = False,
    overwrite: Overwrite = False,
) -> Path:
    """Write the outlines of objects for QuPath, ImageJ and Fiji.

    Example: spoco-zoo outlines labels.tif --out labels.geojson
    """
    from spoco_zoo.outline_files import SUFFIXES, check_path, write_outlines

    check_path(out)
    check_file(out, "--out", *SUFFIXES)
    if out.exists() and not overwrite:  # it may have been mended by hand
        raise ConfigError(
            "an existing file of outlines is not replaced",
            str(out),
            "Choose another --out, or add --overwrite.",
        )
    with display() as shown:
        count = write_outlines(
            labels,
            out,
            label_name=label_name,
            image=image,
            kind="annotation" if annotations else "detection",
            on_step=shown.update,
        )
    show({"outlines": str(out), "count": count})
    return out
