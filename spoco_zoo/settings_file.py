"""Settings in a YAML file: `name: value` pairs, each name once, with hyphens or underscores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from spoco_zoo.errors import ConfigError, one_line

__all__ = ["read_settings"]


class _Loader(yaml.SafeLoader):
    """Refuses a name that is given twice, of which YAML's own loaders take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is there twice, line {node.start_mark.line + 1} and on")
        return super().construct_mapping(node, deep)


def read_settings(file: Path) -> dict[str, Any]:
    """Read the pairs of a file; names with underscores, as the settings have them.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds something else.
    """
    try:
        loaded = yaml.load(Path(file).read_text("utf-8-sig"), _Loader)
    # A date of no calendar, and lists in lists without end.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise ConfigError(
            "a config file must be readable YAML", f"{reason} ({file})", "Mend the file."
        ) from error
    if not isinstance(loaded, dict):
        what = "nothing" if loaded is None else type(loaded).__name__
        raise ConfigError(
            "a config file must hold `name: value` pairs",
            f"{what} in {file}",
            "See docs/configuration.md for an example.",
        )
    return _named(loaded, file)


def _named(loaded: dict[Any, Any], file: Path) -> dict[str, Any]:
    """The pairs, and those of mappings in them, by names with underscores."""
    named = {str(name).replace("-", "_"): value for name, value in loaded.items()}
    if len(named) < len(loaded):
        raise ConfigError(
            "a config file must hold each name once",
            f"some with hyphens and with underscores in {file}",
            "Leave one of them out.",
        )
    return {k: _named(v, file) if isinstance(v, dict) else v for k, v in named.items()}
