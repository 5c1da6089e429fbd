"""Bundles of other authors whose network returns pixel embeddings.

Their architecture file is never imported. The network runs from TorchScript or
ONNX, and the description gives the sizes that it admits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoco_zoo.bundle.formats import cropped
from spoco_zoo.bundle.tensors import REMEDY, TensorSpec, embedding_tensors
from spoco_zoo.bundle.trial import try_network
from spoco_zoo.bundle.weights import read_onnx, read_torchscript
from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig
from spoco_zoo.errors import BundleError, ConfigError, one_line
from spoco_zoo.nets.model import Embedder, Model
from spoco_zoo.nets.receptive import exact_halo, pooling_factor

if TYPE_CHECKING:
    from spoco_zoo.bundle.archive import BundleFiles
    from spoco_zoo.bundle.rdf import Description

__all__ = [
    "AdmittedSizes",
    "Padded",
    "foreign_fingerprint",
    "foreign_recipe",
    "load_foreign",
    "read_network",
]

DEFAULT_PATCH = {2: 256, 3: 64}


@dataclass(frozen=True)
class AdmittedSizes:
    """Sizes per spatial axis that a network takes: ``minimum + n * step``."""

    minimum: tuple[int, ...]
    step: tuple[int, ...]

    def padding(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Voxels that are missing at the high end of each axis."""
        return tuple(
            max(0, low - size) if size <= low else -(size - low) % step
            for size, low, step in zip(sizes, self.minimum, self.step, strict=True)
        )


class Padded(nn.Module):
    """One output of a network, for any size: replicated at the high ends, and cropped back."""

    def __init__(self, network: Embedder, output: int, sizes: AdmittedSizes) -> None:
        super().__init__()
        self.network = network
        self.output = output
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (N, E, [Z,] Y, X) of float32 (N, C, [Z,] Y, X)."""
        spatial = tuple(x.shape[2:])
        missing = self.sizes.padding(spatial)
        if any(missing):
            pairs = [pad for m in reversed(missing) for pad in (0, m)]
            x = F.pad(x, pairs, mode="replicate")
        result = self.network(x)
        if isinstance(result, tuple | list):
            result = result[self.output]
        return cropped(result, spatial)


def load_foreign(
    files: BundleFiles, description: Description, clustering: ClusteringConfig | None
) -> Model:
    """Load a bundle that spoco-zoo did not write.

    Raises
    ------
    BundleError
        If its tensors are not those of pixel embeddings, or its normalisation
        is another than ours.
    ConfigError
        If `clustering` is None.
    """
    if clustering is None:
        raise ConfigError(
            "a model without config.spoco needs clustering parameters",
            "none",
            "Pass --clustering and its parameters to segment; all else needs a model that "
            "spoco-zoo has exported.",
        )
    source, target, output = embedding_tensors(description.rdf)
    network = read_network(files, description, source, output)
    recipe = foreign_recipe(source, target, _embedding_dim(network, source), clustering)
    return Model(recipe, network, None, foreign_fingerprint(files, description, recipe))


def read_network(
    files: BundleFiles, description: Description, source: TensorSpec, output: int
) -> Padded:
    """The network from TorchScript, which can use a GPU, or else from ONNX.

    Raises
    ------
    BundleError
        If the bundle has neither, or the file is refused.
    """
    sizes = AdmittedSizes(source.minimum, source.step)
    for name in ("torchscript", "onnx"):
        if name not in description.weights:
            continue
        entry = description.weights[name]
        content = files.read(entry.source, entry.sha256)
        smallest = (1, source.channels or 1, *source.minimum)
        try_network(content, name, entry.source, smallest, output)
        if name == "torchscript":
            return Padded(read_torchscript(content, entry.source), output, sizes)
        return Padded(read_onnx(content, entry.source, output), 0, sizes)
    raise BundleError(
        "a model of unknown architecture must come as TorchScript or ONNX, "
        "since code from a bundle is not run",
        ", ".join(description.weights),
        "Convert it with `bioimageio add-weights`.",
    )


def foreign_fingerprint(files: BundleFiles, description: Description, recipe: ModelRecipe) -> str:
    """SHA-256 of the recipe and of all weight files."""
    digest = hashlib.sha256(recipe.fingerprint().encode())
    for _, entry in sorted(description.weights.items()):
        digest.update(files.read(entry.source, entry.sha256))
    return digest.hexdigest()


def _embedding_dim(network: Padded, source: TensorSpec) -> int:
    """Channels of the output, found by running the network once on its smallest input."""
    x = torch.zeros(1, source.channels or 1, *source.minimum)
    try:
        with torch.inference_mode():
            result = network(x)
    except Exception as error:  # whatever the foreign network raises
        reason = one_line(error)[-150:]
        raise BundleError("a network must run on its smallest input", reason, REMEDY) from error
    if result.ndim != x.ndim or result.shape[2:] != x.shape[2:]:
        found = f"{tuple(result.shape)} for {tuple(x.shape)}"
        raise BundleError("embeddings must have the size of the image", found, REMEDY)
    return int(result.shape[1])


def foreign_recipe(
    source: TensorSpec, target: TensorSpec, embedding_dim: int, clustering: ClusteringConfig
) -> ModelRecipe:
    """A recipe for a network of which only the description is known.

    Its pooling is not known, but tiling needs no more than two numbers: tile
    origins must be multiples of the step, and the halo must cover the declared
    one. So its levels are taken to be the step's prime factors, and levels of
    pooling 2 are added until the halo is covered.
    """
    net = NetConfig(
        architecture="foreign",
        ndim=len(source.minimum),  # type: ignore[arg-type]
        in_channels=source.channels or 1,
        embedding_dim=embedding_dim,
        **_levels(source.step, target.halo),
    )
    factor = pooling_factor(net)
    patch = tuple(
        -(-max(DEFAULT_PATCH[net.ndim], low, 2 * h + f) // f) * f
        for h, f, low in zip(target.halo, factor, source.minimum, strict=True)
    )
    return ModelRecipe(
        net=net,
        delta_var=clustering.bandwidth,
        # The ratio of the two margins in the paper, 0.5 and 2.
        delta_dist=4 * clustering.bandwidth,
        kernel_threshold=0.5,
        background=None,
        clustering=clustering,
        channel_names=tuple(f"channel{i}" for i in range(net.in_channels)),
        patch=patch,
    )


def _prime_factors(number: int) -> list[int]:
    """Prime factors in ascending order; none of 1."""
    for factor in range(2, number + 1):
        if number % factor == 0:
            return [factor, *_prime_factors(number // factor)]
    return []


def _levels(step: tuple[int, ...], halo: tuple[int, ...]) -> dict[str, Any]:
    """Pooling whose product is a multiple of `step` and whose exact halo covers `halo`."""
    ndim = len(step)
    pooling = list(zip_longest(*map(_prime_factors, step), fillvalue=1)) or [(1,) * ndim]
    for _ in range(10):
        net = NetConfig(ndim=ndim, features=(1,) * (len(pooling) + 1), pooling=tuple(pooling))  # type: ignore[arg-type]
        short = [reach < h for reach, h in zip(exact_halo(net), halo, strict=True)]
        if not any(short):
            return {"features": net.features, "pooling": net.pooling}
        pooling.append(tuple(2 if s else 1 for s in short))
    raise BundleError("a halo must be plausible", f"{halo}", REMEDY)
