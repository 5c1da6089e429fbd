"""One HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Figure", "Section", "html_page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --paper: #fdfdfc; --soft: #69707d;
        --line: #dcdfe4; --panel: #f3f4f6; --accent: #0b6e99; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --paper: #16181d; --soft: #9aa1ad; --line: #343943;
          --panel: #1f232a; --accent: #6cc1e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; color: var(--ink);
       background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; padding-bottom: .3rem;
     border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid var(--line);
         overflow-wrap: normal; vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
pre { background: var(--panel); padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto;
      font: .875rem/1.5 ui-monospace, monospace; overflow-wrap: normal; }
table.bars { width: 100%; max-width: 46rem; }
table.bars th { width: 1%; text-align: right; padding: .1rem .8rem; border: 0; font-weight: 400; }
table.bars td { padding: .1rem .4rem; border: 0; vertical-align: middle; }
table.bars td:last-child { width: 1%; text-align: right; white-space: nowrap; }
table.bars i { display: block; height: .85rem; min-width: 1px; background: var(--accent);
               border-radius: .15rem; }
summary { cursor: pointer; } summary h2 { display: inline-block; border: 0; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .4rem;
             background: #fff; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; }
"""


@dataclass(frozen=True)
class Figure:
    """A PNG file and what it shows, in one sentence that also is the alternative text."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a page; what is empty does not appear.

    Attributes
    ----------
    heading : str
    text : tuple of str
        Paragraphs.
    table : tuple of tuple of str
        Rows; the first one holds the column names.
    code : str
        A command or settings, shown as they are.
    figures : tuple of Figure
    bars : tuple of (str, float)
        A bar chart: labels and values, none negative.
    largest : float or None
        The value of a bar of full length; the greatest one if None.
    folded : bool
        Show the heading only, until it is opened.
    """

    heading: str
    text: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    code: str = ""
    figures: tuple[Figure, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()
    largest: float | None = None
    folded: bool = False


def html_page(
    path: Path, title: str, sections: Sequence[Section], figures: Sequence[Figure] = ()
) -> None:
    """Write a self-contained page: pictures inside, no network, light and dark.

    Parameters
    ----------
    path : Path
        File to write.
    title : str
    sections : sequence of Section
        All text is escaped.
    figures : sequence of Figure
        Shown first, under the title.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    body += [_figure(figure) for figure in figures]
    body += [_section(section) for section in sections]
    text = "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )
    with replacing(path) as partial:
        # Names of files may hold bytes that are no UTF-8.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _section(section: Section) -> str:
    parts = []
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    if section.table:
        parts.append(_table(section.table))
    if section.code:
        parts.append(f"<pre><code>{escape(section.code)}</code></pre>")
    if section.bars:
        parts.append(_bars(section.bars, section.largest))
    parts += [_figure(figure) for figure in section.figures]
    inner, heading = "\n".join(parts), f"<h2>{escape(section.heading)}</h2>"
    if section.folded:
        return f"<details>\n<summary>{heading}</summary>\n{inner}\n</details>"
    return f"<section>\n{heading}\n{inner}\n</section>"


def _bars(bars: Sequence[tuple[str, float]], largest: float | None) -> str:
    """A bar chart of text and boxes, which takes the page's colours and width."""
    full = largest or max(value for _, value in bars) or 1.0
    rows = "\n".join(
        f'<tr><th scope="row">{escape(label)}</th><td><i style="width:{100 * value / full:.1f}%">'
        f"</i></td><td>{_number(value)}</td></tr>"
        for label, value in bars
    )
    return f'<table class="bars">\n{rows}\n</table>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and value != 1 else f"{value:,.3g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode("ascii")
    caption = escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
