"""Values that a command line can hold as text: shapes, sizes, regions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["at_home", "integers", "named_numbers", "numbers", "region"]


def at_home(value: Any) -> Any:
    """A path with the home folder for ``~``, which shells leave as it is in ``--out=~/run``."""
    if isinstance(value, Path | str) and str(value).startswith("~/"):
        try:
            return type(value)(Path(value).expanduser())
        except RuntimeError:
            raise ConfigError(
                "~ needs a home folder",
                f"none for this user ({value})",
                "Set HOME, or write it out.",
            ) from None
    return value


def integers(text: str | None, what: str) -> tuple[int, ...] | None:
    """``64,256,256`` as numbers."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--{what} must be whole numbers with commas between", repr(text), "As in 64,256,256."
        ) from None


def numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    """``0.3,0.1,0.1`` as numbers."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--{what} must be numbers with commas between", repr(text), "As in 0.3,0.1,0.1."
        ) from None


def named_numbers(texts: Sequence[str] | None, what: str) -> dict[str, float] | None:
    """``["pull=1", "push=0.5"]`` as numbers by name."""
    if not texts:
        return None
    try:
        pairs = [text.split("=") for text in texts]
        return {name: float(value) for name, value in pairs}
    except ValueError:
        raise ConfigError(
            f"--{what} must be NAME=NUMBER", ", ".join(map(repr, texts)), "As in consistency=0.5."
        ) from None


def region(text: str | None) -> tuple[tuple[int, int], ...] | None:
    """``0:10,20:30`` as pairs of start and stop."""
    if text is None:
        return None
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple((int(start), int(stop)) for start, stop in pairs)
    except ValueError:
        raise ConfigError(
            "--roi must be START:STOP per axis with commas between",
            repr(text),
            "As in 0:64,100:400,100:400.",
        ) from None
