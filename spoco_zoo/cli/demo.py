"""``spoco-zoo demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import DATA, app, display, exit_codes, show

__all__ = ["demo"]


@app.command(rich_help_panel=DATA)
@exit_codes
def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("spoco-demo"),
    ndim: Annotated[int, typer.Option(help="2, or 3.")] = 2,
    size: Annotated[int | None, typer.Option(help="Side of the segmented image.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Make data, train, export, test, segment and report: minutes on a CPU.

    Example: spoco-zoo demo --out spoco-demo --ndim 3
    """
    from spoco_zoo.demo.story import run_demo

    with display() as shown:
        result = run_demo(
            out,
            shown,
            ndim=ndim,
            size=size,
            iterations=iterations,
            workers=workers,
            seed=seed,
        )
    show(result)
