"""``spoco-zoo tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import (
    MAKE,
    Device,
    KnownBackground,
    LabelName,
    Rescale,
    VoxelSize,
    app,
    display,
    exit_codes,
    show,
)
from spoco_zoo.values import numbers

__all__ = ["tune"]


@app.command(rich_help_panel=MAKE)
@exit_codes
def tune(
    model: Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="What to tune.")],
    images: Annotated[Path, typer.Option(help="Folder of images, or one file.")],
    labels: Annotated[Path, typer.Option(help="Their object masks, of the same names.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report; RUN/tuning.")] = None,
    methods: Annotated[str | None, typer.Option(help="With commas between; all.")] = None,
    store: Annotated[bool, typer.Option(help="Write the winner into the run.")] = True,
    annotation: Annotated[str | None, typer.Option(help="dense or sparse; as in the run.")] = None,
    background_label: KnownBackground = None,
    label_name: LabelName = None,
    voxel_size: VoxelSize = None,
    rescale: Rescale = True,
    device: Device = "auto",
) -> Path:
    """Choose the clustering and its parameters on annotated images.

    A run's recipe then holds the winner. A bundle stays as it is: pass the
    written settings to segment --config.

    Example: spoco-zoo tune run --images images/ --labels labels/
    """
    from spoco_zoo.tuning import tune_model

    with display() as shown:
        result = tune_model(
            model,
            images,
            labels,
            out=out,
            methods=tuple(name.strip() for name in methods.split(",")) if methods else (),
            store=store,
            annotation=annotation,
            background_label=background_label,
            label_name=label_name,
            voxel_size=numbers(voxel_size, "voxel-size"),
            rescale=rescale,
            device=device,
            listen=shown.update,
        )
        for warning in result.warnings:
            shown.note(f"note: {warning}")
    show(result.to_dict())
    return result.page.parent
