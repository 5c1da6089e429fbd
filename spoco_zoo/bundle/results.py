"""A folder for what was found out about a model: not the model's own."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from spoco_zoo import run_folder
from spoco_zoo.bundle.layout import DESCRIPTION
from spoco_zoo.errors import ConfigError, StoreError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["INSIDE", "check_folder", "made_folder"]

INSIDE = "--out must lie in a folder that can be written"
"""Rule for the folder of what is to be made."""


def check_folder(folder: Path, *inputs: Path) -> None:
    """Refuse a folder among whose own files the page and the settings would come.

    Raises
    ------
    ConfigError
        If it is a run, a bundle, or one of the inputs.
    """
    if folder.resolve() in [path.resolve() for path in inputs]:
        raise ConfigError("--out must be a folder of its own", f"{folder}", "Name another.")
    for name in (run_folder.CONFIG, run_folder.RECIPE, DESCRIPTION):
        if (folder / name).exists():
            raise ConfigError(
                "--out must be a folder of its own, neither a run nor a bundle",
                f"{name} in {folder}",
                "Name another folder; without --out it is RUN/tuning.",
            )


@contextmanager
def made_folder(
    folder: Path, rule: str = "--out must be a folder that can be written"
) -> Iterator[None]:
    """Make the folder of the results before the work whose results it shall hold.

    If the work fails or is interrupted before it has any, what was made is gone.

    Raises
    ------
    StoreError
        If it is a file, or cannot be written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(rule, one_line(error), "Name another.") from error
    try:
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):  # it holds something
                place.rmdir()
        raise
