"""Whether a network should see bright and dark the other way round, as in `--invert`.

Most of what a model of bright objects was trained on is dark. An image of which most is bright
may be one of dark objects on a bright ground, or of bright ones that cover more than half of it.
So the network is shown parts of it both ways, at several sizes, and what counts is how much of
the foreground becomes objects of usual size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spoco_zoo.errors import RemoteError, StoreError
from spoco_zoo.segment.channels import choose_axes
from spoco_zoo.segment.region import asked_region
from spoco_zoo.segment.review.hints import ENOUGH
from spoco_zoo.segment.review.light import are_opposite
from spoco_zoo.segment.scale.looking import part_around, places, shown_as_asked

if TYPE_CHECKING:
    from spoco_zoo.config import ModelRecipe, SegmentConfig
    from spoco_zoo.nets.model import Model
    from spoco_zoo.ngff import Image
    from spoco_zoo.segment.blocks import Box
    from spoco_zoo.segment.scale.decision import Look
    from spoco_zoo.segment.scale.looking import Shown

__all__ = ["find_light", "with_light"]

ZOOMS = {2: (1 / 4, 1 / 2, 1.0, 2.0), 3: (1 / 2, 1.0)}
"""At which both are looked at, by axes of the network; the best one of each counts."""
EDGES = {2: 256, 3: 80}
"""Of the part that is looked at, in voxels of the network, at most twice as many."""
USUAL = -1.0
"""Lean of the training images where the model does not say: most stains are bright on dark."""
UNSURE = 0.1
"""Objects that chance may have made."""
NOTE = (
    "Most of the image is {0}, with clear objects in it that are {1}, and the model was trained on "
    "{0} ones: the network sees bright and dark the other way round. --no-invert takes it as it is."
)


def with_light(
    image: Image, model: Model, config: SegmentConfig, earlier: str | None = None
) -> tuple[SegmentConfig, str]:
    """Settings that say whether bright and dark change places.

    Parameters
    ----------
    image : Image
    model : Model
    config : SegmentConfig
        With the channel that is segmented.
    earlier : str, optional
        What a run that goes on has decided, as its ledger has it.

    Returns
    -------
    config : SegmentConfig
    note : str
        What to tell the user.
    """
    if config.invert is not None:
        return config, ""
    invert = earlier == str(True) if earlier is not None else find_light(image, model, config)
    # Objects cover less than half of most images, so these lean to where they are not.
    dark = (model.recipe.lean or 0) > 0
    note = NOTE.format(*(("dark", "bright") if dark else ("bright", "dark"))) if invert else ""
    return config.model_copy(update={"invert": invert}), note


def find_light(image: Image, model: Model, config: SegmentConfig) -> bool:
    """Look at an image of unusual light both ways, on the CPU.

    Parameters
    ----------
    image : Image
    model : Model
    config : SegmentConfig
        Level, channel and region.

    Returns
    -------
    bool
        Whether the other way round is better; never where the question is not open.
    """
    recipe = model.recipe
    if (
        recipe.object_size is None
        or (recipe.background is None and recipe.net.ndim == 2)
        or recipe.clustering.method != "instance"
    ):
        return False
    learned = USUAL if recipe.lean is None else recipe.lean
    try:
        image = choose_axes(image, recipe)
        plain = shown_as_asked(image, model, config.model_copy(update={"invert": False}))
        if not are_opposite(plain.rough_lean(), learned):
            return False  # as of nearly all images, which must not wait for the rest
        if not are_opposite(plain.statistics.lean, learned):
            return False
        region = asked_region(image, recipe, config)
        as_it_is, turned = (_clearness(one, region) for one in (plain, replace(plain, invert=True)))
    except RemoteError:
        raise
    except StoreError:  # the blocks that hold it will say so
        return False
    return turned > as_it_is


def _clearness(shown: Shown, region: Box) -> float:
    """See `clearness`; at the zoom that is best, in the first part that holds enough objects."""
    best, edge = 0.0, EDGES[shown.ndim]
    for centre in places(region, shown.ndim):
        count = 0
        for zoom in ZOOMS[shown.ndim]:
            part = part_around(region, centre, round(edge / min(zoom, 1)))
            found = shown.look(zoom, part, scored=True)
            best, count = max(best, clearness(found, shown.recipe)), max(count, len(found.sizes))
        if count >= ENOUGH or max(region.shape[-shown.ndim :]) <= edge:
            break
    return best


def clearness(found: Look, recipe: ModelRecipe) -> float:
    """How much of the foreground objects of usual size hold; a little less where they are few.

    In the wrong light the ground falls into large patches, of which some are of usual size. Of a
    volume next to nothing may be found in it, and all of that of usual size: there it is how much
    of all voxels they hold.
    """
    assert recipe.object_size is not None
    smallest, _, largest = recipe.object_size
    usual = [size for size in found.sizes if smallest <= size <= largest]
    if not usual:
        return 0.0
    foreground = sum(found.sizes) + found.dropped_voxels
    share = sum(usual) / (foreground if recipe.net.ndim == 2 else found.voxels)
    return share * len(usual) / (len(usual) + UNSURE)
