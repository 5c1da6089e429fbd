"""An image whose voxels are of another size than those that a model was trained on.

Decisions only. Each comes with a sentence for the user, because none is made silently. What
cannot be decided is said after the run, see `spoco_zoo.segment.review.hints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spoco_zoo.errors import ConfigError
from spoco_zoo.sizes import FAR, are_near, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.ngff import Image

__all__ = [
    "Zoom",
    "choose_zoom",
    "doubt",
    "hint_size",
    "stated_size",
]

BELIEVABLE = 10.0
"""Beyond this factor the image's metadata are more likely wrong than its scale unusual."""
INVENTED = 4.0
"""The same where the metadata say 1 um along every axis, which mostly means that nobody knew: a
stack would be resampled to a hundred times its voxels, and hours pass, for nothing."""
DOUBTFUL = (
    "Exactly 1 um along every axis is what programs write that do not know the size: if it is not "
    "true, give the true one with --voxel-size, or --no-rescale."
)
DOUBTFUL_STEP = (
    "Exactly 1 um from plane to plane is what is read, too, where nobody noted it (ImageJ leaves "
    "it out): if it is not true, give the true size with --voxel-size."
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
    stated: bool = True,
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
    stated : bool
        Whether it is the image that says `size`, and not the user.

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
    factors = _factors(ratios)
    if not rescale:
        return Zoom(
            same,
            f"Warning: the image has {sizes}: {factors}. Not rescaled, as asked; "
            "expect worse labels.",
        )
    invented = stated and set(size[lead:]) == {1.0}
    limit = INVENTED if invented else BELIEVABLE
    if any(not 1 / limit <= ratio <= limit for ratio in ratios):
        return Zoom(same, _disbelief(sizes, factors, stated, invented))
    return Zoom(
        ratios,
        f"The image has {sizes}: it is resampled for the network by {factors}, and the "
        "labels come back at full size. --no-rescale takes it as it is.",
    )


def hint_size(image: Image, recipe: ModelRecipe, config: SegmentConfig, zoom: Zoom) -> str:
    """What is odd about the voxel size that an image states, if that is the one that is used."""
    if config.voxel_size is not None:
        return _doubt_order(config.voxel_size)
    if config.zoom is not None:
        return ""
    if image.incomplete:
        return (
            f"The image states the voxel size in part, {image.incomplete}: none is used. "
            f"Give all of it: --voxel-size {','.join(image.spatial)} in um."
        )
    if recipe.voxel_size and config.rescale and stated_size(image, config.level, recipe) is None:
        taken = f"it is taken for the model's, {size_text(recipe.voxel_size)} um"
        bare = image.spatial_scale(config.level)
        if set(image.spatial_scale(0)) != {1.0}:
            return (
                f"The image states voxels of {size_text(bare)} without a unit of length that is "
                f"known: {taken}. If they are um, say so: "
                f"--voxel-size {','.join(f'{step:.6g}' for step in bare)}."
            )
        return (
            f"The image states no voxel size: {taken}. If it is far from that, give it: "
            f"--voxel-size {','.join(image.spatial)} in um."
        )
    return doubt(image.voxel_size(), zoom)


def _doubt_order(given: Sequence[float]) -> str:
    """Whether a voxel size seems to be given as x, y, z, as many programs show it."""
    if len(given) != 3 or given[0] != given[1] or given[2] <= FAR * given[0]:
        return ""
    turned = ",".join(f"{size:g}" for size in reversed(given))
    return (
        f"--voxel-size is z,y,x, so pixels of a plane are {given[1]:g} x {given[2]:g} um. If they "
        f"are square, give {turned}."
    )


def doubt(size: Sequence[float] | None, zoom: Zoom) -> str:
    """What is odd about a stated voxel size for which an image is resampled; mostly nothing.

    Parameters
    ----------
    size : sequence of float or None
        As long as ``zoom.factors``.
    zoom : Zoom
        What follows from it.

    Returns
    -------
    str
    """
    if size is None or not zoom.needed:
        return ""
    if set(size) == {1.0}:
        return DOUBTFUL
    far = not are_near(zoom.factors[:1], (1.0,))
    return DOUBTFUL_STEP if len(size) == 3 and size[0] == 1 and far else ""


def stated_size(image: Image, level: int, recipe: ModelRecipe) -> tuple[float, ...] | None:
    """Voxel size ([Z,] Y, X) that an image states, None if not along every axis of the model.

    To a 2D model z does not matter: nan where it is unknown.
    """
    flat = image.voxel_size(level, slice(-recipe.net.ndim, None))
    unknown = (float("nan"),) * (len(image.spatial) - recipe.net.ndim)
    return image.voxel_size(level) or (flat and (*unknown, *flat))


def _disbelief(sizes: str, factors: str, stated: bool, invented: bool) -> str:
    """Why an image is taken as it is, and what to do if that is wrong."""
    if invented:
        return (
            f"Warning: the image says {sizes}: {factors}. Not believed and not rescaled: exactly "
            "1 um along every axis is what programs write that do not know the size. Give the "
            "true one with --voxel-size, or that one if it is true."
        )
    if not stated:
        return (
            f"Warning: --voxel-size says {sizes}: {factors}. Not believed and not rescaled. It is "
            "in micrometres, along z first. If it is true, convert the image to about the "
            "model's voxel size."
        )
    return (
        f"Warning: the image says {sizes}: {factors}. Not believed and not rescaled. If it is "
        "true, convert the image to about the model's voxel size; if not, give the true one with "
        "--voxel-size."
    )


def _factors(ratios: Sequence[float]) -> str:
    """How far apart the voxel sizes are, per axis."""
    parts = [f"1/{r:.3g}" if r > 1 else f"{1 / r:.3g}" for r in ratios]
    return "a factor of " + (parts[0] if len(set(parts)) == 1 else " x ".join(parts))
