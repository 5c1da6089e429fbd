"""Tables for other programs: CSV and Parquet."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["FORMULA", "check_table_path", "write_table"]

SUFFIXES = (".csv", ".parquet")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes the rest of a cell for a formula after."""


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet, under a temporary name until complete.

    Raises
    ------
    ConfigError
        If the name ends otherwise, or Parquet cannot be written here.
    StoreError
        If the place cannot be written.
    """
    check_table_path(path)
    try:
        with replacing(path) as partial:
            if path.suffix.lower() == ".csv":
                table.to_csv(partial, index=False)
            else:
                table.to_parquet(partial, index=False)
    except OSError as error:
        raise StoreError(
            "the table must go to a folder that can be written", str(error), "Choose another --out."
        ) from error


def check_table_path(path: Path) -> None:
    """Refuse a table that could not be written, before anything is measured."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(
            "a table must be named .csv or .parquet", str(path), "Choose another --out."
        )
    if suffix == ".parquet" and not _has_pyarrow():
        raise ConfigError(
            "Parquet needs the package pyarrow",
            "an installation without it",
            "Install it with `pip install 'spoco-zoo[parquet]'`, or write .csv.",
        )


def _has_pyarrow() -> bool:
    try:
        return importlib.util.find_spec("pyarrow") is not None
    except ValueError:  # it was switched off for this process
        return False
