"""``spoco-zoo complete``."""

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

__all__ = ["complete"]


@app.command(rich_help_panel=MAKE)
@exit_codes
def complete(
    model: Annotated[str, typer.Argument(metavar="RUN|BUNDLE|ID", help="Trained on the labels.")],
    images: Annotated[Path, typer.Option(help="Folder of images, or one file.")],
    labels: Annotated[Path, typer.Option(help="Their sparse masks, of the same names.")],
    out: Annotated[Path, typer.Option(help="New folder for the completed masks.")],
    background_label: KnownBackground = None,
    label_name: LabelName = None,
    voxel_size: VoxelSize = None,
    rescale: Rescale = True,
    device: Device = "auto",
) -> Path:
    """Complete sparse annotation with what a model trained on it is sure of.

    Then train on the result: spoco-zoo train --init RUN --annotation sparse. What you
    annotated keeps its outlines, with new numbers; what the model is not sure of stays unlabeled.

    Example: spoco-zoo complete run --images raw --labels masks --out more
    """
    from spoco_zoo.complete import complete_annotation

    with display() as shown:
        result = complete_annotation(
            model,
            images,
            labels,
            out,
            background_label=background_label,
            label_name=label_name,
            voxel_size=numbers(voxel_size, "voxel-size"),
            rescale=rescale,
            device=device,
            listen=shown.update,
            say=shown.note,
        )
    show(result.to_dict())
    return out
