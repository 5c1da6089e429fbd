"""``spoco-zoo train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import ConfigFile, Device, app, exit_codes, show
from spoco_zoo.values import integers, named_numbers, numbers

__all__ = ["train"]


@app.command()
@exit_codes
def train(
    images: Annotated[Path, typer.Option(help="Folder of images, or one file.")],
    labels: Annotated[Path, typer.Option(help="Folder of label files of the same names.")],
    out: Annotated[Path, typer.Option(help="New folder for the run.")],
    ndim: Annotated[int | None, typer.Option(help="Spatial axes: 2 or 3. [2]")] = None,
    layout: Annotated[str | None, typer.Option(help="pairs, cvppp, cityscapes. [pairs]")] = None,
    classes: Annotated[str | None, typer.Option(help="Of cityscapes, as in car,person.")] = None,
    annotation: Annotated[str | None, typer.Option(help="dense or sparse [dense].")] = None,
    instance_ratio: Annotated[float | None, typer.Option(help="Share of objects to use.")] = None,
    max_objects: Annotated[int | None, typer.Option(help="Most objects to use in all.")] = None,
    background_label: Annotated[int | None, typer.Option(help="Known background.")] = None,
    no_background: Annotated[
        bool | None, typer.Option("--no-background", help="Objects fill the whole image.")
    ] = None,
    val_images: Annotated[Path | None, typer.Option(help="Images to validate on.")] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Their labels.")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="For validation [0.1].")] = None,
    split: Annotated[
        str | None, typer.Option(help="JSON lists of names: train, val, test.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Start from this bundle, run or model id.")
    ] = None,
    voxel_size: Annotated[str | None, typer.Option(help="In um, as in 0.3,0.1,0.1.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps. [6000]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Crops per step.")] = None,
    crop: Annotated[str | None, typer.Option(help="Crop shape, as in 128,128.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many validations without gain.")
    ] = None,
    loss: Annotated[
        list[str] | None, typer.Option(help="Weight of a term, as in consistency=0; repeat.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32, bfloat16, float16. [auto]")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Use torch.compile.")] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard", help="Write event files too.")
    ] = None,
    config: ConfigFile = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. [0]")] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
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
        learning_rate=learning_rate,
        patience=patience,
        loss=named_numbers(loss, "loss"),
        precision=precision,
        compile=compile,
        tensorboard=tensorboard,
        seed=seed,
    )
    from spoco_zoo.report.progress import progress
    from spoco_zoo.workflow import train_with_pictures

    with progress() as display:
        result = train_with_pictures(
            images,
            labels,
            out,
            settings,
            display,
            val_images=val_images,
            val_labels=val_labels,
            device=device,
            resume=resume,
        )
    if result is not None:  # under torchrun the first process alone has a result
        show({"run": str(out), "report": str(out / "report.html"), **result.metrics})
