"""The machine-readable description of a bundle (bioimage.io model 0.5)."""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from bioimageio.spec import ValidationContext
from bioimageio.spec.common import FileDescr
from bioimageio.spec.generic.v0_3 import Author, CiteEntry, Doi, LicenseId, Maintainer
from bioimageio.spec.model import v0_5
from pydantic import ValidationError

from spoco_zoo.bundle import layout
from spoco_zoo.bundle.card import METRIC_NAMES, summary
from spoco_zoo.bundle.formats import OPSET
from spoco_zoo.bundle.options import PAPER
from spoco_zoo.errors import ConfigError
from spoco_zoo.nets.receptive import receptive_radius
from spoco_zoo.nets.registry import architecture_kwargs, label_kwargs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spoco_zoo.bundle.layout import TileGeometry
    from spoco_zoo.bundle.options import ExportOptions
    from spoco_zoo.bundle.run_files import RunContent
    from spoco_zoo.config import ModelRecipe

__all__ = ["check_texts", "describe", "exact_scale", "spoco_config"]

NAME = re.compile(r"[\w+\- ()]{5,128}", re.ASCII)


def spoco_config(recipe: ModelRecipe) -> dict[str, Any]:
    """``config.spoco``: the recipe, and what other programs need to follow it."""
    return {
        **recipe.model_dump(mode="json"),
        "receptive_radius": list(receptive_radius(recipe.net)),
        "cluster_script": {
            "source": layout.CLUSTER_SCRIPT,
            "callable": "cluster",
            "parameters": label_kwargs(recipe),
        },
    }


def check_texts(options: ExportOptions) -> None:
    """Refuse texts that the format does not admit, before any work is done.

    Raises
    ------
    ConfigError
        Naming the option.
    """
    checks: dict[str, Callable[[], object]] = {
        "license": lambda: LicenseId(options.license),
        "author": lambda: [_author(text) for text in options.authors],
        "cite": lambda: [Doi(doi) for _, doi in options.cite],
        "dataset": lambda: options.dataset and _dataset(*options.dataset),
        "model-version": lambda: v0_5.Version(options.version),
        "timestamp": lambda: _timestamp(options.timestamp),
    }
    if not NAME.fullmatch(options.name):
        raise ConfigError(
            "a bundle's name must be 5 to 128 letters, digits and `_+- ()`",
            f"{options.name!r:.140}",
            "Pass another --name.",
        )
    for option, check in checks.items():
        try:
            check()
        except ValidationError as error:
            found = f"{error.errors()[0]['input']!r:.80}"
            rule = f"a bundle's {option} must be one that the bioimage.io format admits"
            raise ConfigError(rule, found, f"Correct --{option}.") from error


def describe(
    folder: Path, content: RunContent, options: ExportOptions, geometry: TileGeometry
) -> v0_5.ModelDescr:
    """Describe the files that lie in `folder`.

    Raises
    ------
    ConfigError
        If the format refuses a name, licence, author or other option.
    """
    try:
        with ValidationContext(perform_io_checks=False, log_warnings=False):
            return v0_5.ModelDescr(**_fields(folder, content, options, geometry))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"a bundle's {where} must follow the bioimage.io format",
            f"{first['msg']} ({first['input']!r})"[:200],
            "Correct the option.",
        ) from error


def _fields(
    folder: Path, content: RunContent, options: ExportOptions, geometry: TileGeometry
) -> dict[str, Any]:
    attachments = [layout.CLUSTER_SCRIPT, layout.TEST_LABELS, layout.TRAINING_CONFIG]
    if content.momentum is not None:
        attachments.append(layout.MOMENTUM)
    return {
        "name": options.name,
        "description": summary(content, options)[:1024],
        "authors": [_author(text) for text in options.authors],
        "maintainers": [Maintainer(github_user=options.github_user)] if options.github_user else [],
        "cite": [CiteEntry(text=text, doi=Doi(doi)) for text, doi in (PAPER, *options.cite)],
        "license": LicenseId(options.license),
        "tags": _tags(content, options),
        "documentation": _file(folder, layout.README),
        "covers": [_file(folder, layout.COVER)],
        "version": options.version,
        "timestamp": v0_5.Datetime(_timestamp(options.timestamp)),
        "inputs": [_input(folder, content, geometry)],
        "outputs": [
            _embeddings(folder, content, geometry),
            *([_labels(folder, content, geometry)] if options.with_labels else []),
        ],
        "weights": _weights(folder, content, options),
        "attachments": [_file(folder, name) for name in attachments],
        "config": {
            "bioimageio": _card_fields(content, options),
            "spoco": {**spoco_config(content.recipe), "figures": _figures(content)},
        },
    }


def _figures(content: RunContent) -> dict[str, dict[str, float]]:
    """Scores by set of images, for programs that list models."""
    sets = {"validation": content.metrics.validation, "test": content.metrics.test}
    return {
        part: {key: round(float(value), 4) for key, value in scores.items()}
        for part, scores in sets.items()
        if scores
    }


def _file(folder: Path, name: str) -> FileDescr:
    path = folder / name
    return FileDescr(source=path, sha256=_sha256(path))


def _sha256(path: Path) -> Any:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _author(text: str) -> Author:
    name, _, affiliation = (part.strip() for part in text.partition(";"))
    return Author(name=name, affiliation=affiliation or None)


def _dataset(name: str, address: str) -> tuple[v0_5.DatasetId, v0_5.HttpUrl]:
    return v0_5.DatasetId(name), v0_5.HttpUrl(address)


def _timestamp(text: str | None) -> datetime.datetime:
    """A point in time with a zone; UTC where none is given."""
    if text is None:
        return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            "a timestamp must be ISO 8601", repr(text), "Write it as 2025-01-31T12:00:00+00:00."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _tags(content: RunContent, options: ExportOptions) -> list[str]:
    tags = ["spoco", f"{content.recipe.net.ndim}d", "unet", "pytorch", "instance-segmentation"]
    tags += ["pixel-embeddings", "biology"]
    extra = (options.structure, options.modality)
    return tags + [text.lower().replace(" ", "-") for text in extra if text]


def _space(content: RunContent) -> str:
    return "zyx"[-content.recipe.net.ndim :]


def _scales(content: RunContent) -> list[dict[str, Any]]:
    """Voxel size per axis as the format wants it; nothing where it is unknown."""
    size = content.recipe.voxel_size
    if size is None:
        return [{} for _ in _space(content)]
    return [{"scale": exact_scale(v), "unit": "micrometer"} for v in size]


def exact_scale(size: float) -> float:
    """A voxel size of so few digits that ``n * size / size`` is n for any number of voxels.

    The format and its official test rely on that, and 120 * 0.108 / 0.108 is
    119.99999999999999. With the 24 bits of a float32 the product is exact.

    >>> 120 * exact_scale(0.108) / exact_scale(0.108)
    120.0
    """
    return float(np.float32(size))


def _input(folder: Path, content: RunContent, geometry: TileGeometry) -> v0_5.InputTensorDescr:
    space = _space(content)
    names = [_identifier(name) for name in content.recipe.channel_names]
    sizes = zip(geometry.minimum, geometry.step, _scales(content), strict=True)
    return v0_5.InputTensorDescr(
        id=v0_5.TensorId(layout.INPUT_TENSOR),
        description="raw intensities; channels are what the model was trained on",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=names),
            *(
                v0_5.SpaceInputAxis(
                    id=v0_5.AxisId(axis),
                    size=v0_5.ParameterizedSize(min=low, step=step),
                    **scale,
                )
                for axis, (low, step, scale) in zip(space, sizes, strict=True)
            ),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=_file(folder, layout.TEST_INPUT),
        sample_tensor=_file(folder, layout.SAMPLE_INPUT),
        preprocessing=[
            v0_5.ZeroMeanUnitVarianceDescr(
                kwargs=v0_5.ZeroMeanUnitVarianceKwargs(
                    axes=[v0_5.AxisId(a) for a in ("channel", *space)], eps=1e-6
                )
            )
        ],
    )


def _embeddings(
    folder: Path, content: RunContent, geometry: TileGeometry
) -> v0_5.OutputTensorDescr:
    names = [f"emb{i}" for i in range(content.recipe.net.embedding_dim)]
    axes = zip(_space(content), geometry.halo, _scales(content), strict=True)
    return v0_5.OutputTensorDescr(
        id=v0_5.TensorId(layout.OUTPUT_TENSOR),
        description=f"pixel embeddings; {layout.CLUSTER_SCRIPT} makes labels of them",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=names),
            *(_output_axis(axis, halo, scale) for axis, halo, scale in axes),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=_file(folder, layout.TEST_OUTPUT),
    )


def _labels(folder: Path, content: RunContent, geometry: TileGeometry) -> v0_5.OutputTensorDescr:
    """Labels, with the halo of the embeddings, so that both are cropped alike."""
    axes = zip(_space(content), geometry.halo, _scales(content), strict=True)
    return v0_5.OutputTensorDescr(
        id=v0_5.TensorId(layout.LABEL_TENSOR),
        description="objects 1..n, 0 background; of a whole image, never of tiles",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=[v0_5.Identifier("label")]),
            *(_output_axis(axis, halo, scale) for axis, halo, scale in axes),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="int32"),
        test_tensor=_file(folder, layout.TEST_LABEL_OUTPUT),
        sample_tensor=_file(folder, layout.SAMPLE_LABELS),
    )


def _output_axis(axis: str, halo: int, scale: dict[str, Any]) -> Any:
    """An output axis as large as the input's; the format knows no halo of 0."""
    size = v0_5.SizeReference(
        tensor_id=v0_5.TensorId(layout.INPUT_TENSOR), axis_id=v0_5.AxisId(axis)
    )
    if halo == 0:
        return v0_5.SpaceOutputAxis(id=v0_5.AxisId(axis), size=size, **scale)
    return v0_5.SpaceOutputAxisWithHalo(id=v0_5.AxisId(axis), size=size, halo=halo, **scale)


def _identifier(name: str) -> str:
    """A channel name in the letters that the format admits."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).lower()
    return text if text[:1].isalpha() else f"c{text}"


def _weights(folder: Path, content: RunContent, options: ExportOptions) -> v0_5.WeightsDescr:
    version = v0_5.Version(torch.__version__.split("+")[0])
    files = {name: _file(folder, layout.WEIGHT_FILES[name]) for name in options.formats}
    entries: dict[str, Any] = {}
    for name, file in files.items():
        common: dict[str, Any] = {"source": file.source, "sha256": file.sha256}
        if name == "pytorch_state_dict":
            architecture = _file(folder, layout.architecture_file(options.with_labels))
            kwargs = architecture_kwargs(content.recipe.net)
            if options.with_labels:
                kwargs |= label_kwargs(content.recipe)
            entries[name] = v0_5.PytorchStateDictWeightsDescr(
                **common,
                pytorch_version=version,
                architecture=v0_5.ArchitectureFromFileDescr(
                    source=architecture.source,
                    sha256=architecture.sha256,
                    callable=v0_5.Identifier(layout.architecture_callable(options.with_labels)),
                    kwargs=cast(dict[str, Any], kwargs),
                ),
            )
        elif name == "torchscript":
            entries[name] = v0_5.TorchscriptWeightsDescr(
                **common, pytorch_version=version, parent="pytorch_state_dict"
            )
        else:
            entries[name] = v0_5.OnnxWeightsDescr(
                **common, opset_version=OPSET, parent="pytorch_state_dict"
            )
    return v0_5.WeightsDescr(**entries)


def _card_fields(content: RunContent, options: ExportOptions) -> v0_5.BioimageioConfig:
    """The fields that the format's own model card is made from."""
    recipe, config = content.recipe, content.config
    return v0_5.BioimageioConfig(
        architecture_type=f"{recipe.net.ndim}D U-Net",
        architecture_description="U-Net with BatchNorm and a linear head: one embedding per pixel",
        modality=options.modality,
        target_structure=[options.structure] if options.structure else [],
        task="instance segmentation from pixel embeddings",
        out_of_scope_use="Reading the channels of the output as probabilities or classes.",
        bias_risks_limitations=v0_5.BiasRisksLimitations(
            limitations=options.about_limits
            or "Not validated on structures, microscopes or pixel sizes other than in training."
        ),
        model_parameter_count=sum(p.numel() for p in content.network.parameters()),
        training=v0_5.TrainingDetails(
            training_preprocessing="zero mean and unit variance per image; random crops; random "
            "contrast, brightness, gamma, blur and noise",
            training_batch_size=config.batch_size,
            initial_learning_rate=config.learning_rate,
            loss_function="SPOCO objective (pull, push, instance, consistency)",
            loss_function_kwargs=config.loss.model_dump(mode="json"),
            optimizer="torch.optim.AdamW",
            optimizer_kwargs={"weight_decay": config.weight_decay},
        ),
        evaluations=_evaluations(content, options),
    )


def _evaluations(content: RunContent, options: ExportOptions) -> list[v0_5.Evaluation]:
    """Figures in the format's own shape, which asks for an address of the data."""
    if options.dataset is None:
        return []
    dataset_id, source = _dataset(*options.dataset)
    test = content.metrics.test
    figures = test or content.metrics.validation
    known = [key for key in METRIC_NAMES if key in figures]
    return [
        v0_5.Evaluation(
            dataset_id=dataset_id,
            dataset_source=source,
            dataset_role="test" if test else "validation",
            sample_count=int(figures.get("n_images", 1)),
            evaluation_factors=["overall"],
            evaluation_factors_long=["all images"],
            metrics=known,
            metrics_long=[METRIC_NAMES[key] for key in known],
            results=[[round(figures[key], 4)] for key in known],
        )
    ]
