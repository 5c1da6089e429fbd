"""Embeddings of a part of a volume, to look at: the same that `segment` would cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.config import ClusteringConfig, SegmentConfig
from spoco_zoo.nets.device import choose_device
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.channels import choose_axes
from spoco_zoo.segment.embed import embed
from spoco_zoo.segment.network.inference import made_ready, worth_graphs
from spoco_zoo.segment.network.models import read_model
from spoco_zoo.segment.normalise import measure_for, read_normalised
from spoco_zoo.segment.plan import make_plan
from spoco_zoo.segment.planes import planewise
from spoco_zoo.segment.region import asked_region
from spoco_zoo.segment.scale.settle import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from spoco_zoo.intensities import Statistics
    from spoco_zoo.nets.model import Embedder, Model
    from spoco_zoo.segment.embed import Embedded
    from spoco_zoo.segment.plan import Plan

__all__ = ["GLANCE", "Part", "embed_part", "middle", "ready_part"]

GLANCE = 2**22
"""Most voxels of a part; their embeddings are held in memory."""


class Part(NamedTuple):
    """Embeddings of a part of a volume."""

    embeddings: np.ndarray
    """float32 (E, [Z,] Y, X)."""
    region: Box
    """Where they lie, in the voxels that the network saw."""
    image: ngff.Image
    seen: ngff.Image
    """What the network saw: the image, or a view of it with other voxels."""
    level: int
    """Of `seen`."""


def ready_part(
    plan: Plan,
    model: Model,
    region: Box,
    statistics: Statistics | None,
    place: torch.device,
) -> Callable[[], Embedded]:
    """Read a part of the first time point; what is returned embeds it, as often as called.

    Parameters
    ----------
    plan : Plan
    model : Model
    region : Box
        In voxels of `plan.image`.
    statistics : Statistics or None
        See `read_normalised`.
    place : torch.device

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    """
    needed = plan.field.needed(region)
    pixels = read_normalised(plan.image, plan.level, 0, plan.channels, needed, statistics)
    network: Embedder = made_ready(
        model.network, place, plan.config.precision, graphs=worth_graphs(plan.grid)
    )
    if plan.recipe.net.ndim < len(region.shape):
        network = planewise(network)
    net = plan.recipe.net
    return lambda: embed(network, pixels, plan.field, region, net=net, device=place)


def embed_part(
    source: str | Path,
    model: str | Path | Model,
    config: SegmentConfig | None = None,
    *,
    device: str = "auto",
) -> Part:
    """Embeddings of a region, or of the middle of it if it has more than `GLANCE` voxels.

    Parameters
    ----------
    source, model
        As `spoco_zoo.segment.segment` takes them.
    config : SegmentConfig, optional
        Region, patches and all that decides about embeddings there.
    device : {"auto", "cpu", "cuda", "cuda:I"}

    Returns
    -------
    Part

    Raises
    ------
    InputError
        As `spoco_zoo.segment.segment`.
    """
    # Embeddings need no clustering, so one that a model lacks may be any.
    loaded = read_model(model, ClusteringConfig())
    image = choose_axes(ngff.open_image(source), loaded.recipe)
    config = config or SegmentConfig()
    # In colour, light and scale of all of the image: a part shows what the whole is made of.
    whole = settle(image, loaded, config.model_copy(update={"roi": None})).config
    config = whole.model_copy(update={"roi": config.roi})
    with tempfile.TemporaryDirectory() as nowhere:
        # The plan of a run, for the part alone; nothing is written where it says.
        output = Path(nowhere, "labels.ome.zarr")
        part = middle(asked_region(image, loaded.recipe, config), GLANCE)
        roi = tuple(zip(part.start, part.stop, strict=True))
        config = config.model_copy(update={"roi": roi})
        plan = make_plan(image, loaded.recipe, config, output=output)
    found = ready_part(plan, loaded, plan.region, measure_for(plan, 0), choose_device(device))()
    return Part(found.embeddings.cpu().numpy(), plan.region, image, plan.image, plan.level)


def middle(region: Box, most: int) -> Box:
    """A region, or where it is larger than `most` voxels, a part of it around its centre.

    Its longest axes are cut first, so the part is as near to a cube as it can be.

    Examples
    --------
    >>> middle(Box((0, 10), (100, 20)), 200)
    Box(start=(40, 10), stop=(60, 20))
    """
    sides = list(region.shape)
    order = sorted(range(len(sides)), key=sides.__getitem__)
    rest = most
    for done, axis in enumerate(order):
        # The shorter axes have had their say; the others share what is left evenly.
        sides[axis] = min(sides[axis], max(1, int(rest ** (1 / (len(sides) - done)) + 1e-9)))
        rest //= sides[axis]
    start = [
        a + (n - side) // 2 for a, n, side in zip(region.start, region.shape, sides, strict=True)
    ]
    return Box(tuple(start), tuple(a + side for a, side in zip(start, sides, strict=True)))
