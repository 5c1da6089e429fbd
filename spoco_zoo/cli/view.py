"""``spoco-zoo view``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from spoco_zoo.cli.app import LOOK, app, exit_codes

__all__ = ["view"]


@app.command(rich_help_panel=LOOK)
@exit_codes
def view(
    path: Annotated[str, typer.Argument(help="OME-Zarr image, label image, or TIFF.")],
    labels: Annotated[list[str] | None, typer.Option(help="Label image; repeat for more.")] = None,
    port: Annotated[int, typer.Option(help="Fixed port; 0 for any.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Look at an image and its labels in the browser, in 2D and 3D, until Ctrl-C.

    On another machine: give a --port, and reach it by `ssh -L PORT:localhost:PORT MACHINE`.

    Example: spoco-zoo view stack.ome.zarr
    """
    from spoco_zoo.view import ViewServer, find_scene

    server = ViewServer(find_scene(path, labels or ()), host=host, port=port)
    typer.echo(server.url)
    typer.echo("Ctrl-C ends it.", err=True)
    if browser:
        import webbrowser

        webbrowser.open(server.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.close()
