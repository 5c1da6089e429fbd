"""An image whose voxels are of another size than those that a model was trained on.

Decisions only. Each comes with a sentence for the user, because none is made silently. What
cannot be decided is said after the run, see `spoco_zoo.segment.review.hints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError
from spoco_zoo.sizes import are_near, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.ngff import Image

__all__ = [
    "DOUBTFUL",
    "Zoom",
    "choose_zoom",
    "hint_size",
    "stated_size",
]

BELIEVABLE = 10.0
"""Beyond this factor the image's metadata are more likely wrong than its scale unusual."""
DOUBTFUL = (
    "Exactly 1 um along every axis is what programs write that do not know the size: if it is not "
    "true, give the true one with --voxel-size, or --no-rescale."
)


@dataclass(frozen=True)
class Zoom:
    """How much larger the voxels of the network are than those of the image."""

    factors: tuple[float, ...]
    """Per spatial axis of the image; all 1 if it is taken as it is."""
    note: str = ""

    @property
    def needed(self) -> bool:
        """Whether the image has to be resampled."""
        return any(factor != 1 for factor in self.factors)


def choose_zoom(
    size: Sequence[float] | None,
    recipe: ModelRecipe,
    axes: Sequence[str],
    *,
    rescale: bool = True,
    zoom: float | None = None,
) -> Zoom:
    """Decide whether an image must be resampled to the model's voxel size.

    Parameters
    ----------
    size : sequence of float or None
        Voxel size of the image ([Z,] Y, X) in micrometres.
    recipe : ModelRecipe
        A 2D model leaves z alone.
    axes : sequence of str
        The image's spatial axes.
    rescale : bool
        False: never, but say what is off.
    zoom : float, optional
        The user's own choice: 0.5 halves the image along the axes of the model.

    Returns
    -------
    Zoom

    Examples
    --------
    >>> from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig
    >>> recipe = ModelRecipe(
    ...     net=NetConfig(), delta_var=0.5, delta_dist=2, kernel_threshold=0.5, background=None,
    ...     clustering=ClusteringConfig(), channel_names=("0",), patch=(64, 64),
    ...     voxel_size=(0.5, 0.5),
    ... )
    >>> choose_zoom((0.1, 0.1), recipe, "yx").factors
    (5.0, 5.0)
    >>> choose_zoom((0.4, 0.4), recipe, "yx").factors
    (1.0, 1.0)
    """
    same = (1.0,) * len(axes)
    if size is not None and len(size) != len(axes):
        example = ",".join(["0.5", "0.2", "0.2"][-len(axes) :])
        raise ConfigError(
            "voxel_size must have one entry per spatial axis " + ",".join(axes),
            f"{len(size)} entries" if len(size) > 1 else "1 entry",
            f"Give {len(axes)}, as in --voxel-size {example}.",
        )
    if zoom == 1:
        return Zoom(same)
    if zoom is not None:
        lead = len(axes) - recipe.net.ndim
        return Zoom(
            (1.0,) * lead + (float(f"{1 / zoom:.6g}"),) * recipe.net.ndim,
            f"The network sees the image at {zoom:g} times its size, as asked, and the labels come "
            "back at full size.",
        )
    if size is None or recipe.voxel_size is None:
        return Zoom(same)
    lead = len(axes) - len(recipe.voxel_size)
    ratios = (1.0,) * lead + tuple(
        float(f"{model / own:.6g}")
        for model, own in zip(recipe.voxel_size, size[lead:], strict=True)
    )
    if are_near(ratios, (1.0,) * len(ratios)):
        return Zoom(same)
    learned = size_text(recipe.voxel_size)
    sizes = f"{size_text(size[lead:])} um a voxel, the model was trained at {learned} um"
    if not rescale:
        return Zoom(
            same,
            f"Warning: the image has {sizes}: {_factors(ratios)}. Not rescaled, as asked; "
            "expect worse labels.",
        )
    if any(not 1 / BELIEVABLE <= ratio <= BELIEVABLE for ratio in ratios):
        return Zoom(
            same,
            f"Warning: the image says {sizes}: {_factors(ratios)}. Not believed and not "
            "rescaled. If it is true, convert the image to about the model's voxel size; if not, "
            "give the true one with --voxel-size.",
        )
    return Zoom(
        ratios,
        f"The image has {sizes}: it is resampled for the network by {_factors(ratios)}, and the "
        "labels come back at full size. --no-rescale takes it as it is.",
    )


def hint_size(image: Image, recipe: ModelRecipe, config: SegmentConfig, zoom: Zoom) -> str:
    """What is odd about the voxel size that an image states, if that is the one that is used."""
    if config.voxel_size is not None or config.zoom is not None:
        return ""
    if image.incomplete:
        return (
            f"The image states the voxel size in part, {image.incomplete}: none is used. "
            f"Give all of it: --voxel-size {','.join(image.spatial)} in um."
        )
    if recipe.voxel_size and config.rescale and stated_size(image, config.level, recipe) is None:
        return (
            f"The image states no voxel size: it is taken for the model's, "
            f"{size_text(recipe.voxel_size)} um. If it is far from that, give it: "
            f"--voxel-size {','.join(image.spatial)} in um."
        )
    if zoom.note and set(image.voxel_size() or ()) == {1.0}:
        return DOUBTFUL
    return ""


def stated_size(image: Image, level: int, recipe: ModelRecipe) -> tuple[float, ...] | None:
    """Voxel size ([Z,] Y, X) that an image states, None if not along every axis of the model.

    To a 2D model z does not matter: nan where it is unknown.
    """
    flat = image.voxel_size(level, slice(-recipe.net.ndim, None))
    unknown = (float("nan"),) * (len(image.spatial) - recipe.net.ndim)
    return image.voxel_size(level) or (flat and (*unknown, *flat))


def _factors(ratios: Sequence[float]) -> str:
    """How far apart the voxel sizes are, per axis."""
    parts = [f"1/{r:.3g}" if r > 1 else f"{1 / r:.3g}" for r in ratios]
    return "a factor of " + (parts[0] if len(set(parts)) == 1 else " x ".join(parts))
