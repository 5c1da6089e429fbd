"""``spoco-zoo measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoco_zoo.cli.app import LOOK, VoxelSize, app, check_file, display, exit_codes, show
from spoco_zoo.values import numbers

__all__ = ["measure"]


@app.command(rich_help_panel=LOOK)
@exit_codes
def measure(
    labels: Annotated[str, typer.Argument(help="Label image, or image that holds labels.")],
    image: Annotated[str, typer.Argument(help="Image whose intensities are measured.")],
    out: Annotated[Path, typer.Option(help="TABLE.csv, or TABLE.parquet.")],
    label_name: Annotated[str | None, typer.Option(help="Which label, of several.")] = None,
    voxel_size: VoxelSize = None,
) -> Path:
    """Measure every object: size, centroid, box, and intensities of every channel.

    Example: spoco-zoo measure labels.tif stack.tif --out objects.csv
    """
    from spoco_zoo.measure import measure as measure_objects
    from spoco_zoo.tables import check_table_path, write_table

    check_table_path(out)
    check_file(out, "--out", ".csv", ".parquet")
    with display() as shown:
        table = measure_objects(
            labels,
            image,
            label_name=label_name,
            voxel_size=numbers(voxel_size, "voxel-size"),
            on_note=shown.note,
            on_block=lambda done, total: shown.update("measure", done, total),
        )
    write_table(table, out)
    show({"table": str(out), "objects": len(table), "columns": list(table.columns)})
    return out
