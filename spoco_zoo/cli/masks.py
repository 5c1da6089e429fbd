"""``spoco-zoo masks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import DATA, app, check_file, display, exit_codes, show

__all__ = ["masks"]


@app.command(rich_help_panel=DATA)
@exit_codes
def masks(
    shapes: Annotated[
        Path, typer.Argument(help="OBJECTS.geojson of QuPath, or ROIS.zip of ImageJ and Fiji.")
    ],
    image: Annotated[str, typer.Argument(help="Image that they were drawn on.")],
    out: Annotated[Path, typer.Option(help="MASKS.tif, for --labels of train.")],
    background_label: Annotated[
        int, typer.Option(min=1, help="Value of shapes that are named or classed background.")
    ] = 65535,
) -> None:
    """Turn shapes that were drawn around objects into masks for training.

    Example: spoco-zoo masks RoiSet.zip raw/piece_1.tif --out masks/piece_1.tif
    """
    from spoco_zoo.painting import check_target, paint_file

    check_target(out)
    check_file(out, "--out", ".tif", ".tiff")
    with display() as shown:
        done = paint_file(
            shapes,
            image,
            out,
            background_label=background_label,
            on_shape=lambda done, total: shown.update("paint", done, total),
        )
        if done.lost:
            shown.note(
                f"Objects without a voxel: {done.lost}. They lie outside of the image or below "
                "others."
            )
        if done.corner is not None:
            shown.note(
                f"All shapes lie within the first {done.corner[1]} x {done.corner[0]} of "
                f"{done.labels.shape[-1]} x {done.labels.shape[-2]} pixels (X x Y). If they were "
                "drawn on a smaller copy of the image, give that one, to train on it, too."
            )
        if done.left_out:
            shown.note(
                f"Points, lines and shapes of classes that QuPath ignores are left out: "
                f"{done.left_out}."
            )
    show({"masks": str(out), "objects": done.objects})
