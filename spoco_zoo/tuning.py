"""Choose how a trained model's embeddings become labels, on annotated images.

Every image is embedded once; each method is then searched by
`spoco_zoo.train.validate.tune` on the same embeddings. Of a run the winner is
stored in its recipe, so that `segment` and `export` use it; a bundle is left as
it is, and the settings are written for ``segment --config``.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.annotated import load_annotated, meaning_of_labels, run_at
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.results import check_folder, make_folder
from spoco_zoo.config import ClusteringMethod, SegmentConfig
from spoco_zoo.errors import BundleError, ConfigError
from spoco_zoo.locking import RunLock
from spoco_zoo.nets.device import choose_device
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.report.page import Figure, Section, html_page
from spoco_zoo.report.trials import SEARCHED, draw_trials, sections
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.data import object_sizes
from spoco_zoo.train.layouts import find_pairs
from spoco_zoo.train.validate import embed_cases, score_cases, tune

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.nets.model import Model
    from spoco_zoo.train.data import Sample
    from spoco_zoo.train.validate import Case, Tuning

__all__ = ["MethodResult", "TuneResult", "tune_model"]

SETTINGS_FILE = "segment.yaml"
SHOWN = ("ap50", "ap75", "ap90", "sbd", "arand", "dic")

SHARED = {
    "train": "the network was trained on {n} of these images: what suits them may not suit others",
    "test": "{n} of these images are the run's test images: its test scores mean nothing now",
}


@dataclass(frozen=True)
class MethodResult:
    """The best settings of one method, their scores, and every AP that was tried on the way."""

    method: str
    tuning: Tuning

    @property
    def objective(self) -> float:
        """Mean of AP at 0.5, 0.75 and 0.9."""
        return self.tuning.scores.merit

    def to_dict(self) -> dict[str, Any]:
        """Settings and scores in plain values."""
        return {
            "settings": self.tuning.best.model_dump(mode="json"),
            "scores": {name: asdict(self.tuning.scores)[name] for name in SHOWN},
            "tried": len(self.tuning.tried),
        }


@dataclass(frozen=True)
class TuneResult:
    """Outcome of `tune_model`.

    Attributes
    ----------
    methods : tuple of MethodResult
        Best first; of equals the one that was asked for first.
    before : float
        Mean of AP at 0.5, 0.75 and 0.9 with the settings that the model came with.
    n_images : int
    page, settings : Path
        HTML page; YAML for ``segment --config``.
    stored : bool
        Whether the run's recipe now holds the winner.
    warnings : tuple of str
    """

    methods: tuple[MethodResult, ...]
    before: float
    n_images: int
    page: Path
    settings: Path
    stored: bool
    warnings: tuple[str, ...]

    @property
    def best(self) -> MethodResult:
        """The winner."""
        return self.methods[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values."""
        return {
            "best": self.best.method,
            "objective": self.best.objective,
            "objective_before": self.before,
            "n_images": self.n_images,
            "methods": {result.method: result.to_dict() for result in self.methods},
            "page": str(self.page),
            "settings": str(self.settings),
            "stored": self.stored,
            "warnings": list(self.warnings),
        }


def tune_model(
    source: str,
    images: Path,
    labels: Path,
    *,
    out: Path | None = None,
    methods: Sequence[str] = (),
    store: bool = True,
    annotation: str | None = None,
    background_label: int | None = None,
    label_name: str | None = None,
    voxel_size: tuple[float, ...] | None = None,
    rescale: bool = True,
    device: str = "auto",
    listen: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> TuneResult:
    """Search clustering methods and their parameters on annotated images.

    Parameters
    ----------
    source : str
        Run folder, bundle, or id of a shipped model.
    images, labels : Path
        Folders of files paired by name, or two files. Not images that results
        will be reported on.
    out : Path, optional
        Folder for page, plot and settings; ``RUN/tuning`` for a run, needed for a bundle.
    methods : sequence of str
        Methods to search; by default all that the model can run.
    store : bool
        Write the winner into the recipe of a run. A bundle is never changed.
    annotation : str, optional
        What 0 means in the labels, ``dense`` or ``sparse``; by default what it meant in
        the run's own.
    background_label : int, optional
        Value of known background in sparse labels; by default that of the run.
    label_name : str, optional
        Which labels of OME-Zarr images that hold several; by default those of the run.
    voxel_size : tuple of float, optional
        ([Z,] Y, X) in micrometres, in place of what images state.
    rescale : bool
        Resample images of another voxel size than the model's, as `segment` does.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:I``.
    listen : callable
        Is told (what, done, total).

    Returns
    -------
    TuneResult

    Raises
    ------
    InputError
        If model, data or settings cannot be used, or another process is at work in the run.
    """
    run = run_at(source)
    # Tuned while its training goes on, a run would hold scores and settings of two models.
    alone = RunLock(run) if run is not None and (store or out is None) else nullcontext()
    with alone:
        if run is not None and store and (run / run_folder.METRICS).is_file():
            RunFolder(run).read_json(run_folder.METRICS)  # known to be whole before the work
        model = load_model(source)
        folder = folder_of_results(out, run, images, labels)
        asked = choose_methods(model, methods)
        recipe = model.recipe
        meaning = meaning_of_labels(run, recipe, annotation, background_label, label_name)
        pairs = find_pairs(images, labels, meaning)
        loaded, notes = load_annotated(
            pairs, meaning, recipe, voxel_size=voxel_size, rescale=rescale
        )
        samples = [one.seen for one in loaded if one.sample.annotated]
        shared = shared_names([sample.name for sample in samples], run)
        make_folder(folder)
        needed = (*asked, recipe.clustering.method)  # that of before is judged, too
        cases = embed_all(model.to(choose_device(device)), samples, needed, listen)
        result = TuneResult(
            methods=search(cases, samples, recipe, asked, listen),
            before=score_cases(cases, cluster, recipe.clustering, recipe.background).merit,
            n_images=len(samples),
            page=folder / "report.html",
            settings=folder / SETTINGS_FILE,
            stored=store and run is not None,
            warnings=(*notes, *(SHARED[part].format(n=n) for part, n in shared.items() if n)),
        )
        write_files(result, folder, source)
        if run is not None and store:
            store_winner(run, recipe, result, shared)
        return result


def folder_of_results(out: Path | None, run: Path | None, *inputs: Path) -> Path:
    """Where page and settings go.

    Raises
    ------
    ConfigError
        If nothing says so, or the files would come among those of a run, a bundle or the images.
    """
    folder = out or (run and run / "tuning")
    if folder is None:
        raise ConfigError(
            "tuning a bundle needs --out", "none", "Name a folder for the settings and the page."
        )
    check_folder(folder, *inputs)
    return folder


def search(
    cases: Sequence[Case],
    samples: Sequence[Sample],
    recipe: ModelRecipe,
    methods: Sequence[str],
    listen: Callable[[str, int, int], None],
) -> tuple[MethodResult, ...]:
    """Tune each method on the same embeddings; best first."""
    results = []
    for number, method in enumerate(methods):
        listen("tune", number, len(methods))
        found = tune(
            cases,
            cluster,
            recipe.clustering.model_copy(update={"method": method}),
            recipe.background,
            delta_var=recipe.delta_var,
            delta_dist=recipe.delta_dist,
            object_sizes=recipe.object_size or object_sizes(samples),
        )
        results.append(MethodResult(method, found))
    listen("tune", len(methods), len(methods))
    return tuple(sorted(results, key=lambda result: -result.objective))


def choose_methods(model: Model, asked: Sequence[str]) -> tuple[str, ...]:
    """Methods that can be searched with this model, its own one first.

    Raises
    ------
    ConfigError
        If one that was asked for does not exist, or needs a network that is not there.
    BundleError
        If the model is not of our own architecture, and has no recipe to start from.
    """
    if not isinstance(model.network, nn.Module):
        raise BundleError(
            "tuning needs a model with its own weights and recipe",
            type(model.network).__name__,
            "Export it with the format pytorch_state_dict.",
        )
    known = get_args(ClusteringMethod)
    odd = [method for method in asked if method not in known]
    if odd:
        raise ConfigError(
            f"--methods must be among {', '.join(known)}", repr(odd[0]), "Correct the name."
        )
    if "consistency" in asked and model.momentum is None:
        raise ConfigError(
            "consistency clustering needs the momentum network",
            "a model without one",
            "Leave it out of --methods.",
        )
    own = model.recipe.clustering.method
    possible = [m for m in known if m != "consistency" or model.momentum is not None]
    return tuple(sorted(dict.fromkeys(asked or possible), key=lambda method: method != own))


def shared_names(names: Sequence[str], run: Path | None) -> dict[str, int]:
    """How many of the images the run was trained on, and how many it reports on.

    Raises
    ------
    BundleError
        If the run's list of them is damaged.
    """
    if run is None or not (run / run_folder.SPLIT).is_file():
        return {}
    split = RunFolder(run).read_json(run_folder.SPLIT)
    found = {}
    for part in SHARED:
        known = set(split.get(part) or ())
        # A single image was cut in two, which bear its name with an ending.
        known |= {name.removesuffix(f"-{part}") for name in known}
        found[part] = len(known & set(names))
    return found


def embed_all(
    model: Model,
    samples: Sequence[Sample],
    methods: Sequence[str],
    listen: Callable[[str, int, int], None],
) -> list[Case]:
    """Embeddings of every image, and those of the momentum network if a method needs them."""
    assert isinstance(model.network, nn.Module)
    second = model.momentum if "consistency" in methods else None
    assert second is None or isinstance(second, nn.Module)
    factor = pooling_factor(model.recipe.net)
    cases = []
    for number, sample in enumerate(samples):
        listen("embed", number, len(samples))
        cases += embed_cases(model.network, [sample], factor, momentum=second)
    listen("embed", len(samples), len(samples))
    return cases


def write_files(result: TuneResult, folder: Path, source: str) -> None:
    """Settings for ``segment --config``, the plot, and the page with the table."""
    files = RunFolder(folder)
    best = result.best.tuning
    settings = SegmentConfig(clustering=best.best).model_dump(mode="json", include={"clustering"})
    files.write_text(SETTINGS_FILE, yaml.safe_dump(settings, sort_keys=False))
    files.write_json("tuning.json", result.to_dict())
    rows: list[tuple[str, ...]] = [("method", "tried", *SHOWN, "settings")]
    for one in result.methods:
        values = asdict(one.tuning.scores)
        settings_text = ", ".join(
            f"{name} {getattr(one.tuning.best, name):.4g}" for name in SEARCHED
        )
        rows.append(
            (
                one.method,
                str(len(one.tuning.tried)),
                *(f"{values[name]:.3f}" for name in SHOWN),
                settings_text,
            )
        )
    plot = folder / "tuning.png"
    draw_trials(
        {one.method: (one.tuning.scores.ap50, one.tuning.scores.ap75) for one in result.methods},
        sections(
            best.best.model_dump(),
            ((config.model_dump(), scores.merit) for config, scores in best.tried),
        ),
        plot,
    )
    text = (
        f"Means over {result.n_images} images, sorted by the mean of AP at IoU 0.5, 0.75, 0.9; the "
        f"model's own settings had {result.before:.3f}. These images chose the settings: report "
        "on others.",
        *result.warnings,
    )
    html_page(
        result.page,
        f"Clustering of {source.rstrip('/').rsplit('/', 1)[-1]}",
        [Section("Methods", text, tuple(rows)), Section("Winner", code=best.best.to_yaml())],
        [Figure(plot, "AP of each method's best settings; the winner's parameters one by one.")],
    )


def store_winner(
    run: Path, recipe: ModelRecipe, result: TuneResult, shared: dict[str, int]
) -> None:
    """Put the winner into the run's recipe, and its scores in place of the older ones.

    The figures of test images were taken with the settings of before, or on images that have
    now chosen the settings; they are kept under a name that says so, and no longer travel with
    an export. How many of the images the network was trained on travels with the figures.
    """
    folder = RunFolder(run)
    known = (run / run_folder.METRICS).is_file()
    metrics = folder.read_json(run_folder.METRICS) if known else {}
    changed = result.best.tuning.best != recipe.clustering
    if (changed or shared.get("test")) and "test" in metrics:
        metrics["test_before_tuning"] = metrics.pop("test")
    if changed:
        # A kill in between leaves a run without figures, not with those of other settings.
        metrics.pop("validation", None)
        folder.write_json(run_folder.METRICS, metrics)
        tuned = recipe.model_copy(update={"clustering": result.best.tuning.best})
        folder.write_text(run_folder.RECIPE, tuned.model_dump_json(indent=2) + "\n")
    metrics["validation"] = {
        "n_images": result.n_images,
        **({"n_trained_on": shared["train"]} if shared.get("train") else {}),
        **result.best.tuning.scores.to_dict(),
    }
    folder.write_json(run_folder.METRICS, metrics)
