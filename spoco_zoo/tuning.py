"""Choose how a trained model's embeddings become labels, on annotated images.

Every image is embedded once; each method is then searched by
`spoco_zoo.train.validate.tune` on the same embeddings. Of a run the winner is
stored in its recipe, so that `segment` and `export` use it; a bundle is left as
it is, and the settings are written for ``segment --config``.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from torch import nn

from spoco_zoo import run_folder
from spoco_zoo.annotated import load_annotated, meaning_of_labels, run_at
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.results import check_folder, made_folder
from spoco_zoo.config import ClusteringMethod
from spoco_zoo.errors import BundleError, ConfigError
from spoco_zoo.locking import RunLock
from spoco_zoo.nets.device import choose_device
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.checkpoint import RunFolder
from spoco_zoo.train.data import object_sizes
from spoco_zoo.train.layouts import find_pairs
from spoco_zoo.train.validate import embed_cases, score_cases, tune
from spoco_zoo.tuning_result import (
    SETTINGS_FILE,
    MethodResult,
    TuneResult,
    store_winner,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spoco_zoo.config import ModelRecipe
    from spoco_zoo.nets.model import Model
    from spoco_zoo.train.data import Sample
    from spoco_zoo.train.validate import Case

__all__ = ["tune_model"]

SHARED = {
    "train": "the network was trained on {n} of these images: what suits them may not suit others",
    "test": "{n} of these images are the run's test images: its test scores mean nothing now",
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
        with made_folder(folder):
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
