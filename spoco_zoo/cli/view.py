"""``spoco-zoo view``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

import typer

from spoco_zoo.cli.app import LOOK, Device, app, exit_codes, say
from spoco_zoo.errors import ConfigError
from spoco_zoo.values import region

__all__ = ["view"]


@app.command(rich_help_panel=LOOK)
@exit_codes
def view(
    path: Annotated[str, typer.Argument(help="OME-Zarr image, label image, TIFF or PNG.")],
    labels: Annotated[list[str] | None, typer.Option(help="Label image; repeat for more.")] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Embeddings of this model as colours, in --roi or the middle."
        ),
    ] = None,
    roi: Annotated[str | None, typer.Option(help="0:64,100:400,100:400")] = None,
    port: Annotated[int, typer.Option(help="Fixed port; 0 for any.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    device: Device = "auto",
) -> None:
    """Look at an image and its labels in the browser, in 2D and 3D, until Ctrl-C.

    On another machine: give a --port, and reach it by `ssh -L PORT:localhost:PORT MACHINE`.

    Example: spoco-zoo view stack.ome.zarr
    """
    from spoco_zoo.report.progress import printable
    from spoco_zoo.scene import find_scene
    from spoco_zoo.view import ViewServer

    if roi is not None and embeddings is None:
        raise ConfigError(
            "--roi is the part whose embeddings are shown",
            "no --embeddings",
            "Add --embeddings MODEL, or leave --roi out.",
        )
    scene = find_scene(path, labels or ())
    for note in scene.notes:
        say(printable(note))
    if embeddings is not None:
        from spoco_zoo.config import SegmentConfig
        from spoco_zoo.pictures import colour_embeddings

        if scene.image is None:
            raise ConfigError(
                "embeddings are those of an image",
                f"labels without one in {path}",
                "Give the image, and these as --labels.",
            )
        typer.echo("embedding the part to be shown", err=True)
        config = SegmentConfig.build(roi=region(roi))
        coloured = colour_embeddings(scene.image.uri, embeddings, config, device=device)
        scene = replace(scene, coloured=(coloured,))
    server = ViewServer(scene, host=host, port=port)
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
