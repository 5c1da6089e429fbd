"""Export: from a run to a bundle that has passed the official test.

The story is told by `export`: read the run, make the example, write the
members, describe them, test the result as a receiver would, move it in place.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from torch import nn

from spoco_zoo.bundle import layout
from spoco_zoo.bundle.card import readme
from spoco_zoo.bundle.cover import write_cover
from spoco_zoo.bundle.description import check_texts, describe
from spoco_zoo.bundle.formats import compare, write_weights
from spoco_zoo.bundle.labels import check_labels
from spoco_zoo.bundle.layout import TileGeometry, WeightFormat, tile_geometry
from spoco_zoo.bundle.official import FormatCheck, official_test, require_supported_pydantic
from spoco_zoo.bundle.options import ExportOptions, check_options
from spoco_zoo.bundle.package import write_folder, write_zip
from spoco_zoo.bundle.results import INSIDE, made_folder
from spoco_zoo.bundle.run_files import RunContent, public_settings, read_run
from spoco_zoo.bundle.sample import (
    Example,
    crops,
    embed,
    on_grid,
    run_cluster_script,
    steady,
    zscore,
)
from spoco_zoo.bundle.upload import write_checklist
from spoco_zoo.errors import BundleError, ConfigError, ExportError
from spoco_zoo.nets.registry import build_network_with_labels, label_kwargs
from spoco_zoo.workplace import FORMER, put_in_place, workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ExportOptions", "ExportResult", "cluster_script", "export"]

CLUSTER_SOURCES = ("portable.py", "regions.py", "scores.py")


@dataclass(frozen=True)
class ExportResult:
    """A bundle that has passed.

    Attributes
    ----------
    path : Path
        The zip file or folder.
    formats : tuple of FormatCheck
        The official test's findings.
    differences : dict of str to float
        Largest difference of each weight file from the network in memory.
    objects : int
        Objects that the travelling script finds in the example.
    unchecked : tuple of str
        What was taken as given, since nothing was looked up.
    checklist : Path or None
        What a person must still do before an upload, if that was asked for.
    """

    path: Path
    formats: tuple[FormatCheck, ...]
    differences: dict[WeightFormat, float]
    objects: int
    unchecked: tuple[str, ...]
    checklist: Path | None = None


def export(run: Path, out: Path, options: ExportOptions) -> ExportResult:
    """Write a bundle of a finished run and prove that it works.

    Parameters
    ----------
    run : Path
        Folder with ``model.json``, ``model.pt``, ``metrics.json``,
        ``config.yaml`` and ``sample.npz``.
    out : Path
        The bundle: a zip file if it ends in ``.zip``, otherwise a folder. It
        appears only when every check has passed.
    options : ExportOptions

    Raises
    ------
    LedgerError
        If another process is making `out`.
    BundleError
        If the run is incomplete, or `out` is taken, with `overwrite` by anything
        but a bundle or an empty folder.
    ConfigError
        If an option breaks the format.
    ExportError
        If a weight file differs from the network, or the official test does
        not answer ``passed`` for every format.
    """
    check_options(options)
    check_texts(options)
    require_supported_pydantic()
    _check_destination(out, options)
    content = chosen_content(read_run(run), options)
    geometry = tile_geometry(content.recipe)
    network = shipped_network(content, options)
    with made_folder(out.parent, INSIDE), workplace(out) as work:
        members, package = work / "members", work / "bundle"
        members.mkdir()
        example = write_example(members, content, network, geometry)
        differences = write_networks(members, content, network, options, geometry, example)
        write_texts(members, run, content, options, geometry)
        description = describe(members, content, options, geometry)
        write_folder(description, package, options)
        finished = write_zip(package, work / out.name) if is_zip(out) else package
        result = official_test(finished, options.formats, known_users=options.taken_as_given)
        if not result.passed:
            raise ExportError(f"the official test says '{result.status}': {result.error}")
        put_in_place(finished, out, work / FORMER)
    objects = int(example.labels.max(initial=0))
    checklist = write_checklist(out) if options.for_upload else None
    return ExportResult(out, result.formats, differences, objects, _unchecked(options), checklist)


def chosen_content(content: RunContent, options: ExportOptions) -> RunContent:
    """The run without the momentum network, if it shall not travel, and without scores for labels.

    Labels inside of the network are made by bandwidth and smallest size.

    Raises
    ------
    ConfigError
        If the run's clustering needs that network.
    """
    if options.with_labels and content.recipe.clustering.scoring is not None:
        clustering = content.recipe.clustering.model_copy(update={"scoring": None})
        recipe = content.recipe.model_copy(update={"clustering": clustering})
        content = dataclasses.replace(content, recipe=recipe, scores_left_out=True)
    if options.momentum:
        return content
    if content.recipe.clustering.method == "consistency":
        raise ConfigError(
            "consistency clustering needs the momentum network",
            "--no-momentum",
            "Leave it out, or tune the run for another method.",
        )
    return dataclasses.replace(content, momentum=None)


def shipped_network(content: RunContent, options: ExportOptions) -> nn.Module:
    """The run's network, with the head that makes labels if asked for; weights are shared."""
    if not options.with_labels:
        return content.network
    network = build_network_with_labels(content.recipe)
    network.load_state_dict(content.network.state_dict())
    return network.eval()


def write_example(
    folder: Path, content: RunContent, network: nn.Module, geometry: TileGeometry
) -> Example:
    """Write the clustering script, the test and sample tensors, and the cover.

    Raises
    ------
    ExportError
        If the network returns labels, and others than the script, or none.
    """
    script = cluster_script()
    (folder / layout.CLUSTER_SCRIPT).write_bytes(script)
    example, inside = choose_example(content, network, geometry, script)
    labels = example.labels
    np.save(folder / layout.TEST_INPUT, example.image)
    np.save(folder / layout.TEST_OUTPUT, example.embeddings)
    np.save(folder / layout.TEST_LABELS, example.labels)
    if inside and not labels.any():
        raise ExportError(
            "the model finds no object in the example image, and the official test wants labels "
            "that are not all 0: train longer, tune, or leave --with-labels out."
        )
    for found in inside:
        check_labels(found[0, 0], labels, "the network")
        np.save(folder / layout.TEST_LABEL_OUTPUT, found)
        _write_tiff(folder / layout.SAMPLE_LABELS, found[0])
    _write_tiff(folder / layout.SAMPLE_INPUT, example.image[0])
    write_cover(folder / layout.COVER, example)
    return example


def choose_example(
    content: RunContent, network: nn.Module, geometry: TileGeometry, script: bytes
) -> tuple[Example, list[np.ndarray]]:
    """The crop with most objects, and what a network with labels makes of it.

    Of such a network the first crop whose labels rounding does not change, if there is one: where
    an object lies at a threshold, formats that are equally right differ.
    """
    parameters = label_kwargs(content.recipe)
    made = []
    for crop in crops(content.sample, geometry):
        image = crop.image[None]
        embeddings, *inside = embed(network, image)
        if not inside:  # labels inside are those of embeddings as they are
            embeddings = on_grid(embeddings)
        labels = run_cluster_script(script, embeddings[0], parameters)
        made.append((Example(image, embeddings, labels), inside))
        if not inside or (labels.any() and steady(script, embeddings[0], parameters, labels)):
            return made[-1]
    return made[0]


def write_networks(
    folder: Path,
    content: RunContent,
    network: nn.Module,
    options: ExportOptions,
    geometry: TileGeometry,
    example: Example,
) -> dict[WeightFormat, float]:
    """Write architecture and weights; return how far each weight file is from the network."""
    source = architecture_source(with_labels=options.with_labels)
    (folder / layout.architecture_file(options.with_labels)).write_bytes(source)
    files = write_weights(network, folder, options.formats, geometry)
    if content.momentum is not None:
        torch.save(content.momentum.state_dict(), folder / layout.MOMENTUM)
    return compare(network, files, zscore(example.image), geometry)


def write_texts(
    folder: Path, run: Path, content: RunContent, options: ExportOptions, geometry: TileGeometry
) -> None:
    """Write the README and the settings of the training."""
    (folder / layout.README).write_text(readme(content, options, geometry), encoding="utf-8")
    (folder / layout.TRAINING_CONFIG).write_text(public_settings(content.config), encoding="utf-8")


def architecture_source(*, with_labels: bool = False) -> bytes:
    """The network's source file, which travels byte by byte; the head's after it, if asked for."""
    source = _package_file("nets", "unet.py")
    if not with_labels:
        return source
    head = _package_file("nets", "instances.py")
    return source + b"\n\n" + head.replace(b"from spoco_zoo.nets.unet import SpocoUNet\n", b"")


def cluster_script() -> bytes:
    """The clustering's source files as one, without what they import from each other."""
    first, *rest = (_package_file("segment", "cluster", name) for name in CLUSTER_SOURCES)
    parts = [first, *(re.sub(rb"(?m)^from __future__ .*\n", b"", part) for part in rest)]
    imports = rb"(?m)^from spoco_zoo\.\S+ import (?:\([^)]*\)|.*)\n+"
    names = rb"(?m)^__all__ = \[[^\]]*\]\n+"
    return b"\n\n".join(
        [re.sub(imports, b"", parts[0]), *(re.sub(names, b"", part) for part in parts[1:])]
    )


def _package_file(*parts: str) -> bytes:
    """Content of a source file, found without importing the packages that it lies in."""
    return importlib.resources.files("spoco_zoo").joinpath(*parts).read_bytes()


def _write_tiff(path: Path, array: np.ndarray) -> None:
    """Write (C, [Z,] Y, X) so that readers take the first axis for channels.

    Without named axes they would find a volume's channels one after the other along z.
    """
    import tifffile

    axes = {"axes": "CZYX" if array.ndim == 4 else "CYX"}
    tifffile.imwrite(path, array, photometric="minisblack", metadata=axes, software="spoco-zoo")


def _check_destination(out: Path, options: ExportOptions) -> None:
    if options.for_upload and is_zip(out):
        raise ConfigError(
            "a bundle for upload must be a folder", str(out), "Choose a name without .zip."
        )
    if os.path.lexists(out) and not (out.exists() and options.overwrite):
        found, remedy = "exists", "replace a bundle with --overwrite"
        if not out.exists():
            found, remedy = "is a link that leads nowhere", "mend it"
        raise BundleError(
            "a bundle must not overwrite anything",
            f"{out} {found}",
            f"Choose another name, or {remedy}.",
        )
    if out.exists() and (found := _hindrance(out)):
        raise BundleError(
            "--overwrite must replace a bundle or an empty folder, nothing else",
            found,
            "Choose another name.",
        )


def is_zip(path: Path) -> bool:
    """Whether a bundle of that name is a zip file rather than a folder."""
    return path.suffix.lower() == ".zip"


def _hindrance(out: Path) -> str:
    """Why a file or folder must not be replaced; empty if it is a bundle or an empty folder."""
    other = f"{out} is another {'folder' if out.is_dir() else 'file'}"
    if not out.is_dir():
        return "" if _holds_description(out) else other
    names = {path.name for path in out.iterdir()}
    if out.is_symlink() or (names and layout.DESCRIPTION not in names):
        return other
    for name in sorted(names - _named_files(out)):
        return f"{name!r} in {out}, which its {layout.DESCRIPTION} does not name"
    return ""


def _holds_description(file: Path) -> bool:
    """Whether it is a zip file with a description at its root."""
    try:
        with zipfile.ZipFile(file) as archive:
            return layout.DESCRIPTION in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _named_files(folder: Path) -> set[str]:
    """The description, and every text in it that could be the name of a file."""
    try:
        rdf = yaml.safe_load((folder / layout.DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        rdf = None
    return {layout.DESCRIPTION, *_texts(rdf)}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _unchecked(options: ExportOptions) -> tuple[str, ...]:
    names = [f"GitHub user {options.github_user}"] if options.github_user else []
    return (*names, *(f"DOI {doi}" for _, doi in options.cite))
