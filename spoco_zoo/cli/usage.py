"""A command line that cannot be read, in one line."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["UsageError", "usage_line"]

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Of unknown options and commands, missing and wrong values: it has no public name of its own."""


def usage_line(error: Any) -> str:
    """What is wrong with a command line, and what to do.

    Parameters
    ----------
    error : UsageError
    """
    context, said = error.ctx, error.format_message().rstrip(".")
    if context is None:
        return f"{said}."
    see = f"See `{context.command_path} --help`."
    unknown = getattr(error, "option_name", "")
    if not unknown or "No such option" not in said:
        return f"{said}{'' if said.endswith('?') else '.'} {see}"
    near = list(error.possibilities or ())  # the most similar one first
    spelt = unknown.lower().replace("_", "-")
    setting = "" if spelt in near else _setting(context.command.name, unknown)
    if setting:
        see = f"Put `{setting}` into a YAML file, and name that with --config."
    elif near:
        see = f"Is {spelt if spelt in near else near[0]} meant? {see}"
    elif context.parent is None:
        see = f"Options of a command go behind its name, as in `spoco-zoo segment -q`. {see}"
    return f"options must be those of `{context.command_path}`; found {unknown}. {see}"


def _setting(command: str, option: str) -> str:
    """How a file sets what has the name of an option and is none; empty if there is no such."""
    from spoco_zoo.config import SegmentConfig, TrainConfig
    from spoco_zoo.wording import find_setting

    kind = {"train": TrainConfig, "segment": SegmentConfig}.get(command)
    path = find_setting(kind, option.lstrip("-").replace("-", "_")) if kind else ()
    if len(path) == 2:
        return f"{path[0]}: {{{path[1]}: VALUE}}"
    return f"{path[0]}: VALUE" if path else ""
