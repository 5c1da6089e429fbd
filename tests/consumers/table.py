"""Run every consumer on every bundle and print a Markdown table.

``python table.py --environment core=PYTHON --environment torch-em=PYTHON ... BUNDLE.zip ...``

An environment is the Python of a virtual environment in which that consumer is
installed; a consumer may be named several times. See the `consumers` session of
noxfile.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PROBE = Path(__file__).with_name("probe.py")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
NEEDS_TORCHVISION = ("torch-em", "biapy")


def measure(consumer: str, python: str, bundle: Path) -> dict[str, object]:
    """One probe, in its own process; a crash becomes a row that says why."""
    variants: list[dict[str, str]] = [{}]
    if consumer in NEEDS_TORCHVISION:
        variants.append({"TORCHVISION_STAND_IN": "1"})
    row: dict[str, object] = {}
    for variant in variants:
        command = [python, str(PROBE), consumer, str(bundle)]
        # Nothing of this repository may be found by chance.
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**clean, **variant}
        )
        lines = done.stdout.strip().splitlines()
        crash = {"consumer": consumer, "error": " ".join(done.stderr.strip().splitlines()[-1:])}
        row = json.loads(lines[-1]) if done.returncode == 0 and lines else crash
        if "error" not in row:
            break
    return {"bundle": bundle.name, **row}


def markdown(rows: list[dict[str, object]]) -> str:
    """The table, one row per consumer and bundle."""
    lines = [
        "| consumer | bundle | largest difference of the embeddings | labels by the script "
        "| labels of its own | official test | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        note = str(row.get("error", ""))
        if not note and row.get("torchvision") == "stand-in":
            note = "with stand-in operators for torchvision, see below"
        difference = "-"
        if "difference" in row:
            difference = f"{row['difference']:.1e} of {row['largest']:.1f}"
        own = {None: "-", 0: "equal"}.get(row.get("own labels differ"), "different")
        labels = {True: "equal", False: "different"}.get(row.get("labels equal"), "-")
        cells = (
            f"{row['consumer']} {row.get('version', '')}",
            row["bundle"],
            difference,
            labels,
            own,
            row.get("official test") or "-",
            note.replace("|", "/"),
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def placed(page: str, table: str) -> str:
    """The page with this table between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--absent", action="append", default=[], metavar="NAME=REASON")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this file")
    parser.add_argument("--json", type=Path, help="also write the rows as JSON lines")
    parser.add_argument("bundles", nargs="+", type=Path)
    arguments = parser.parse_args()
    pairs = [text.partition("=")[::2] for text in arguments.environment]
    rows: list[dict[str, object]] = []
    for text in arguments.absent:
        name, _, reason = text.partition("=")
        rows.append({"consumer": name, "bundle": "-", "error": reason})
    for consumer, python in pairs:
        for bundle in arguments.bundles:
            rows.append(measure(consumer, python, bundle))
            if arguments.json:
                text = "".join(json.dumps(row) + "\n" for row in rows)
                arguments.json.write_text(text)
    table = markdown(rows)
    print(table)
    if arguments.write:
        arguments.write.write_text(placed(arguments.write.read_text(), table))
    return int(any("error" in row or not row.get("labels equal") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
