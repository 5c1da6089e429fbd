"""``spoco-zoo segment``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spoco_zoo.cli.app import ConfigFile, Device, Overwrite, app, exit_codes, show
from spoco_zoo.values import integers, region

__all__ = ["segment"]


@app.command()
@exit_codes
def segment(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="OME-Zarr or TIFF.")],
    model: Annotated[str, typer.Option(help="Bundle, run, or id of a shipped model.")],
    output: Annotated[str | None, typer.Option(help="New OME-Zarr, or .tif.")] = None,
    label_name: Annotated[str, typer.Option(help="Name of the label.")] = "spoco",
    clustering: Annotated[str | None, typer.Option(help="instance, meanshift, ...")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Of the clustering.")] = None,
    foreground: Annotated[float | None, typer.Option(help="Distance from background.")] = None,
    min_size: Annotated[int | None, typer.Option(help="Smallest object in voxels.")] = None,
    block: Annotated[str | None, typer.Option(help="Core of a block, as in 64,512,512.")] = None,
    overlap: Annotated[str | None, typer.Option(help="What blocks share on each side.")] = None,
    patch: Annotated[str | None, typer.Option(help="Input of the network.")] = None,
    halo: Annotated[str | None, typer.Option(help="Border of a patch that is not used.")] = None,
    blend: Annotated[str | None, typer.Option(help="crop, linear or gaussian.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    channel: Annotated[str | None, typer.Option(help="Name or index of the channel.")] = None,
    level: Annotated[int | None, typer.Option(help="Pyramid level to segment.")] = None,
    roi: Annotated[str | None, typer.Option(help="0:64,100:400,100:400")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes; 0 for none.")] = 0,
    gpus: Annotated[str | None, typer.Option(help="Indices, one worker each.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="dask address or file.")] = None,
    ome_zarr_version: Annotated[str | None, typer.Option(help="0.4 or 0.5.")] = None,
    device: Device = "auto",
    config: ConfigFile = None,
    seed: Annotated[int | None, typer.Option(help="Of the clustering.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    overwrite: Overwrite = False,
    report: Annotated[bool, typer.Option(help="Picture and page beside the result.")] = True,
) -> None:
    """Segment an image of any size into one consistent label image.

    Example: spoco-zoo segment big.ome.zarr --model nuclei.zip --workers 4
    """
    from spoco_zoo.bundle.load import load_model
    from spoco_zoo.config import SegmentConfig

    asked = dict(
        method=clustering,
        bandwidth=bandwidth,
        foreground=foreground,
        min_size=min_size,
        seed=seed,
    )
    changes = {name: value for name, value in asked.items() if value is not None}
    tuned = load_model(model).recipe.clustering if changes else None
    settings = SegmentConfig.build(
        config,
        clustering={**tuned.model_dump(), **changes} if tuned else None,
        block=integers(block, "block"),
        overlap=integers(overlap, "overlap"),
        patch=integers(patch, "patch"),
        halo=integers(halo, "halo"),
        blend=blend,
        precision=precision,
        channel=int(channel) if channel and channel.isdigit() else channel,
        level=level,
        roi=region(roi),
        seed=seed,
    )
    target: dict[str, Any] = dict(
        output=output, label_name=label_name, version=ome_zarr_version, overwrite=overwrite
    )
    if dry_run:
        from spoco_zoo.segment import dry_run as decide
        from spoco_zoo.segment import guess_time
        from spoco_zoo.segment.cluster import cluster

        loaded = load_model(model)
        plan = decide(source, loaded, settings, **target)
        count = workers or (len(gpus.split(",")) if gpus else 1)
        guess = guess_time(plan, loaded, cluster, device=device, workers=count)
        show({**plan.summary(), "time": guess.text()})
        return
    from spoco_zoo.report.progress import progress
    from spoco_zoo.workflow import segment_with_pictures

    with progress() as display:
        result = segment_with_pictures(
            source,
            model,
            settings,
            display,
            report=report,
            workers=workers,
            gpus=tuple(gpus.split(",")) if gpus else (),
            scheduler=scheduler,
            device=device,
            **target,
        )
    show({"output": result.output, "objects": result.objects, "report": str(result.report)})
    typer.echo(f"Look at it: napari --plugin napari-ome-zarr {result.output}", err=True)
