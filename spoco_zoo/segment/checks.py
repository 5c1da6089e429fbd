"""What could only fail, or go wrong, block by block: refused before any block is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError, InputError, LedgerError, RemoteError
from spoco_zoo.segment.normalise import measure
from spoco_zoo.segment.outcome import quietly

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.intensities import Statistics
    from spoco_zoo.ngff import Image
    from spoco_zoo.segment.outcome import Tell
    from spoco_zoo.segment.plan import Plan

__all__ = ["check_planes", "check_same_image", "check_volume"]


def check_planes(recipe: ModelRecipe, config: SegmentConfig, ndim: int) -> None:
    """Whether the patches that are asked for are planes if the model is 2D and the image is not.

    Raises
    ------
    ConfigError
    """
    lead = ndim - recipe.net.ndim
    for name, thickness in (("patch", 1), ("halo", 0)):
        asked = getattr(config, name)
        if lead and asked is not None and asked[0] != thickness:
            raise ConfigError(
                f"a 2D model takes a stack plane by plane: its {name} must be {thickness} along z",
                ",".join(map(str, asked)),
                f"Use --{name} {','.join(map(str, (thickness, *asked[1:])))}.",
            )


def check_volume(recipe: ModelRecipe, image: Image) -> None:
    """Whether the image is a volume if the model is 3D.

    Raises
    ------
    ConfigError
        With what to do about slices that were saved as something else, as often happens.
    """
    if recipe.net.ndim <= len(image.spatial):
        return
    n, what = max((image.n_times, "time points (t)"), (image.n_channels, "channels (c)"))
    instead = "Use a 2D model."
    if n > 1:
        instead = (
            f"If its {n} {what} are slices, save it with axes ZYX (in Fiji: Image > Hyperstacks > "
            "Re-order Hyperstack). If they are none, use a 2D model."
        )
    raise ConfigError(
        "a 3D model needs a 3D image", f"axes {','.join(image.axes)} in {image.uri}", instead
    )


def check_same_image(plan: Plan, when: int, known: Statistics, tell: Tell = quietly) -> None:
    """Whether an image is still the one that an unfinished run has measured.

    Parameters
    ----------
    plan : Plan
    when : int
        Time point.
    known : Statistics
        Of that time point, as they were when the run began.
    tell : callable, optional
        See `spoco_zoo.segment.normalise.measure`.

    Raises
    ------
    LedgerError
        If mean or deviation are others: its labels would be those of two images.
    RemoteError
        If the store of the image is away.
    """
    try:
        now = measure(plan.image, plan.level, when, plan.channels, tell=tell)
    except RemoteError:
        raise
    except InputError:
        return  # damaged since; the blocks in which it is will say so
    if not np.allclose(now[:2], known[:2], rtol=1e-6, atol=1e-6 * known.std):
        raise LedgerError(
            "an unfinished run can only go on with the image that it began with",
            f"other intensities in {plan.source.uri} ({plan.folder})",
            "Bring the former image back, or start again with --overwrite.",
        )
