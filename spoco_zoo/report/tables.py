"""Tables for a terminal, as text."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spoco_zoo.report.progress import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["pairs_text", "table_text"]

NARROWEST, WIDEST = 40, 140


def table_text(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Rows under a head, long cells wrapped.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        Made `printable`, so that a cell cannot command the terminal.
    right, whole : sequence of str
        Columns that are flush right, and columns that are never wrapped.
    width : int, optional
        Characters per line; by default the terminal's.

    Examples
    --------
    >>> print(table_text(["id", "AP"], [["nuclei", "0.9"]], width=40))
     id       AP
    ──────────────
     nuclei   0.9
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=True)
    for name in head:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name in whole)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return _text(table, width)


def pairs_text(pairs: Mapping[str, str], *, width: int | None = None) -> str:
    """Names and their values in two columns, empty values left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in pairs.items():
        if value:
            table.add_row(Text(name), Text(printable(value)))
    return _text(table, width)


def _text(table: Table, width: int | None) -> str:
    wide = width or shutil.get_terminal_size((100, 24)).columns
    out = io.StringIO()
    console = Console(
        file=out, width=min(max(wide, NARROWEST), WIDEST), color_system=None, force_terminal=False
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
