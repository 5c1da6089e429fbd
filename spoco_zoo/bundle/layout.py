"""What a bundle is called inside, and the sizes that its networks take."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Literal

from spoco_zoo.nets.receptive import exact_halo, pooling_factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import ModelRecipe

__all__ = ["CONFIG_EXTRA", "FORMATS", "TileGeometry", "WeightFormat", "tile_geometry"]

WeightFormat = Literal["pytorch_state_dict", "torchscript", "onnx"]
FORMATS: tuple[WeightFormat, ...] = ("pytorch_state_dict", "torchscript", "onnx")

DESCRIPTION = "rdf.yaml"
DESCRIPTION_NAMES = (DESCRIPTION, "bioimageio.yaml", "model.yaml")
README = "README.md"
COVER = "cover.png"
ARCHITECTURE = "spoco_unet.py"
ARCHITECTURE_CALLABLE = "SpocoUNet"
LABELS_ARCHITECTURE = "spoco_unet_labels.py"
LABELS_CALLABLE = "SpocoUNetWithLabels"
WEIGHT_FILES: dict[WeightFormat, str] = {
    "pytorch_state_dict": "weights.pt",
    "torchscript": "weights_torchscript.pt",
    "onnx": "weights.onnx",
}
MOMENTUM = "momentum.pt"
TEST_INPUT, TEST_OUTPUT, TEST_LABELS = "test_input.npy", "test_output.npy", "test_labels.npy"
TEST_LABEL_OUTPUT = "test_output_labels.npy"
SAMPLE_INPUT = "sample_input.tif"
SAMPLE_LABELS = "sample_labels.tif"
CLUSTER_SCRIPT = "spoco_cluster.py"
TRAINING_CONFIG = "training_config.yaml"
INPUT_TENSOR, OUTPUT_TENSOR, LABEL_TENSOR = "input", "embeddings", "labels"
LONGEST_STEP = 512
"""Between sizes that a bundle admits: beyond it, common periods of tiles are given up."""
CONFIG_EXTRA = ("receptive_radius", "cluster_script", "figures")
"""Keys of ``config.spoco`` beside the recipe: for other programs, and for people."""


def is_description(name: str) -> bool:
    """Whether the official library could take this member for the description.

    It takes the first in sorted order of ``rdf.yaml`` and ``*.rdf.yaml``, and
    then the same of the other names.
    """
    return any(name == known or name.endswith(f".{known}") for known in DESCRIPTION_NAMES)


def architecture_file(with_labels: bool) -> str:
    """Name of the architecture file."""
    return LABELS_ARCHITECTURE if with_labels else ARCHITECTURE


def architecture_callable(with_labels: bool) -> str:
    """Name of the class in the architecture file."""
    return LABELS_CALLABLE if with_labels else ARCHITECTURE_CALLABLE


@dataclass(frozen=True)
class TileGeometry:
    """Sizes per spatial axis ([Z,] Y, X), in voxels, all multiples of the pooling factor.

    ::

        |<------------- min + n * step ------------->|   input = output, n = 0, 1, 2, ...
        |<- halo ->|<--- at least one step --->|<- halo ->|
                    what a consumer keeps of a tile

    Attributes
    ----------
    minimum, step : tuple of int
        Sizes that the description admits are ``minimum + n * step``.
    halo : tuple of int
        What a consumer that works in tiles drops on every side.
    """

    minimum: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]

    def largest_within(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Largest admitted size that does not exceed `sizes`, but at least the minimum."""
        return tuple(
            low + max(0, size - low) // step * step
            for size, low, step in zip(sizes, self.minimum, self.step, strict=True)
        )


def tile_geometry(recipe: ModelRecipe) -> TileGeometry:
    """Sizes of a recipe's bundle.

    Where embeddings turn with position, a step is a multiple of the periods as well: tiles of
    any admitted size, laid side by side without their halos, then begin at the same angle.
    In 2D the halo makes tiled equal to whole. In 3D that halo can exceed the
    thickness of real stacks, so it is at most a quarter of the default patch.
    """
    factor, halo = pooling_factor(recipe.net), exact_halo(recipe.net)
    if recipe.net.ndim == 3:
        quarter = [p // 4 // f * f for p, f in zip(recipe.patch, factor, strict=True)]
        halo = tuple(min(h, q) for h, q in zip(halo, quarter, strict=True))
    step = tuple(
        common_step(f, [entry[axis] for entry in recipe.net.rotary])
        for axis, f in enumerate(factor)
    )
    minimum = tuple(2 * h + s for h, s in zip(halo, step, strict=True))
    return TileGeometry(minimum, step, halo)


def common_step(factor: int, periods: Sequence[float]) -> int:
    """Least common multiple of the pooling factor and the periods, or the factor alone.

    >>> common_step(8, [48.0]), common_step(4, [6.0, 10.0]), common_step(8, [])
    (48, 60, 8)

    Periods that are not whole, or have too large a multiple, cannot be kept by tiles.

    >>> common_step(8, [20.5]), common_step(8, [509.0])
    (8, 8)
    """
    if any(period != round(period) for period in periods):
        return factor
    step = lcm(factor, *(round(period) for period in periods))
    return step if step <= LONGEST_STEP else factor
