"""``spoco-zoo export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import MAKE, Overwrite, app, exit_codes, show
from spoco_zoo.errors import ConfigError

__all__ = ["export"]


@app.command(rich_help_panel=MAKE)
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
