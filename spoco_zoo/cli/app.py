"""The Typer application, and what its commands share.

A command parses, calls one library function and shows its result. Nothing
heavy is imported at the top of a module, so that ``--help`` answers at once.
Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from spoco_zoo import __version__
from spoco_zoo.errors import Interrupted, SpocoError

__all__ = ["ConfigFile", "Device", "Overwrite", "app", "exit_codes", "show"]


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
            typer.echo(f"spoco-zoo: {_printable(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from None
        except MemoryError as error:
            reason = " ".join(str(error).split()) or "an allocation failed"
            typer.echo(f"spoco-zoo: not enough memory: {reason}", err=True)
            raise typer.Exit(SpocoError.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("spoco-zoo: interrupted", err=True)
            raise typer.Exit(Interrupted.exit_code) from None

    return guarded


def _printable(text: str) -> str:
    """One line that no terminal takes for a command, whatever the names in it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


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
