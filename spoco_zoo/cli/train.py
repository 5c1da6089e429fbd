"""``spoco-zoo train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import MAKE, RUNS, ConfigFile, Device, app, display, exit_codes, show
from spoco_zoo.errors import Interrupted
from spoco_zoo.values import integers, named_numbers, numbers

__all__ = ["train"]

PAIRS, ANNO, LEARN = "Images and labels", "What the labels mean", "Learning"


@app.command(rich_help_panel=MAKE)
@exit_codes
def train(
    images: Annotated[
        Path, typer.Option(help="Folder of images, or one file.", rich_help_panel=PAIRS)
    ],
    labels: Annotated[
        Path, typer.Option(help="Folder of label files of the same names.", rich_help_panel=PAIRS)
    ],
    out: Annotated[Path, typer.Option(help="New folder for the run.")],
    ndim: Annotated[
        int | None, typer.Option(help="Spatial axes: 2 or 3. [2]", rich_help_panel=PAIRS)
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="pairs (default), cvppp, cityscapes.", rich_help_panel=PAIRS)
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Of cityscapes, as in car,person.", rich_help_panel=PAIRS)
    ] = None,
    label_name: Annotated[
        str | None,
        typer.Option(help="Which labels of OME-Zarr with several.", rich_help_panel=PAIRS),
    ] = None,
    annotation: Annotated[
        str | None, typer.Option(help="dense (default) or sparse.", rich_help_panel=ANNO)
    ] = None,
    instance_ratio: Annotated[
        float | None, typer.Option(help="Share of objects to use.", rich_help_panel=ANNO)
    ] = None,
    max_objects: Annotated[
        int | None, typer.Option(help="Most objects to use in all.", rich_help_panel=ANNO)
    ] = None,
    background_label: Annotated[
        int | None, typer.Option(help="Known background.", rich_help_panel=ANNO)
    ] = None,
    no_background: Annotated[
        bool | None,
        typer.Option("--no-background", help="Objects fill the whole image.", rich_help_panel=ANNO),
    ] = None,
    val_images: Annotated[
        Path | None, typer.Option(help="Images to validate on.", rich_help_panel=PAIRS)
    ] = None,
    val_labels: Annotated[
        Path | None, typer.Option(help="Their labels.", rich_help_panel=PAIRS)
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="For validation [0.1].", rich_help_panel=PAIRS)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="JSON lists of names: train, val, test.", rich_help_panel=PAIRS),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from this bundle, run or model id.", rich_help_panel=LEARN),
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(help="In um, as in 0.3,0.1,0.1.", rich_help_panel=PAIRS)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Steps. [6000]", rich_help_panel=LEARN)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Crops per step.", rich_help_panel=LEARN)
    ] = None,
    crop: Annotated[
        str | None, typer.Option(help="Crop shape, as in 128,128.", rich_help_panel=LEARN)
    ] = None,
    augmentation: Annotated[
        float | None,
        typer.Option(help="Strength of random changes. [1]", rich_help_panel=LEARN),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate.", rich_help_panel=LEARN)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many validations without gain.", rich_help_panel=LEARN),
    ] = None,
    non_spatial: Annotated[
        bool | None,
        typer.Option("--non-spatial", help="As in the paper: no rotary.", rich_help_panel=LEARN),
    ] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(help="Weight of a term, as in consistency=0; repeat.", rich_help_panel=LEARN),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto (default), float32, bfloat16, float16.", rich_help_panel=RUNS),
    ] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile", help="Use torch.compile.", rich_help_panel=RUNS)
    ] = None,
    tensorboard: Annotated[
        bool | None,
        typer.Option("--tensorboard", help="Write event files too.", rich_help_panel=RUNS),
    ] = None,
    config: ConfigFile = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random. [0]", rich_help_panel=LEARN)
    ] = None,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=RUNS)
    ] = False,
) -> None:
    """Train a model from images and object masks.

    Example: spoco-zoo train --images raw --labels masks --out run --annotation sparse
    """
    from spoco_zoo.config import TrainConfig

    settings = TrainConfig.build(
        config,
        ndim=ndim,
        layout=layout,
        classes=classes.split(",") if classes else None,
        split=split,
        init=init,
        label_name=label_name,
        annotation=annotation,
        instance_ratio=instance_ratio,
        max_objects=max_objects,
        background_label=background_label,
        no_background=no_background,
        val_fraction=val_fraction,
        voxel_size=numbers(voxel_size, "voxel-size"),
        iterations=iterations,
        batch_size=batch_size,
        crop=integers(crop, "crop"),
        augmentation=augmentation,
        learning_rate=learning_rate,
        patience=patience,
        rotary=() if non_spatial else None,
        loss=named_numbers(loss, "loss"),
        precision=precision,
        compile=compile,
        tensorboard=tensorboard,
        seed=seed,
    )
    from spoco_zoo.workflow import train_with_pictures

    try:
        with display() as shown:
            result = train_with_pictures(
                images,
                labels,
                out,
                settings,
                shown,
                val_images=val_images,
                val_labels=val_labels,
                device=device,
                resume=resume,
            )
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command with --resume goes on in {out}") from None
    if result is not None:  # under torchrun the first process alone has a result
        show({"run": str(out), "report": str(out / "report.html"), **result.metrics})
