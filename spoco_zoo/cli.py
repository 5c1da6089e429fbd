"""The command line: parse, call one library function, translate errors to exit codes.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from spoco_zoo import __version__
from spoco_zoo.errors import ConfigError, Interrupted, SpocoError
from spoco_zoo.values import integers, numbers, region

__all__ = ["app", "main"]

app = typer.Typer(
    name="spoco-zoo",
    help="From a few annotated objects to one consistent label volume, and a tested model bundle.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:I.")]
Arguments = ParamSpec("Arguments")
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file; flags win over it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def exit_codes(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """End a command that fails with the error's one line on stderr and its exit code."""

    @wraps(command)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SpocoError as error:
            typer.echo(f"spoco-zoo: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("spoco-zoo: interrupted", err=True)
            raise typer.Exit(Interrupted.exit_code) from None

    return guarded


def show(value: dict[str, Any]) -> None:
    """Machine-readable result on stdout."""
    typer.echo(json.dumps(value, indent=2))


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main_options(
    _: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
@exit_codes
def train(
    images: Annotated[Path, typer.Option(help="Folder of images, or one file.")],
    labels: Annotated[Path, typer.Option(help="Folder of label files of the same names.")],
    out: Annotated[Path, typer.Option(help="New folder for the run.")],
    ndim: Annotated[int | None, typer.Option(help="Spatial axes: 2 or 3. [2]")] = None,
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
    voxel_size: Annotated[str | None, typer.Option(help="In um, as in 0.3,0.1,0.1.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps. [6000]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Crops per step.")] = None,
    crop: Annotated[str | None, typer.Option(help="Crop shape, as in 128,128.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
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
    show({"run": str(out), "report": str(out / "report.html"), **result.metrics})


@app.command()
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
    github_user: Annotated[str | None, typer.Option(help="Maintainer on GitHub.")] = None,
    rdf_version: Annotated[str, typer.Option(help="compat, or latest.")] = "compat",
    timestamp: Annotated[str | None, typer.Option(help="Fixed ISO time, for equal bytes.")] = None,
    with_labels: Annotated[
        bool, typer.Option("--with-labels", help="Network with labels.")
    ] = False,
    overwrite: Overwrite = False,
    check: Annotated[Path | None, typer.Option(help="Check this bundle and stop.")] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --check: run the bundle's Python code.")
    ] = False,
) -> None:
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
    from spoco_zoo.bundle.export import export as export_run
    from spoco_zoo.bundle.options import ExportOptions

    options = ExportOptions(
        name=name,
        authors=tuple(author or ["unknown"]),
        license=license,
        formats=tuple(formats.split(",")),  # type: ignore[arg-type]  # checked by export
        with_labels=with_labels,
        github_user=github_user,
        description=description,
        rdf_version=rdf_version,  # type: ignore[arg-type]  # checked by export
        timestamp=timestamp,
        overwrite=overwrite,
    )
    result = export_run(run, out, options)
    show(
        {
            "bundle": str(result.path),
            "status": "passed",
            "formats": [item.name for item in result.formats],
            "largest_difference": result.differences,
            "example_objects": result.objects,
            "not_looked_up": list(result.unchecked),
        }
    )


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
        channel=int(channel) if channel and channel.isdigit() else channel,
        level=level,
        roi=region(roi),
        seed=seed,
    )
    target: dict[str, Any] = dict(
        output=output, label_name=label_name, version=ome_zarr_version, overwrite=overwrite
    )
    if dry_run:
        from spoco_zoo.segment import dry_run as plan

        show(plan(source, model, settings, **target).summary())
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


@app.command()
@exit_codes
def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Labels: file, folder or OME-Zarr.")],
    truth: Annotated[Path, typer.Argument(metavar="GROUND_TRUTH", help="The same of the truth.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all scores.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    ignore: Annotated[int | None, typer.Option(help="Truth value to leave out.")] = None,
) -> None:
    """Compare labels with the truth.

    Example: spoco-zoo evaluate predicted/ truth/ --json scores.json
    """
    from spoco_zoo.evaluate import evaluate as compare

    result = compare(prediction, truth, ignore=ignore)
    values = result.to_dict()
    if json_file is not None:
        partial = json_file.with_name(json_file.name + ".partial")
        partial.write_text(json.dumps(values, indent=2) + "\n")
        partial.replace(json_file)
    if html is not None:
        from spoco_zoo.workflow import write_evaluation_page

        write_evaluation_page(result, html)
    show({name: values[name] for name in ("n_images", "mean", "pooled")})


@app.command()
@exit_codes
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="TIFF or OME-Zarr.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="OME-Zarr, or .tif.")],
    labels: Annotated[bool, typer.Option("--labels", help="The image holds labels.")] = False,
    ome_zarr_version: Annotated[str, typer.Option(help="0.4 or 0.5.")] = "0.5",
    chunk: Annotated[str | None, typer.Option(help="Chunk per spatial axis.")] = None,
    level: Annotated[int, typer.Option(help="Level of the source.")] = 0,
    series: Annotated[int, typer.Option(help="Image of a TIFF that holds several.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Convert TIFF to OME-Zarr with a pyramid, block by block, and back.

    Example: spoco-zoo convert stack.tif stack.ome.zarr
    """
    from spoco_zoo.ngff import convert as convert_image
    from spoco_zoo.report.progress import progress

    with progress() as display:
        convert_image(
            source,
            target,
            chunk=integers(chunk, "chunk"),
            version=ome_zarr_version,
            labels=labels,
            level=level,
            series=series,
            overwrite=overwrite,
            progress=lambda done, total: display.update("convert", done, total),
        )
    show({"output": target})


@app.command()
@exit_codes
def models(model_id: Annotated[str | None, typer.Argument(help="Show one.")] = None) -> None:
    """List the models that ship with the package."""
    from spoco_zoo.bundle.load import load_model, shipped_models

    if model_id is None:
        show({"models": list(shipped_models())})
    else:
        show(load_model(model_id).recipe.model_dump(mode="json"))


@app.command()
@exit_codes
def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("spoco-demo"),
    ndim: Annotated[int, typer.Option(help="2, or 3.")] = 2,
    size: Annotated[int | None, typer.Option(help="Side of the segmented image.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Make data, train, export, test, segment and report: minutes on a CPU."""
    from spoco_zoo.demo.story import run_demo
    from spoco_zoo.report.progress import progress

    with progress() as display:
        result = run_demo(
            out,
            display,
            ndim=ndim,
            size=size,
            iterations=iterations,
            workers=workers,
            seed=seed,
        )
    show(result)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(app())
