"""Every clustering method against the libraries it replaces, on a model's real embeddings.

    python -m benchmarks.clustering RUN IMAGES LABELS [--images N] [--side S] [--modes-side B]

RUN is a finished training run; IMAGES and LABELS are folders paired by name or two
files. Of a run that lists test images only those are used. Prints one line of JSON.

Three settings of the libraries are timed, each with the parameters of our method:
on the foreground voxels that our method sees (`exact`, followed by the same
splitting into connected parts); on all voxels, of which those in the foreground
keep their labels (`everywhere`); and mean-shift alone on all voxels of a corner of every
image, bandwidth delta_var, no background known (`modes`): there the index compares the
clusters themselves, and AP what the same splitting and dropping make of both within the
foreground. Seconds are CPU seconds of one thread, which other work on the machine disturbs
less than wall time; memory is the rise of the process's peak (Linux).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn

from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import ClusteringConfig, TrainConfig
from spoco_zoo.metrics import mean, score
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.segment.cluster import cluster, drop_or_absorb, split_parts
from spoco_zoo.segment.cluster.meanshift import clusters, mark_foreground
from spoco_zoo.segment.cluster.tensor_field import TensorField
from spoco_zoo.segment.workers.memory import return_freed_memory
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files
from spoco_zoo.train.validate import Case, embed_cases

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spoco_zoo.nets.model import Model

T = TypeVar("T")
METHODS = ("instance", "meanshift", "hdbscan", "consistency")


def reference(name: str, config: ClusteringConfig, rows: NDArray[Any]) -> NDArray[Any]:
    """A library's clustering of rows (n, E); labels from 0, noise -1."""
    if name == "sklearn":
        from sklearn.cluster import MeanShift

        return np.asarray(MeanShift(bandwidth=config.bandwidth, bin_seeding=True).fit_predict(rows))
    settings = {
        "min_cluster_size": max(2, config.min_size),
        "min_samples": config.min_samples,
        "cluster_selection_epsilon": config.bandwidth,
    }
    if name == "hdbscan":
        import hdbscan

        return np.asarray(hdbscan.HDBSCAN(**settings, core_dist_n_jobs=1).fit_predict(rows))
    import fast_hdbscan

    return np.asarray(fast_hdbscan.HDBSCAN(**settings).fit_predict(rows))


def by_library(
    name: str,
    case: Case,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
    *,
    everywhere: bool = False,
) -> NDArray[np.int32]:
    """Labels from a library's clusters of the same foreground voxels.

    With `everywhere` it is given all voxels, and those in the foreground keep their labels.
    """
    field = TensorField(case.embeddings)
    inside = mark_foreground(field, config, background)
    clustered = inside.copy()
    where = np.arange(inside.size) if everywhere else np.flatnonzero(inside)
    if len(where) > config.min_size:
        clustered.reshape(-1)[where] = reference(name, config, field.rows(where)) + 1
    return as_objects(field, clustered, inside, config, background)


def as_objects(
    field: TensorField,
    clustered: NDArray[Any],
    inside: NDArray[np.int32],
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
) -> NDArray[np.int32]:
    """What the splitting and dropping of our methods makes of clusters within the foreground."""
    labels = np.where(inside > 0, clustered, 0).astype(np.int32)
    split_parts(labels)
    drop_or_absorb(field, labels, config.min_size, background is not None)
    return labels


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Result and CPU seconds."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes by which resident memory rises at its peak, labels included."""
    return_freed_memory()  # what was freed before would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    work()
    return max(0, resident("VmHWM") - before)


def read_cases(model: Model, options: argparse.Namespace) -> tuple[list[Case], list[float]]:
    """Embeddings of the test images, cut to `side`, and the CPU seconds of each forward."""
    recipe, network, momentum = model.recipe, model.network, model.momentum
    assert isinstance(network, nn.Module)
    assert momentum is None or isinstance(momentum, nn.Module)
    split_file = options.run / "split.json"
    names = json.loads(split_file.read_text()).get("test", []) if split_file.is_file() else []
    pairs = pair_files(options.images_folder, options.labels_folder)
    pairs = [pair for pair in pairs if not names or pair.name in names]
    config = TrainConfig(ndim=recipe.net.ndim)
    cases, seconds = [], []
    factor = pooling_factor(recipe.net)
    for pair in pairs[: options.images]:
        (sample,) = load_samples([pair], config)
        cut = tuple(slice(0, options.side) for _ in sample.labels.shape)
        sample = replace(sample, image=sample.image[(slice(None), *cut)], labels=sample.labels[cut])
        (_, forward) = timed(partial(embed_cases, network, [sample], factor))
        seconds.append(forward)
        cases += embed_cases(network, [sample], factor, momentum=momentum)
    return [
        replace(c, embeddings=c.embeddings.clone(), labels=np.maximum(c.labels, 0)) for c in cases
    ], seconds


def corner(case: Case, side: int) -> Case:
    """The first voxels of a case, `side` along each axis."""
    where = (slice(0, side),) * case.labels.ndim
    embeddings = case.embeddings[(slice(None), *where)].clone()
    second = None if case.momentum is None else case.momentum[(slice(None), *where)].clone()
    return replace(case, embeddings=embeddings, momentum=second, labels=case.labels[where])


def summary(cases: list[Case], runs: list[tuple[NDArray[Any], float]]) -> dict[str, float]:
    """CPU seconds in all, nanoseconds a voxel, mean AP."""
    scores = mean(score(labels, case.labels) for (labels, _), case in zip(runs, cases, strict=True))
    seconds = sum(seconds for _, seconds in runs)
    voxels = sum(case.labels.size for case in cases)
    return {
        "seconds": round(seconds, 3),
        "ns_per_voxel": round(seconds / voxels * 1e9, 1),
        "ap50": round(scores.ap50, 4),
        "ap75": round(scores.ap75, 4),
    }


def compare(
    cases: list[Case],
    ours: list[tuple[NDArray[Any], float]],
    library: str,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
    *,
    everywhere: bool = False,
) -> dict[str, float]:
    """A library on the same voxels: its time, AP, and how far our labels agree with its."""
    run = partial(by_library, library, everywhere=everywhere)
    theirs = [timed(partial(run, case, config, background)) for case in cases]
    pairs = [(a.ravel(), b.ravel()) for (a, _), (b, _) in zip(ours, theirs, strict=True)]
    agree = [adjusted_rand_score(b, a) for a, b in pairs]
    inside = [adjusted_rand_score(b[(a > 0) | (b > 0)], a[(a > 0) | (b > 0)]) for a, b in pairs]
    result = summary(cases, theirs)
    return {
        **result,
        "times_slower": round(result["seconds"] / sum(s for _, s in ours), 1),
        "ari": round(float(np.mean(agree)), 4),
        "ari_foreground": round(float(np.mean(inside)), 4),
        "peak_mb": round(peak_memory(partial(run, cases[0], config, background)) / 1e6),
    }


def compare_modes(
    cases: list[Case], config: ClusteringConfig, background: tuple[float, ...] | None
) -> dict[str, float]:
    """Our mean-shift and scikit-learn's on all voxels, before anything is done to the clusters."""
    ours = [timed(partial(clusters, TensorField(case.embeddings), config, None)) for case in cases]
    rows = [TensorField(case.embeddings).rows(np.arange(case.labels.size)) for case in cases]
    found = [timed(partial(reference, "sklearn", config, each)) for each in rows]
    theirs = [(labels + 1, seconds) for labels, seconds in found]
    agree = [
        adjusted_rand_score(b.ravel(), a.ravel())
        for (a, _), (b, _) in zip(ours, theirs, strict=True)
    ]

    def finished(case: Case, raw: NDArray[Any]) -> NDArray[np.int32]:
        field = TensorField(case.embeddings)
        inside = mark_foreground(field, config, background)
        return as_objects(field, raw.reshape(inside.shape), inside, config, background)

    mine, other = (
        summary(cases, [(finished(case, a), s) for case, (a, s) in zip(cases, runs, strict=True)])
        for runs in (ours, theirs)
    )
    return {
        **{f"our_{name}": value for name, value in mine.items()},
        **other,
        "times_slower": round(sum(s for _, s in theirs) / sum(s for _, s in ours), 1),
        "ari": round(float(np.mean(agree)), 4),
        "ari_least": round(float(np.min(agree)), 4),
    }


def draw(found: dict[str, NDArray[Any]], case: Case, path: Path) -> None:
    """Truth and the labels of every method side by side, voxels that differ in red."""
    from spoco_zoo.report.colours import label_rgb
    from spoco_zoo.report.figures import new_figure, save_figure

    middle = case.labels.shape[0] // 2 if case.labels.ndim == 3 else slice(None)
    truth = case.labels[middle]
    figure = new_figure(2.6 * (len(found) + 1), 5.6)
    above, below = figure.subplots(2, len(found) + 1)
    base = next(iter(found.values()))
    for column, (name, labels) in enumerate({"truth": case.labels, **found}.items()):
        above[column].imshow(label_rgb(labels[middle]), interpolation="nearest")
        above[column].set_title(name, fontsize=10)
        if column:
            # Objects that no object of the truth overlaps by more than half.
            wrong = np.isin(labels, unmatched(labels, case.labels))[middle]
            rgb = label_rgb(truth) // 3
            rgb[wrong] = (230, 60, 60)
            below[column].imshow(rgb, interpolation="nearest")
            below[column].set_title(f"AP@0.5 {score(labels, case.labels).ap50:.2f}", fontsize=9)
    missed = np.isin(case.labels, unmatched(case.labels, base))[middle]
    rgb = label_rgb(truth) // 3
    rgb[missed] = (240, 200, 60)
    below[0].imshow(rgb, interpolation="nearest")
    below[0].set_title(f"missed by {next(iter(found))}", fontsize=9)
    for axes in (*above, *below):
        axes.set_axis_off()
    save_figure(figure, path)


def unmatched(labels: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Labels > 0 whose IoU with every label of the other image is 0.5 or less."""
    pairs, common = np.unique(np.stack([labels.ravel(), other.ravel()]), axis=1, return_counts=True)
    size_a, size_b = np.bincount(labels.ravel()), np.bincount(other.ravel())
    iou = common / (size_a[pairs[0]] + size_b[pairs[1]] - common)
    matched = pairs[0][(iou > 0.5) & (pairs > 0).all(0)]
    return np.setdiff1d(np.unique(labels[labels > 0]), matched)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("images_folder", type=Path)
    parser.add_argument("labels_folder", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--modes-side", type=int, default=128, help="0 leaves them out")
    parser.add_argument("--everywhere", action="store_true", help="libraries on all voxels, too")
    parser.add_argument("--no-libraries", action="store_true")
    parser.add_argument("--bandwidth", type=float, help="instead of the model's own")
    parser.add_argument("--picture", type=Path, help="PNG of where the methods differ")
    parser.add_argument("--show", type=int, default=0, help="number of the image in the picture")
    parser.add_argument("--tuned", type=Path, help="tuning.json: each method's own settings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.run)
    recipe = model.recipe
    cases, forward = read_cases(model, options)
    libraries = {"meanshift": ["sklearn"], "hdbscan": ["hdbscan"]}
    if importlib.util.find_spec("fast_hdbscan"):
        libraries["hdbscan"].append("fast_hdbscan")
        reference("fast_hdbscan", recipe.clustering, np.random.default_rng(0).random((300, 3)))
    voxels = sum(case.labels.size for case in cases)
    result: dict[str, Any] = {
        "benchmark": "clustering",
        "ndim": recipe.net.ndim,
        "images": len(cases),
        "voxels": voxels,
        "forward_seconds": round(sum(forward), 3),
        "forward_ns_per_voxel": round(sum(forward) / voxels * 1e9, 1),
    }
    tuned = json.loads(options.tuned.read_text())["methods"] if options.tuned else {}
    found: dict[str, NDArray[Any]] = {}
    for method in METHODS:
        if method == "consistency" and model.momentum is None:
            continue
        changes = {"method": method}
        if options.bandwidth:
            changes["bandwidth"] = options.bandwidth
        config = recipe.clustering.model_copy(update=changes)
        if options.tuned:
            config = ClusteringConfig.checked(tuned[method]["settings"])

        def run(
            case: Case,
            config: ClusteringConfig = config,
            background: tuple[float, ...] | None = recipe.background,
        ) -> NDArray[np.int32]:
            return cluster(case.embeddings, config, background, momentum=case.momentum)

        run(corner(cases[0], 64))  # imports and first allocations
        ours = [timed(partial(run, case)) for case in cases]
        found[method] = ours[options.show][0]
        entry: dict[str, Any] = summary(cases, ours)
        entry["share_of_forward"] = round(entry["seconds"] / sum(forward), 4)
        entry["peak_mb"] = round(peak_memory(partial(run, cases[0])) / 1e6)
        for library in () if options.no_libraries else libraries.get(method, ()):
            entry[f"{library}_exact"] = compare(cases, ours, library, config, recipe.background)
            if options.everywhere:
                entry[f"{library}_everywhere"] = compare(
                    cases, ours, library, config, recipe.background, everywhere=True
                )
        if method == "meanshift" and options.modes_side:
            alone = config.model_copy(update={"bandwidth": options.bandwidth or recipe.delta_var})
            corners = [corner(case, options.modes_side) for case in cases]
            entry["sklearn_modes"] = compare_modes(corners, alone, recipe.background)
        result[method] = entry
    if options.picture:
        draw(found, cases[options.show], options.picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
