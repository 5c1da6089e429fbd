"""The README of a bundle, written from the run's own figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spoco_zoo.bundle.layout import (
    CLUSTER_SCRIPT,
    INPUT_TENSOR,
    TEST_INPUT,
    TEST_LABELS,
    WEIGHT_FILES,
)

if TYPE_CHECKING:
    from spoco_zoo.bundle.layout import TileGeometry
    from spoco_zoo.bundle.options import ExportOptions
    from spoco_zoo.bundle.run_files import RunContent

__all__ = ["METRIC_NAMES", "readme", "summary"]

METRIC_NAMES = {
    "ap50": "Average precision at IoU 0.5, TP / (TP + FP + FN)",
    "ap75": "Average precision at IoU 0.75",
    "ap90": "Average precision at IoU 0.9",
    "sbd": "Symmetric best Dice",
    "precision": "Precision at IoU 0.5",
    "recall": "Recall at IoU 0.5",
    "arand": "Adapted Rand error (0 is best)",
    "voi_split": "Variation of information, splits (bits, 0 is best)",
    "voi_merge": "Variation of information, merges (bits, 0 is best)",
    "dic": "Absolute difference in count, objects per image",
}

RUN_ONNX = f"""```python
import numpy as np
import onnxruntime
import yaml
from {CLUSTER_SCRIPT.removesuffix(".py")} import cluster

image = np.load("{TEST_INPUT}")  # float32 (1, C, [Z,] Y, X), raw intensities
x = (image - image.mean()) / (image.std() + 1e-6)
network = onnxruntime.InferenceSession("{WEIGHT_FILES["onnx"]}")
(embeddings,) = network.run(["embeddings"], {{"{INPUT_TENSOR}": x.astype("float32")}})
with open("rdf.yaml") as file:
    parameters = yaml.safe_load(file)["config"]["spoco"]["cluster_script"]["parameters"]
labels = cluster(embeddings[0], **parameters)
```"""

RUN_TORCHSCRIPT = f"""```python
import numpy as np
import torch

image = np.load("{TEST_INPUT}")  # float32 (1, C, [Z,] Y, X), raw intensities
x = (image - image.mean()) / (image.std() + 1e-6)
network = torch.jit.load("{WEIGHT_FILES["torchscript"]}")
labels = network(torch.from_numpy(x.astype("float32")))[1][0, 0].numpy()
```"""

RUN_CORE = f"""```python
import numpy as np
from bioimageio.core import Sample, Tensor, create_prediction_pipeline, load_description
from {CLUSTER_SCRIPT.removesuffix(".py")} import cluster

model = load_description("rdf.yaml")
dims = ("batch", "channel", DIMS)
image = Tensor.from_numpy(np.load("{TEST_INPUT}"), dims=dims)
sample = Sample(members={{"{INPUT_TENSOR}": image}}, stat={{}}, id=None)
with create_prediction_pipeline(model) as pipeline:
    result = pipeline.predict_sample_without_blocking(
        sample, skip_input_padding=True, skip_output_cropping=True
    )
embeddings = result.members["embeddings"].data.to_numpy()
labels = cluster(embeddings[0], **model.config.spoco["cluster_script"]["parameters"])
```"""


def summary(content: RunContent, options: ExportOptions) -> str:
    """One sentence on what the model is."""
    if options.description:
        return options.description
    net = content.recipe.net
    return (
        f"Pixel embeddings for instance segmentation of {options.structure or 'objects'} in "
        f"{net.ndim}D images, trained with SPOCO from {_annotation(content)}."
    )


def readme(content: RunContent, options: ExportOptions, geometry: TileGeometry) -> str:
    """The whole README in Markdown, with a Validation section of real figures."""
    recipe, net = content.recipe, content.recipe.net
    sections = [
        f"# {options.name}",
        summary(content, options),
        recipe.description,
        options.card.introduction if options.card else "",
        "## What it returns",
        _returns(content, options),
        "## From an image to labels",
        "With spoco-zoo, for images of any size, also OME-Zarr volumes larger than memory: "
        "`spoco-zoo segment IMAGE --model BUNDLE`.",
        f"With any other program: normalise, run the network, then run `{CLUSTER_SCRIPT}`, which "
        f"travels in this bundle and needs numpy and scipy alone. For `{TEST_INPUT}` the "
        f"result must equal `{TEST_LABELS}`.",
        *([RUN_ONNX] if "onnx" in options.formats else []),
        *(["Labels by TorchScript alone:", RUN_TORCHSCRIPT] if _labelled(options) else []),
        "With bioimageio.core:",
        RUN_CORE.replace("DIMS", ", ".join(f'"{axis}"' for axis in "zyx"[-net.ndim :])),
        "Images larger than memory must be embedded in overlapping tiles, whose embeddings are "
        "joined before any clustering: labels that were clustered per tile do not fit together."
        + _origins(net.rotary),
        "## Training data",
        options.about_data or "The exporter of this model has not described it.",
        f"Annotation: {_annotation(content)}.",
        *_training_facts(content),
        *(f"## {head}\n\n{text}" for head, text in _more(options)),
        "## Validation",
        _validation(content),
        "## Limits",
        options.about_limits or "The exporter of this model has named none beyond these.",
        _limits(content),
        "## Technical",
        _technical(content, geometry),
        "## Method",
        "Wolny, Yu, Pape, Kreshuk: Sparse Object-level Supervision for Instance Segmentation with "
        "Pixel Embeddings, CVPR 2022, arXiv 2103.14572.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _labelled(options: ExportOptions) -> bool:
    """Whether the bundle holds TorchScript that returns labels."""
    return options.with_labels and "torchscript" in options.formats


def _more(options: ExportOptions) -> list[tuple[str, str]]:
    """Sections of the card that have no place of their own."""
    return list(options.card.others.items()) if options.card else []


def _annotation(content: RunContent) -> str:
    recipe = content.recipe
    if recipe.annotation == "dense":
        return "densely annotated objects"
    if recipe.annotated_fraction < 1:
        return f"sparse annotation, {recipe.annotated_fraction:.0%} of the objects"
    return "sparse annotation, the fraction of annotated objects being unknown"


def _returns(content: RunContent, options: ExportOptions) -> str:
    dim = content.recipe.net.embedding_dim
    if options.with_labels:
        return (
            f"Two outputs. `embeddings` holds {dim} numbers per pixel; `labels` holds the objects "
            "of the whole image, 1..n, and 0 for background, as `spoco_cluster.py` makes them. "
            "Labels are made for one whole image at a time: a program that works in tiles gives "
            "labels that do not fit together, and must use the embeddings instead."
        )
    text = (
        f"**Embeddings, not labels.** Output `embeddings` holds {dim} numbers per pixel; pixels "
        "of one object lie close together, pixels of neighbouring objects far apart. Programs "
        "of other authors that run this bundle give you the embeddings; none of them turns "
        "embeddings into instances by itself, and those that guess (BiaPy, for one, reads "
        "channels as foreground and contours) give wrong instances."
    )
    if content.recipe.background is None:
        return text + " The model knows no background: every pixel belongs to an object."
    return text


def _origins(rotary: tuple[tuple[float, ...], ...]) -> str:
    """Where tiles must start for their embeddings to fit together."""
    if not rotary:
        return ""
    periods = " and of ".join(f"({', '.join(f'{p:g}' for p in entry)})" for entry in rotary)
    return (
        " Embeddings turn with the position in the input (rotary position embedding), so tiles, "
        f"halo included, must start at multiples of {periods} pixels from each other; spoco-zoo "
        "turns them itself and may start anywhere. Tiles of the sizes that the description "
        "admits, each without its halo beside the next, do so where it can be kept."
    )


def _training_facts(content: RunContent) -> list[str]:
    recipe, facts, counts = content.recipe, [], content.metrics.training
    if {"n_train", "n_objects"} <= counts.keys():
        facts.append(
            f"Trained on {counts['n_train']:g} images with {counts['n_objects']:g} annotated "
            f"objects, {counts.get('iterations', content.config.iterations):g} steps."
        )
    if recipe.voxel_size:
        size = " x ".join(f"{v:g}" for v in recipe.voxel_size)
        facts.append(f"Voxel size in training: {size} micrometres ({_axes(content)}).")
    if recipe.object_size:
        low, middle, high = recipe.object_size
        facts.append(
            f"Objects in training had {middle:g} voxels in the median, "
            f"{low:g} to {high:g} between the 5 % and 95 % quantile."
        )
    return facts


def _validation(content: RunContent) -> str:
    sets = {"validation": content.metrics.validation, "test": content.metrics.test}
    sets = {name: figures for name, figures in sets.items() if figures}
    heads = [
        f"{name} ({figures['n_images']:g} images)" if "n_images" in figures else name
        for name, figures in sets.items()
    ]
    rows = [
        f"| {label} | " + " | ".join(_figure(figures, key) for figures in sets.values()) + " |"
        for key, label in METRIC_NAMES.items()
        if any(key in figures for figures in sets.values())
    ]
    notes = "Means over images. The clustering parameters were tuned on the validation images"
    notes += (
        "; the test images were not used for anything before."
        if "test" in sets
        else ", so expect a little less on new ones."
    )
    if trained_on := content.metrics.validation.get("n_trained_on"):
        notes += f" The network was trained on {trained_on:g} of these: their figures flatter it."
    if content.scores_left_out:
        notes += (
            " Objects were chosen by scores for them, which the labels of this bundle do without."
        )
    tail = (
        "To validate on your own images, annotate a few of them fully, segment them, and compare: "
        "`spoco-zoo evaluate PREDICTION GROUND_TRUTH`."
    )
    table = [f"| figure | {' | '.join(heads)} |", "|---|" + "---|" * len(sets), *rows]
    return "\n".join([notes, "", *table, "", tail])


def _figure(figures: dict[str, float], key: str) -> str:
    return f"{figures[key]:.3f}" if key in figures else "-"


def _limits(content: RunContent) -> str:
    lines = [
        "- Other structures, microscopes or pixel sizes than in training: validate first.",
        "- Two far apart objects may share an embedding; only neighbours are told apart. "
        "Cluster locally, or split clusters into connected parts, as the script does.",
    ]
    if content.recipe.clustering.method != "instance":
        lines.append(
            f"- spoco-zoo itself clusters this model by `{content.recipe.clustering.method}`; "
            "the script that travels uses the `instance` method."
        )
    return "\n".join(lines)


def _technical(content: RunContent, geometry: TileGeometry) -> str:
    net, axes = content.recipe.net, _axes(content)
    rows = {
        "Architecture": f"U-Net, {net.ndim}D, features {list(net.features)}, BatchNorm",
        "Parameters": f"{sum(p.numel() for p in content.network.parameters()):,}",
        "Input channels": ", ".join(content.recipe.channel_names),
        f"Sizes ({axes})": f"{list(geometry.minimum)} + n x {list(geometry.step)}; the network "
        "itself pads other sizes",
        f"Halo ({axes})": f"{list(geometry.halo)}",
        "Normalisation": "(x - mean) / (std + 1e-6) over all channels and voxels of the image",
    }
    return "\n".join(f"- {key}: {value}" for key, value in rows.items())


def _axes(content: RunContent) -> str:
    return ", ".join("ZYX"[-content.recipe.net.ndim :])
