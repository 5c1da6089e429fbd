"""Options of a command in a YAML file: read before it begins, written beside what it made.

`train` and `segment` have settings of their own (`spoco_zoo.config`) and do both themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spoco_zoo.errors import ConfigError
from spoco_zoo.replacing import replacing

__all__ = ["keep_options", "read_options"]

CONSENT = ("overwrite",)
"""Is given anew each time."""


def read_options(file: Path, parameters: Iterable[Any]) -> dict[str, Any]:
    """What a file gives for the parameters of a command, lists as they are typed: 1,2,3."""
    from spoco_zoo.settings_file import read_settings

    known = {str(p.name): p for p in parameters if p.name not in ("options_file", "help")}
    given = read_settings(file)
    if odd := sorted(given.keys() - known):
        raise ConfigError(
            "a config file must hold options of its command",
            f"{odd[0]!r} in {file}",
            f"Known are {', '.join(sorted(known))}.",
        )
    for name, value in given.items():
        if isinstance(value, list) and not getattr(known[name], "multiple", False):
            given[name] = ",".join(map(str, value))
    return given


def keep_options(result: Path, given: dict[str, Any]) -> Path:
    """Write the options that a result was made with, for `--config`: ``RESULT.config.yaml``.

    Parameters
    ----------
    result : Path
        File or folder.
    given : dict
        All options and arguments, those that were left out by their defaults. None is not
        written: it says that there was no such option.

    Returns
    -------
    Path
    """
    import yaml

    kept = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if value is not None and name not in CONSENT
    }
    path = result.with_name(f"{result.name}.config.yaml")
    with replacing(path) as partial:
        partial.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), "utf-8")
    return path
