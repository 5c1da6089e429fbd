"""The Typer application, and what its commands share.

A command parses, calls one library function and shows its result. Nothing
heavy is imported at the top of a module, so that ``--help`` answers at once.
Results go to stdout, progress and messages to stderr.
"""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from spoco_zoo import __version__
from spoco_zoo.cli.options_file import keep_options, read_options
from spoco_zoo.cli.usage import UsageError, usage_line
from spoco_zoo.errors import ConfigError, Interrupted, SpocoError, is_denied, lacks_room, one_line
from spoco_zoo.run_folder import CONFIG
from spoco_zoo.stopping import heard_as_ctrl_c
from spoco_zoo.values import at_home

if TYPE_CHECKING:
    from spoco_zoo.report.progress import Display

__all__ = [
    "DATA",
    "LOOK",
    "MAKE",
    "RUNS",
    "USE",
    "ConfigFile",
    "Device",
    "KnownBackground",
    "LabelName",
    "Overwrite",
    "Rescale",
    "VoxelSize",
    "app",
    "check_file",
    "display",
    "exit_codes",
    "say",
    "show",
]

# Groups of commands and of options in --help.
MAKE, USE, LOOK, DATA = "Make a model", "Use a model", "Look and measure", "Data"
RUNS, TERMINAL = "How it runs", "Messages"


class _Commands(TyperGroup):
    """The commands; of a line that cannot be read they say in one line what is wrong."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As that of any group."""
        standalone_mode = kwargs.get("standalone_mode", True)
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except UsageError as error:
            if not standalone_mode:
                raise
            # Without a command all of them have been shown.
            if not type(error).__name__.startswith("NoArgs"):
                _fail(usage_line(error))
            sys.exit(ConfigError.exit_code)
        if standalone_mode:
            sys.exit(code)
        return code


app = typer.Typer(
    cls=_Commands,
    name="spoco-zoo",
    help="From a few annotated objects to one consistent label volume, and a tested model bundle.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:I.", rich_help_panel=RUNS)]
ConfigFile = Annotated[
    Path | None, typer.Option(help="YAML file; flags win over it.", rich_help_panel=RUNS)
]
VoxelSize = Annotated[str | None, typer.Option(help="True voxel size in um.")]
Rescale = Annotated[bool, typer.Option("--rescale/--no-rescale", help="To the model's voxel size.")]
KnownBackground = Annotated[
    int | None, typer.Option(help="Value of known background; as in the run.")
]
LabelName = Annotated[
    str | None, typer.Option(help="Of several labels in an OME-Zarr; as in the run.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@dataclass
class _Messages:
    """How much the running command says."""

    verbose: bool = False
    quiet: bool = False
    log: Path | None = None

    def end_log(self) -> None:
        """Its disk is full, which was told of."""
        self.log = None


_messages = _Messages()


def take_options(context: typer.Context, file: Path | None) -> Path | None:
    """Options and arguments of a command from a YAML file; those on the command line win."""
    if file is not None:
        try:
            context.default_map = read_options(file, context.command.params)
        except ConfigError as error:
            _fail(str(error))
            raise typer.Exit(error.exit_code) from None
    return file


_OPTIONS_FILE = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file of options; flags win over it.",
        is_eager=True,
        callback=take_options,
        rich_help_panel=RUNS,
    ),
]

_SHARED: dict[str, Any] = {
    "verbose": Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", help="Where an error arose, too.", rich_help_panel=TERMINAL
        ),
    ],
    "quiet": Annotated[
        bool,
        typer.Option("-q", "--quiet", help="Errors and results only.", rich_help_panel=TERMINAL),
    ],
    "log_file": Annotated[
        Path | None,
        typer.Option(help="Write every message there as well.", rich_help_panel=TERMINAL),
    ],
}


def exit_codes(command: Callable[..., Path | None]) -> Callable[..., None]:
    """Give a command the options of its messages, and end it by its error's exit code.

    An error is one line on stderr; after Ctrl-C or SIGTERM a second one says how to go on. If
    the command returns a path, its options are written beside that.
    """

    @wraps(command)
    def guarded(
        *args: Any,
        verbose: bool = False,
        quiet: bool = False,
        log_file: Path | None = None,
        options_file: Path | None = None,
        **kwargs: Any,
    ) -> None:
        _messages.verbose, _messages.quiet, _messages.log = verbose, quiet, log_file
        # Of damaged files errors say what is to be said, and in one line.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        try:
            if verbose and quiet:
                raise ConfigError("-v and -q exclude each other", "both", "Leave one out.")
            given = {name: at_home(value) for name, value in kwargs.items()}
            with heard_as_ctrl_c():
                result = command(*args, **given)
            if result is not None:
                _keep(result, given)
        except SpocoError as error:
            _fail(str(error))
            if isinstance(error, Interrupted):
                _go_on(begun=True)
            # A full disk is no fault of the input, wherever it strikes.
            code = SpocoError.exit_code if lacks_room(error) else error.exit_code
            raise typer.Exit(code) from None
        except (MemoryError, RuntimeError) as error:
            if "home directory" in str(error):  # of packages that keep a cache there
                _fail("a home folder must be known; found none for this user. Set HOME.")
                raise typer.Exit(ConfigError.exit_code) from None
            if not (isinstance(error, MemoryError) or _lacks_memory(error)):
                raise
            _fail(f"not enough memory: {one_line(error)[:200]}")
            raise typer.Exit(SpocoError.exit_code) from None
        except BrokenPipeError:
            raise  # whoever reads the result, `head` for one, has had enough
        except OSError as error:  # a full disk above all
            begun = _has_begun(kwargs.get("out"))
            refusal = _refusal(error)
            _fail(
                refusal or f"a file could not be read or written, perhaps for want of room: {error}"
            )
            if begun or not refusal:
                _go_on(begun=begun)
            raise typer.Exit((ConfigError if refusal else SpocoError).exit_code) from None
        except KeyboardInterrupt:
            # Threads of zarr that are cut off complain when the interpreter ends.
            sys.unraisablehook = lambda unraisable: None
            _fail("interrupted")
            _go_on(begun=_has_begun(kwargs.get("out")))
            raise typer.Exit(Interrupted.exit_code) from None

    guarded.__signature__, guarded.__annotations__ = _with_shared(command)  # type: ignore[attr-defined]
    return guarded


def _keep(result: Path, given: dict[str, Any]) -> None:
    """Options beside a result, which is worth more than they are."""
    try:
        keep_options(result, given)
    except OSError as error:
        say(f"The result is complete, but not its options beside it: {one_line(error)}")


def _with_shared(command: Callable[..., Path | None]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Signature and annotations of a command with the options that all commands have."""
    parameters = [*inspect.signature(command, eval_str=True).parameters.values()]
    own = {parameter.name for parameter in parameters}
    # Settings of training and segmentation are more than their options, and read as a whole.
    shared = _SHARED if "config" in own else {**_SHARED, "options_file": _OPTIONS_FILE}
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if name.endswith("_file") else False,
            annotation=kind,
        )
        for name, kind in shared.items()
    ]
    annotations = {**get_type_hints(command, include_extras=True), **shared}
    return inspect.Signature(parameters), annotations


@contextmanager
def display() -> Iterator[Display]:
    """The progress display that the user asked for."""
    from spoco_zoo.report.progress import progress

    with progress(quiet=_messages.quiet, log=_messages.log, on_full=_messages.end_log) as shown:
        yield shown


def show(value: dict[str, Any]) -> None:
    """Machine-readable result on stdout."""
    try:
        typer.echo(json.dumps(value, indent=2))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SpocoError(f"all is done, but the result could not be printed ({error})") from error


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr, and in the log."""
    if not _messages.quiet:
        _tell(text)
    _log(text)


def _tell(text: str) -> None:
    """A line on stderr, which may be a file on a full disk: the work is what counts."""
    with suppress(OSError):
        typer.echo(text, err=True)


def check_file(path: Path | None, option: str, *kinds: str) -> None:
    """Refuse a file that could not be written, or one that is no such file, before all the work.

    Parameters
    ----------
    path : Path or None
    option : str
        That names it.
    *kinds : str
        Endings of files that may be replaced.
    """
    if path is None:
        return
    if path.exists() and not (path.is_file() and path.suffix.lower() in kinds):
        raise ConfigError(
            f"{option} must name a new file, or one that ends in {' or '.join(kinds)}",
            f"{'something else' if path.is_file() else 'no regular file'} at {path}",
            "Choose another name.",
        )
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        what = f"{folder}, which cannot" if folder.is_dir() else f"none at {folder}"
        raise ConfigError(
            f"{option} must name a file in a folder that can be written", what, "Mend the path."
        )


def _lacks_memory(error: RuntimeError) -> bool:
    """Whether torch, which is imported where anything of it fails, asked for too much memory."""
    if "torch" not in sys.modules:
        return False
    from spoco_zoo.nets.device import short_of_memory

    return short_of_memory(error)


def _fail(text: str) -> None:
    """An error's line, in the log as well; its traceback if the user asked for more."""
    # What zarr still had to read when it failed or was cut off would be told of, line after line,
    # and coroutines that nobody waits for any more when the interpreter ends.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", RuntimeWarning)
    from spoco_zoo.report.progress import printable

    if _messages.verbose:
        _tell(traceback.format_exc())
    _tell(f"spoco-zoo: {printable(text)}")
    _log(text)


def _log(text: str) -> None:
    """A last line of the log, if there is one."""
    from spoco_zoo.report.progress import progress

    if _messages.log is not None:
        try:
            with progress(quiet=True, log=_messages.log, on_full=_messages.end_log) as log:
                log.note(text)
        except ConfigError:  # the log itself was the error
            return


def _refusal(error: OSError) -> str:
    """What is to be said of a place that can never be used; empty of one that lacks room."""
    if error.errno == errno.ENAMETOOLONG:
        return f"names of files must be shorter; found {error.filename}. Choose others."
    if is_denied(error):
        return (
            f"files must be there to be read and written; found {one_line(error)}. Mend their "
            "permissions, or choose another place."
        )
    return ""


def _has_begun(run: Path | None) -> bool:
    """Whether there is a training to go on with."""
    return run is not None and (run / CONFIG).is_file()


def _go_on(*, begun: bool) -> None:
    """The command that goes on with what was stopped; a training only if it has begun."""
    from spoco_zoo.report.sections import command_line

    command = command_line()
    if command.startswith("spoco-zoo demo"):
        text = "A demo does not go on: begin it again with another --out."
    elif command.startswith(("spoco-zoo segment", "spoco-zoo train")):
        # A run of training says itself that it is to be gone on with.
        resume = " --resume" if begun and command.startswith("spoco-zoo train ") else ""
        text = f"Go on with: {command.removesuffix(' --resume')}{resume}"
    else:
        return
    _tell(text)
    _log(text)


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
