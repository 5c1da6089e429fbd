"""What a search over settings has tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.report.figures import new_figure, save_figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["SEARCHED", "draw_trials", "sections"]

SEARCHED = ("foreground", "bandwidth", "smoothness", "min_size", "min_samples", "iou")
"""Parameters of the clustering that a search tries."""


def draw_trials(
    methods: Mapping[str, tuple[float, float]],
    parameters: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
) -> None:
    """Draw the best scores of each method, and beside them the winner's parameters one by one.

    Parameters
    ----------
    methods : mapping of str to (float, float)
        AP at 0.5 and 0.75 of each method's best settings.
    parameters : mapping of str to pairs
        Per parameter (value, score), all others at the winner's.
    path : Path
        PNG to write.
    """
    figure = new_figure(4.2 + 2.8 * len(parameters), 3.4)
    widths = [1.5, *[1.0] * len(parameters)]
    bars, *rest = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    place = np.arange(len(methods))
    for shift, name in enumerate(("AP@0.5", "AP@0.75")):
        values = [scores[shift] for scores in methods.values()]
        drawn = bars.bar(place + 0.4 * shift - 0.2, values, 0.38, label=name)
        bars.bar_label(drawn, fmt="%.2f", fontsize=7)
    bars.set_xticks(place, list(methods), fontsize=8)
    bars.set(ylim=(0, 1.12), ylabel="best settings")
    bars.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    for axes, (name, points) in zip(rest, parameters.items(), strict=True):
        axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3)
        axes.set_xlabel(name)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.25)
    if rest:
        rest[0].set_ylabel("mean of AP@0.5, 0.75, 0.9")
    for axes in (bars, *rest):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def sections(
    best: Mapping[str, Any], tried: Iterable[tuple[Mapping[str, Any], float]]
) -> dict[str, list[tuple[float, float]]]:
    """Per parameter, (value, score) of all trials that differ from the best in it alone."""
    found: dict[str, list[tuple[float, float]]] = {}
    for values, merit in tried:
        changed = [name for name in values if values[name] != best[name]]
        names = changed if len(changed) == 1 else list(SEARCHED) if not changed else []
        for name in names:
            found.setdefault(name, []).append((values[name], merit))
    return {name: sorted(found[name]) for name in SEARCHED if len(found.get(name, ())) > 1}
