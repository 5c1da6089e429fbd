"""Messages in the language of who reads them: keywords for a notebook, flags for a shell.

The library names settings by the flags of the command line. Functions for notebooks turn these
into the keywords that they take.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

from spoco_zoo.errors import ConfigError, InputError, SpocoError, described

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InKeywords", "as_keywords", "find_setting", "in_keywords", "meant", "path_text"]

P = ParamSpec("P")
R = TypeVar("R")

BARE = r"compile|fill_holes|for_upload|invert|momentum|no_background|overwrite|rescale|resume|"
SWITCH = re.compile(BARE + "tensorboard|with_labels")
"""Flags without a value; ``--no-`` before one of them is False."""
OTHERS = {"author": "authors", "ome_zarr_version": "version", "non_spatial": "rotary=[]"}
"""Flags that are called otherwise than their keyword."""
VALUE = re.compile(r"[0-9.]+(,[0-9.]+)*\b(?<!\.)|cpu\b|pairs\b|float32\b|sparse\b|dense\b")
FLAG = re.compile(r"(?<![\w/-])--([a-z][a-z-]*[a-z])(?: (" + VALUE.pattern + "))?")
COMMANDS = (
    ("same command with --resume", "same call with resume=True"),
    ("repeat its command with --resume", "call it again with resume=True"),
    ("same command", "same call"),
)


def as_keywords(text: str) -> str:
    """A message with keywords in place of flags.

    >>> as_keywords("Choose another --output, or add --overwrite.")
    'Choose another output, or add overwrite=True.'
    >>> as_keywords("As in --voxel-size 0.2,0.2; --no-rescale takes it as it is.")
    'As in voxel_size=(0.2, 0.2); rescale=False takes it as it is.'
    """
    for command, call in COMMANDS:
        text = text.replace(command, call)
    return FLAG.sub(_keyword, text)


def _keyword(match: re.Match[str]) -> str:
    name, value = match[1].replace("-", "_"), match[2]
    if value is not None:
        if "," in value:
            value = f"({', '.join(value.split(','))})"
        elif not value[0].isdigit():
            value = repr(value)
        return f"{OTHERS.get(name, name)}={value}"
    if SWITCH.fullmatch(name):
        return f"{name}=True"
    if name.startswith("no_") and SWITCH.fullmatch(name[3:]):
        return f"{name[3:]}=False"
    return OTHERS.get(name, name)


def in_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function name keywords in what it raises."""

    @functools.wraps(function)
    def speaking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except SpocoError as error:
            error.args = tuple(as_keywords(a) if isinstance(a, str) else a for a in error.args)
            if isinstance(error, InputError):
                error.rule, error.found, error.remedy = error.args
            raise

    return speaking


class InKeywords:
    """A display (`spoco_zoo.report.progress.Display`) whose notes name keywords.

    Parameters
    ----------
    display : Display
    """

    def __init__(self, display: Any) -> None:
        self._display = display

    def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
        """Show how far a phase is."""
        self._display.update(phase, done, total, detail)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._display.note(as_keywords(text))


def path_text(value: Any, name: str, remedy: str = "Save it as a TIFF, and give its path.") -> str:
    """A path as text.

    Raises
    ------
    ConfigError
        If the value is none.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        if isinstance(getattr(value, "output", None), str):
            remedy = "Give its `output`."
        elif not hasattr(value, "shape"):
            remedy = "Give the path as text or as pathlib.Path."
        raise ConfigError(f"{name} must be a path", described(value), remedy)
    return os.fspath(value)


def meant(model: Any, asked: str) -> str:
    """What to advise who asks for a setting that there is not.

    Parameters
    ----------
    model : type of spoco_zoo.settings.Config
        The settings.
    asked : str
        Name, after those of settings that hold it: ``clustering.bandwith``.
    """
    outer, _, rest = asked.partition(".")
    held = {name: _settings_in(field.annotation) for name, field in model.model_fields.items()}
    if rest and held.get(outer):
        return meant(held[outer], rest)
    if path := find_setting(model, asked):
        return f"Give it as an entry of {path[0]}: {path[0]}={{'{asked}': ...}}."
    if near := difflib.get_close_matches(asked, held, n=1):
        return f"Is {near[0]} meant?"
    below = {name for inner in held.values() if inner is not None for name in inner.model_fields}
    if near := difflib.get_close_matches(asked, sorted(below), n=1):
        part = find_setting(model, near[0])[0]
        return f"Is {near[0]} meant, as an entry of {part}: {part}={{'{near[0]}': ...}}?"
    return f"There are {', '.join(held)}; see docs/configuration.md."


def find_setting(model: Any, name: str) -> tuple[str, ...]:
    """Where a setting is: its name, after that of the setting that holds it; empty if nowhere."""
    fields = model.model_fields
    if name in fields:
        return (name,)
    for part, field in fields.items():
        if name in getattr(_settings_in(field.annotation), "model_fields", {}):
            return part, name
    return ()


def _settings_in(annotation: Any) -> Any:
    """The kind of settings that a setting holds, if it does."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
