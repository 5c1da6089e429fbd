"""Models that are there by name: those in the package, and a folder that the user may add.

What is listed is read from the bundles' descriptions alone: no weight is read and
torch is not imported.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo import run_folder
from spoco_zoo.bundle.archive import open_bundle
from spoco_zoo.bundle.layout import CONFIG_EXTRA, is_description
from spoco_zoo.bundle.rdf import read_description
from spoco_zoo.config import ModelRecipe
from spoco_zoo.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

__all__ = [
    "MODELS_VARIABLE",
    "ModelSummary",
    "describe_model",
    "describe_shipped",
    "find_shipped",
    "is_shipped",
    "misnamed",
    "shipped_models",
]

MODELS_VARIABLE = "SPOCO_ZOO_MODELS"
"""Environment variable that names a folder of further bundles, ``<id>.zip`` each."""
MODEL_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class ModelSummary:
    """What a person wants to know before using a model.

    Attributes
    ----------
    id, name, description : str
    ndim : int
        Spatial axes.
    channels : tuple of str
    voxel_size : tuple of float or None
        Of the training images ([Z,] Y, X) in micrometres.
    object_size : tuple of float or None
        5 %, 50 % and 95 % quantile of the objects' voxel counts in training.
    annotation : str
        ``dense`` or ``sparse``.
    annotated_fraction : float
    figures : dict of str to dict of str to float
        Scores by set of images, ``test`` or ``validation``; see `spoco_zoo.evaluate`.
    authors : tuple of str
    license : str
    limits : str
    size : int
        Bytes of the bundle.
    """

    id: str
    name: str
    description: str
    ndim: int
    channels: tuple[str, ...]
    voxel_size: tuple[float, ...] | None
    object_size: tuple[float, float, float] | None
    annotation: str
    annotated_fraction: float
    figures: dict[str, dict[str, float]]
    authors: tuple[str, ...]
    license: str
    limits: str
    size: int

    @property
    def judged_on(self) -> str:
        """The set that the figures to quote are from: test images if there were any."""
        return next((name for name in ("test", "validation") if self.figures.get(name)), "")

    def figure(self, name: str) -> float | None:
        """A score on the images that `judged_on` names."""
        return self.figures.get(self.judged_on, {}).get(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``models --json`` prints them."""
        return asdict(self)


def shipped_models() -> tuple[str, ...]:
    """Ids of the models that can be used by name, sorted."""
    return tuple(sorted(_bundles()))


@contextmanager
def find_shipped(name: str) -> Iterator[Path]:
    """The bundle of a model as a file, while the block runs.

    Raises
    ------
    BundleError
        If no model has that id.
    """
    bundles = _bundles()
    if name not in bundles:
        known = ", ".join(sorted(bundles)) or "none"
        raise BundleError(
            "a model must be a bundle, a run folder, or the id of a shipped model",
            f"neither file, folder nor id {name!r:.100}",
            f"Check the path; shipped models: {known}.",
        )
    with importlib.resources.as_file(bundles[name]) as path:
        yield path


def is_shipped(source: str) -> bool:
    """Whether a text is meant as an id: no file, run or bundle of that name lies there.

    A folder without the files of either, as one made for results, does not hide an id.
    """
    path = Path(source)
    if not path.is_dir():
        return not path.exists()
    names = {file.name for file in path.iterdir()}
    own = {run_folder.CONFIG, run_folder.RECIPE, run_folder.MODEL} & names
    return source in _bundles() and not own and not any(map(is_description, names))


def describe_shipped(name: str) -> ModelSummary:
    """Describe a model by its id, whatever lies in the current folder.

    Raises
    ------
    BundleError
        If no model has that id, or its bundle is damaged.
    """
    with find_shipped(name) as path:
        return _describe(name, path)


def describe_model(name: str) -> ModelSummary:
    """Describe a model that can be used by name, or a bundle.

    Raises
    ------
    BundleError
        If no model has that id, or its bundle is damaged.
    """
    if is_shipped(name):
        return describe_shipped(name)
    if (Path(name) / run_folder.CONFIG).is_file():
        raise BundleError(
            "a model that is described must be a bundle, or have an id",
            f"a run at {name}",
            "Its report.html describes it; or export it.",
        )
    return _describe(name, Path(name))


def _describe(name: str, path: Path) -> ModelSummary:
    files = open_bundle(path)
    rdf = (description := read_description(files)).rdf
    parts = [path / part for part in files.names] if path.is_dir() else [path]
    size = sum(part.stat().st_size for part in parts)
    spoco = description.spoco or {}
    try:
        recipe = ModelRecipe.checked({k: v for k, v in spoco.items() if k not in CONFIG_EXTRA})
    except ConfigError as error:
        raise BundleError(
            "a model that is described must carry a recipe of this version",
            f"{error.found} in {name}",
            "Install spoco-zoo again, or export the model again.",
        ) from error  # fmt: skip
    return ModelSummary(
        id=name,
        name=str(rdf.get("name", name)),
        description=" ".join(str(rdf.get("description", "")).split()),
        ndim=recipe.net.ndim,
        channels=recipe.channel_names,
        voxel_size=recipe.voxel_size,
        object_size=recipe.object_size,
        annotation=recipe.annotation,
        annotated_fraction=recipe.annotated_fraction,
        figures=_figures(spoco.get("figures")),
        authors=tuple(str(a.get("name")) for a in _mappings(rdf.get("authors"))),
        license=str(rdf.get("license", "")),
        limits=_limits(rdf),
        size=size,
    )


def misnamed() -> tuple[str, ...]:
    """Zip files in the user's folder of models whose names are no ids, sorted."""
    own = Path(os.environ.get(MODELS_VARIABLE) or os.devnull)
    files = own.iterdir() if own.is_dir() else ()
    names = (file.name for file in files if file.suffix.lower() == ".zip")
    return tuple(sorted(name for name in names if _id_of(name) is None))


def _id_of(file: str) -> str | None:
    """The id that a file's name gives a model, if it gives one."""
    stem, dot, suffix = file.rpartition(".")
    return stem if dot and suffix == "zip" and MODEL_ID.fullmatch(stem) else None


def _bundles() -> dict[str, Traversable]:
    """Bundles by id; one in the package wins over one of the same id elsewhere."""
    folders: list[Traversable] = []
    if own := os.environ.get(MODELS_VARIABLE):
        folders.append(Path(own))
    folders.append(importlib.resources.files("spoco_zoo").joinpath("models"))
    found: dict[str, Traversable] = {}
    for folder in folders:
        if folder.is_dir():
            for file in folder.iterdir():
                if (name := _id_of(file.name)) is not None:
                    found[name] = file
    return found


def _figures(value: Any) -> dict[str, dict[str, float]]:
    """The numbers of each set; a bundle from before there were any has none."""
    if not isinstance(value, dict):
        return {}
    return {
        str(part): {
            str(k): float(v)
            for k, v in scores.items()
            if isinstance(v, int | float) and not isinstance(v, bool)
        }
        for part, scores in value.items()
        if isinstance(scores, dict)
    }


def _limits(rdf: dict[str, Any]) -> str:
    """What the author says about where the model fails."""
    value: Any = rdf.get("config")
    for key in ("bioimageio", "bias_risks_limitations", "limitations"):
        value = value.get(key) if isinstance(value, dict) else None
    return " ".join(value.split()) if isinstance(value, str) else ""


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
