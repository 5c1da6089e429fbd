"""``spoco-zoo segment``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoco_zoo.cli.app import (
    RUNS,
    USE,
    ConfigFile,
    Device,
    Overwrite,
    app,
    display,
    exit_codes,
    say,
    show,
)
from spoco_zoo.errors import ConfigError
from spoco_zoo.values import integers, numbers, region

if TYPE_CHECKING:
    from spoco_zoo.config import SegmentConfig

__all__ = ["segment"]

INPUT, OUTPUT = "What is segmented", "What is written"
CLUSTER, TILES = "From embeddings to objects", "Blocks and patches"


@app.command(rich_help_panel=USE)
@exit_codes
def segment(
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="OME-Zarr, TIFF, PNG, JPEG; a folder or a plate."),
    ],
    model: Annotated[str, typer.Option(help="Bundle, run, or id of a shipped model.")],
    output: Annotated[
        str | None,
        typer.Option(help="New OME-Zarr, or .tif; of a folder, a folder.", rich_help_panel=OUTPUT),
    ] = None,
    label_name: Annotated[
        str, typer.Option(help="Name of the label.", rich_help_panel=OUTPUT)
    ] = "spoco",
    clustering: Annotated[
        str | None, typer.Option(help="instance, meanshift, ...", rich_help_panel=CLUSTER)
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="Of the clustering.", rich_help_panel=CLUSTER)
    ] = None,
    foreground: Annotated[
        float | None, typer.Option(help="Distance from background.", rich_help_panel=CLUSTER)
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            help="Smallest object in voxels, of each plane with a 2D model.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    fill_holes: Annotated[
        bool | None,
        typer.Option(help="Give background inside an object to it.", rich_help_panel=CLUSTER),
    ] = None,
    block: Annotated[
        str | None, typer.Option(help="Core of a block, as in 64,512,512.", rich_help_panel=TILES)
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(help="What blocks share on each side.", rich_help_panel=TILES)
    ] = None,
    patch: Annotated[
        str | None, typer.Option(help="Input of the network.", rich_help_panel=TILES)
    ] = None,
    halo: Annotated[
        str | None, typer.Option(help="Border of a patch that is not used.", rich_help_panel=TILES)
    ] = None,
    blend: Annotated[
        str | None, typer.Option(help="crop, linear or gaussian.", rich_help_panel=TILES)
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Of a folder, names that match, as '*_w1.tif'.", rich_help_panel=INPUT),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Name or index of the channel.", rich_help_panel=INPUT)
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Pyramid level to segment.", rich_help_panel=INPUT)
    ] = None,
    roi: Annotated[
        str | None, typer.Option(help="0:64,100:400,100:400", rich_help_panel=INPUT)
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(help="True voxel size in um.", rich_help_panel=INPUT)
    ] = None,
    rescale: Annotated[
        bool | None,
        typer.Option(
            "--rescale/--no-rescale", help="To the model's voxel size.", rich_help_panel=INPUT
        ),
    ] = None,
    zoom: Annotated[
        float | None,
        typer.Option(
            help="Shrink (0.5), enlarge (2) or leave it (1) for the model.", rich_help_panel=INPUT
        ),
    ] = None,
    invert: Annotated[
        bool | None,
        typer.Option(
            "--invert/--no-invert", help="Bright and dark change places.", rich_help_panel=INPUT
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=RUNS)
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Worker processes; 0 for none.", rich_help_panel=RUNS)
    ] = 0,
    gpus: Annotated[
        str | None, typer.Option(help="Indices, one worker each.", rich_help_panel=RUNS)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="dask address or file.", rich_help_panel=RUNS)
    ] = None,
    ome_zarr_version: Annotated[
        str | None, typer.Option(help="0.4 or 0.5.", rich_help_panel=OUTPUT)
    ] = None,
    device: Device = "auto",
    config: ConfigFile = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the clustering.", rich_help_panel=CLUSTER)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan only.", rich_help_panel=RUNS)
    ] = False,
    overwrite: Overwrite = False,
    report: Annotated[
        bool, typer.Option(help="Picture and page beside the result.", rich_help_panel=OUTPUT)
    ] = True,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Table of all objects, beside the report.", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """Segment an image of any size into one consistent label image.

    Of a folder, and of a plate, every image is segmented by itself.

    Example: spoco-zoo segment big.ome.zarr --model nuclei.zip --workers 4
    """
    from spoco_zoo.config import REPLACED_BY_SCORES, SegmentConfig

    asked: dict[str, object] = dict(
        method=clustering,
        bandwidth=bandwidth,
        foreground=foreground,
        min_size=min_size,
        fill_holes=fill_holes,
        seed=seed,
    )
    changes = {name: value for name, value in asked.items() if value is not None}
    if REPLACED_BY_SCORES & changes.keys():
        changes["scoring"] = None  # also those of a config file, as of a run before
    settings = SegmentConfig.build(
        config,
        clustering=changes or None,
        block=integers(block, "block"),
        overlap=integers(overlap, "overlap"),
        patch=integers(patch, "patch"),
        halo=integers(halo, "halo"),
        blend=blend,
        precision=precision,
        channel=int(channel) if channel and channel.isdecimal() else channel,
        level=level,
        roi=region(roi),
        voxel_size=numbers(voxel_size, "voxel-size"),
        rescale=rescale,
        zoom=zoom,
        invert=invert,
    )
    target: dict[str, Any] = dict(
        output=output, label_name=label_name, version=ome_zarr_version, overwrite=overwrite
    )
    machines: dict[str, Any] = dict(
        workers=workers,
        gpus=tuple(gpus.split(",")) if gpus else (),
        scheduler=scheduler,
        device=device,
    )
    if os.path.isdir(source):
        from spoco_zoo.image_folder import is_folder_of_images

        if is_folder_of_images(source):
            if dry_run:
                _show_folder(source, model, settings, {**target, **machines, "only": only})
            else:
                files = dict(only=only, report=report, measure=measure)
                _segment_folder(source, model, settings, {**target, **machines, **files})
            return
    if only is not None:
        raise ConfigError("--only chooses images of a folder", f"one image, {source}", "Drop it.")
    if dry_run:
        _show_plan(source, model, settings, target, machines, page=report, table=measure)
    else:
        _segment_image(
            source, model, settings, {**target, **machines}, report=report, measure=measure
        )


def _show_plan(
    source: str,
    model: str,
    settings: SegmentConfig,
    target: dict[str, Any],
    machines: dict[str, Any],
    *,
    page: bool,
    table: bool,
) -> None:
    """What would be done with an image."""
    from spoco_zoo.beside import stopped_behind
    from spoco_zoo.segment import check_machines, dry_run, foretell, guess_time, remark_memory
    from spoco_zoo.segment.cluster import cluster
    from spoco_zoo.segment.network.models import read_model

    workers, gpus, device = machines["workers"], machines["gpus"], machines["device"]
    check_machines(workers, gpus, machines["scheduler"], device)
    loaded = read_model(model, settings.clustering)
    where = {name: target[name] for name in ("output", "label_name", "version")}
    behind = None
    if not target["overwrite"]:
        behind = stopped_behind(source, loaded, settings, page=page, table=table, **where)
    if behind is None:
        plan = dry_run(source, loaded, settings, **target)
        standing = foretell(plan, loaded, device, overwrite=target["overwrite"])
    else:
        plan = dry_run(source, loaded, settings, **where, overwrite=True)
        standing = "makes what lacks beside the labels that are there"
    local = workers or len(gpus)
    guess = guess_time(plan, loaded, cluster, device=device, workers=local or 1)
    memory = remark_memory(min(local, plan.grid.total), plan.worker_bytes)
    shown = {**plan.summary(), "run": standing, "time": guess.text()}
    show({**shown, **({"memory": memory} if memory else {})})


def _segment_image(
    source: str,
    model: str,
    settings: SegmentConfig,
    options: dict[str, Any],
    *,
    report: bool,
    measure: bool,
) -> None:
    """One image."""
    from spoco_zoo.beside import measure_result, stopped_behind, write_beside
    from spoco_zoo.errors import InputError
    from spoco_zoo.locking import alone_in
    from spoco_zoo.ngff import is_tiff_name
    from spoco_zoo.scene import look_commands
    from spoco_zoo.workflow import segment_with_pictures

    where = {name: options[name] for name in ("output", "label_name", "version")}
    with display() as shown:
        result = None
        if not options["overwrite"]:
            result = stopped_behind(source, model, settings, page=report, table=measure, **where)
        if result is None:
            result = segment_with_pictures(source, model, settings, shown, report=report, **options)
        else:
            shown.note("The same command made these labels: what lacks beside them is made.")
            with alone_in(result.report.parent):
                write_beside(source, result, settings, shown, report=report)
        values = {"output": result.output, "objects": result.objects, "report": str(result.report)}
        failure: InputError | OSError | None = None
        if measure:
            try:
                values["table"] = str(
                    measure_result(source, result.output, result.report, settings, shown)
                )
            except (InputError, OSError) as error:
                failure = error  # the labels are there all the same: first say where
    show(values)
    browser, napari = look_commands(source, result.output)
    say(f"Look at it: {browser}\n        or: {napari}")
    a_part = any(start for start, _ in settings.roi or ())
    if a_part and is_tiff_name(result.output):
        say(
            "A TIFF cannot say where its region lies: both draw labels from the image's corner. "
            "--output NAME.ome.zarr keeps the place."
        )
    if failure is not None:
        raise failure


def _show_folder(source: str, model: str, settings: SegmentConfig, options: dict[str, Any]) -> None:
    """What would be done with a folder."""
    from spoco_zoo.folder_plan import plan_folder

    with display() as shown:
        plan = plan_folder(source, model, settings, shown, **options)
    show(plan)


def _segment_folder(
    source: str, model: str, settings: SegmentConfig, options: dict[str, Any]
) -> None:
    """Every image of a folder, and what became of all of them."""
    from spoco_zoo.folders import folder_of, segment_folder
    from spoco_zoo.locking import alone_in
    from spoco_zoo.overview import TABLE, remark_zoom, write_object_table, write_overview

    # Two runs would each lack the labels of the other in their tables.
    with alone_in(folder_of(source, options["output"])), display() as shown:
        result = segment_folder(source, model, settings, shown, **options)
        remark = remark_zoom(result)
        page = write_overview(result, f"Segmentation of the images in {source}", remark)
        if remark:
            shown.note(remark)
        values: dict[str, Any] = {
            "output": options["output"] or source,
            "images": len(result.rows),
            "objects": result.objects,
            "images_table": str(result.folder / TABLE),
            "report": str(page),
        }
        if options["measure"]:
            table, lacking = write_object_table(result)
            values["table"] = str(table)
            if lacking:
                shown.note(f"Images without a table of their objects: {lacking} (--overwrite).")
    show(values)
    result.check()
