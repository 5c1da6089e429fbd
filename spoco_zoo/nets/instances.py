"""Labels inside of the network: the clustering of bundles, in operations of torch alone.

The same steps as the script that travels in every bundle (``spoco_cluster.py``,
whose head explains them), written so that TorchScript and the ONNX exporter can
take them: no array has a size that depends on its content. An object is named
by the index of one of its voxels, so tables have one row per voxel, and a batch
is one grid whose items do not touch. What can differ from the script is the
rounding of sums. Inside of loops no size is multiplied out (``numel``), which
the ONNX exporter could not follow.

The file follows ``unet.py`` in the architecture file of a bundle that returns
labels; the import of it below is left out there.
"""

from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from spoco_zoo.nets.unet import SpocoUNet


def no() -> int:
    """The index of no voxel, above all others: TorchScript reads no constants of a module."""
    return 1 << 40


def sides(grid: Tensor, axis: int) -> Tuple[Tensor, Tensor]:
    """The lower and the upper voxel of each pair of neighbours along an axis."""
    size = grid.shape[axis] - 1
    return grid.narrow(axis, 0, size), grid.narrow(axis, 1, size)


def beside(pairs: Tensor, grid: Tensor, axis: int, low: bool, filling: float) -> Tensor:
    """Values of pairs along an axis at their lower or upper voxels, in the size of `grid`."""
    edge = torch.full_like(grid.narrow(axis, 0, 1), filling)
    return torch.cat([pairs, edge] if low else [edge, pairs], axis)


def indices(grid: Tensor) -> Tensor:
    """0, 1, ... in the shape of a grid of any type, int64."""
    flat = torch.ones_like(grid.reshape(-1), dtype=torch.int64)
    return (flat.cumsum(0) - 1).reshape_as(grid)


def rows(owner: Tensor) -> Tensor:
    """The table row of each voxel, int64 (voxels,); where there is no object any will do."""
    flat = owner.reshape(-1)
    return torch.where(flat < no(), flat, 0)


def flow(root: Tensor, joins: List[Tensor]) -> Tensor:
    """One round of connected components: take the lowest root beside, then follow roots.

    Parameters
    ----------
    root : int64 (N, [Z,] Y, X)
        For each voxel the index of one in the same component, not above its own.
    joins : list of bool Tensor
        Per spatial axis, one shorter along it: whether two neighbours belong together.
    """
    lowest = root
    for i, join in enumerate(joins):
        first, second = sides(root, i + 1)
        pairs = torch.where(join, torch.minimum(first, second), no())
        lowest = torch.minimum(lowest, beside(pairs, root, i + 1, True, float(no())))
        lowest = torch.minimum(lowest, beside(pairs, root, i + 1, False, float(no())))
    flat = root.reshape(-1)
    flat = flat.scatter_reduce(0, flat, lowest.reshape(-1), "amin")
    flat = flat[flat]
    return flat[flat].reshape_as(root)


def ring(owner: Tensor, mask: Tensor, field: Tensor, anchors: Tensor) -> Tensor:
    """Grow every object by one ring of voxels, each to the nearest anchor beside it.

    Parameters
    ----------
    owner : int64 (N, [Z,] Y, X)
        The object of each voxel.
    mask : bool, as `owner`
        Where objects may grow.
    field : float32 (E, N, [Z,] Y, X)
    anchors : float32 (E, voxels)
        Mean embedding of each object.
    """
    anchored = anchors[:, rows(owner)].reshape_as(field)
    nearest = torch.full_like(field[0], float("inf"))
    found = torch.full_like(owner, no())
    # The order decides between equal distances: upwards along each axis first, then downwards.
    for low in [True, False]:
        for axis in range(1, owner.dim()):
            own, other = sides(field, axis + 1), sides(anchored, axis + 1)
            object = sides(owner, axis)[1 if low else 0]
            difference = own[0] - other[1] if low else own[1] - other[0]
            distance = (difference * difference).sum(0)
            distance = torch.where(object < no(), distance, float("inf"))
            distance = beside(distance, nearest, axis, low, float("inf"))
            closer = distance < nearest
            nearest = torch.where(closer, distance, nearest)
            found = torch.where(closer, beside(object, owner, axis, low, float(no())), found)
    return torch.where(mask & (owner == no()), found, owner)


def box_mean(values: Tensor, ndim: int) -> Tensor:
    """Mean in a box of 3 voxels over the last `ndim` axes; edges are repeated."""
    for axis in range(values.dim() - ndim, values.dim()):
        size = values.shape[axis]
        wide = values.double()
        first, last = wide.narrow(axis, 0, 1), wide.narrow(axis, size - 1, 1)
        wide = torch.cat([first, wide, last], axis)
        total = wide.narrow(axis, 0, size) + wide.narrow(axis, 1, size)
        values = ((total + wide.narrow(axis, 2, size)) / 3).float()
    return values


def spread(field: Tensor) -> Tensor:
    """Root-mean-square distance of the embeddings in a box of 3 voxels from their mean."""
    ndim = field.dim() - 2
    mean, mean_square = box_mean(field, ndim), box_mean(field * field, ndim)
    square = torch.zeros_like(field[0])
    # One channel after the other, as the script does: another order would round otherwise.
    for channel in range(field.shape[0]):
        square = square + mean_square[channel]
        square = square - mean[channel] * mean[channel]
    return square.clamp(min=0).sqrt()


def sizes(owner: Tensor) -> Tensor:
    """Voxels per object, int64 (voxels,)."""
    known = (owner.reshape(-1) < no()).long()
    return torch.zeros_like(known).scatter_add(0, rows(owner), known)


def mean_embeddings(field: Tensor, owner: Tensor) -> Tensor:
    """Mean embedding per object, float32 (E, voxels), 0 where there is none."""
    values = torch.where(owner < no(), field, 0.0).reshape(field.shape[0], -1).double()
    row = rows(owner).expand_as(values)
    sums = torch.zeros_like(values).scatter_add(1, row, values)
    return (sums / sizes(owner).clamp(min=1)).float()


def alike(owner: Tensor, means: Tensor, bandwidth: float) -> List[Tensor]:
    """Per spatial axis: whether neighbours are of the same object or of similar ones."""
    joins: List[Tensor] = []
    for axis in range(1, owner.dim()):
        first, second = sides(owner, axis)
        difference = means[:, rows(first)] - means[:, rows(second)]
        near = (difference * difference).sum(0).reshape_as(first) < bandwidth**2
        joins.append((first < no()) & (second < no()) & ((first == second) | near))
    return joins


def adopted(owner: Tensor, order: Tensor, means: Tensor, min_size: int) -> Tensor:
    """For each object the one that it is to be given to: itself, or if small, the nearest beside.

    Parameters
    ----------
    owner : int64 (N, [Z,] Y, X)
        Every voxel belongs to an object.
    order : int64 (voxels,)
        Sequence of the objects, which decides between equal distances.
    means : float32 (E, voxels)
    min_size : int

    Returns
    -------
    int64 (voxels,)
    """
    small = sizes(owner) < min_size
    givers: List[Tensor] = []
    takers: List[Tensor] = []
    for axis in range(1, owner.dim()):
        first, second = sides(owner, axis)
        givers += [first.reshape(-1), second.reshape(-1)]
        takers += [second.reshape(-1), first.reshape(-1)]
    giver, taker = torch.cat(givers), torch.cat(takers)
    difference = means[:, giver] - means[:, taker]
    touches = (giver != taker) & small[giver]
    distance = torch.where(touches, (difference * difference).sum(0), float("inf"))
    nearest = torch.full_like(means[0], float("inf"))
    nearest = nearest.scatter_reduce(0, giver, distance, "amin")
    touches = touches & (distance == nearest[giver])
    place = torch.where(touches, order[taker], no())
    earliest = torch.full_like(order, no()).scatter_reduce(0, giver, place, "amin")
    chosen = torch.where(touches & (place == earliest[giver]), taker, -1)
    target = torch.full_like(order, -1).scatter_reduce(0, giver, chosen, "amax")
    return torch.where(target < 0, indices(target), target)


def given(owner: Tensor, target: Tensor) -> List[Tensor]:
    """Per spatial axis: whether neighbours are of one object, or one of them adopts the other."""
    joins: List[Tensor] = []
    for axis in range(1, owner.dim()):
        first, second = sides(owner, axis)
        joins.append(
            (first == second)
            | (target[first.reshape(-1)].reshape_as(first) == second)
            | (target[second.reshape(-1)].reshape_as(first) == first)
        )
    return joins


def enclosing(labels: Tensor, holes: Tensor) -> Tensor:
    """For each hole, int64 (voxels,), the one object beside it; 0 if it reaches an image's edge."""
    places: List[Tensor] = []
    beside: List[Tensor] = []
    ends: List[Tensor] = []
    for axis in range(1, labels.dim()):
        first, second = sides(labels, axis)
        lower, upper = sides(holes, axis)
        places += [lower.reshape(-1), upper.reshape(-1)]
        beside += [second.reshape(-1), first.reshape(-1)]
        last = holes.shape[axis] - 1
        ends += [holes.narrow(axis, 0, 1).reshape(-1), holes.narrow(axis, last, 1).reshape(-1)]
    place, object, end = torch.cat(places), torch.cat(beside), torch.cat(ends)
    highest = torch.zeros_like(labels.reshape(-1)).scatter_reduce(0, place, object, "amax")
    object = torch.where(object > 0, object, no())
    lowest = torch.full_like(highest, no()).scatter_reduce(0, place, object, "amin")
    lowest = lowest.scatter_reduce(0, end, torch.zeros_like(end), "amin")
    return torch.where(lowest == highest, highest, 0)


class Instances(nn.Module):
    """From pixel embeddings to labels of a whole image.

    Parameters
    ----------
    background : sequence of float, optional
        Background prototype. Without it every voxel belongs to an object.
    bandwidth, foreground, smoothness : float
        Distances in embedding space.
    min_size : int
        Smallest object in voxels.
    fill_holes : bool
        Whether background that one object alone encloses is given to it.

    Notes
    -----
    ``forward`` maps float32 ``(N, E, [Z,] Y, X)`` to int32 ``(N, 1, [Z,] Y, X)``:
    0 is background, 1..n are the connected objects of that item.
    """

    prototype: Tensor

    def __init__(
        self,
        background: Optional[Sequence[float]],
        bandwidth: float,
        foreground: float,
        smoothness: float,
        min_size: int,
        fill_holes: bool = False,
    ):
        super().__init__()
        self.has_background = background is not None
        self.bandwidth, self.foreground = float(bandwidth), float(foreground)
        self.smoothness, self.min_size = float(smoothness), int(min_size)
        self.fill_holes = bool(fill_holes)
        prototype = torch.tensor([0.0] if background is None else list(background))
        self.register_buffer("prototype", prototype, persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        field = embeddings.transpose(0, 1).contiguous()
        mask = self.mask(field)
        seeded = mask & (spread(field) <= self.smoothness)
        owner = torch.where(seeded, self.components(indices(mask), self.inside(seeded)), no())
        owner = self.grown(owner, mask, field, mean_embeddings(field, owner))
        missed = mask & (owner == no())
        owner = torch.where(missed, self.components(indices(mask), self.inside(missed)), owner)
        order = self.sequence(missed)
        means = mean_embeddings(field, owner)
        owner, order = self.merged(owner, order, alike(owner, means, self.bandwidth))
        if not self.has_background:
            owner, order = self.absorbed(owner, order, field)
        keep = sizes(owner) >= (self.min_size if self.has_background else 1)
        labels = self.numbered(owner, order, keep)
        if self.fill_holes:
            labels = self.closed(labels)
        return labels.int().unsqueeze(1)

    def mask(self, field: Tensor) -> Tensor:
        """Voxels farther than `foreground` from the background prototype; all if there is none."""
        square = torch.zeros_like(field[0])
        if not self.has_background:
            return square == 0
        for channel in range(field.shape[0]):
            difference = field[channel] - self.prototype[channel]
            square = square + difference * difference
        return square > self.foreground**2

    def inside(self, mask: Tensor) -> List[Tensor]:
        """Per spatial axis: whether both neighbours are in the mask."""
        joins: List[Tensor] = []
        for axis in range(1, mask.dim()):
            first, second = sides(mask, axis)
            joins.append(first & second)
        return joins

    def components(self, root: Tensor, joins: List[Tensor]) -> Tensor:
        """For each voxel the first one, by index, of its connected component."""
        changes = True
        while changes:
            before = root
            root = flow(root, joins)
            changes = bool((root != before).any())
        return root

    def grown(self, owner: Tensor, mask: Tensor, field: Tensor, anchors: Tensor) -> Tensor:
        """Objects grown through the mask until there is no more to reach."""
        changes = True
        while changes:
            before = owner
            owner = ring(owner, mask, field, anchors)
            changes = bool((owner != before).any())
        return owner

    def sequence(self, missed: Tensor) -> Tensor:
        """Place of each first voxel in the numbering, int64 (voxels,).

        Item by item; in each the objects with seeds first, then the `missed` ones.
        """
        index = indices(missed).reshape(missed.shape[0], -1)
        before = index[:, :1]
        voxels = index[:, -1:] - before + 1
        return (index + before + missed.reshape(missed.shape[0], -1) * voxels).reshape(-1)

    def merged(self, owner: Tensor, order: Tensor, joins: List[Tensor]) -> Tuple[Tensor, Tensor]:
        """Joined objects, named by their first voxel, with the earliest place in the sequence."""
        result = torch.where(owner < no(), self.components(indices(owner), joins), no())
        places = torch.where(owner.reshape(-1) < no(), order[rows(owner)], no())
        earliest = torch.full_like(order, no())
        return result, earliest.scatter_reduce(0, rows(result), places, "amin")

    def absorbed(self, owner: Tensor, order: Tensor, field: Tensor) -> Tuple[Tensor, Tensor]:
        """Small objects given to the touching object that is most alike, until none is left."""
        changes = True
        while changes:
            before = owner
            owner, order = self.absorb_once(owner, order, field)
            changes = bool((owner != before).any())
        return owner, order

    def absorb_once(self, owner: Tensor, order: Tensor, field: Tensor) -> Tuple[Tensor, Tensor]:
        """Every small object, as of now, given away."""
        target = adopted(owner, order, mean_embeddings(field, owner), self.min_size)
        return self.merged(owner, order, given(owner, target))

    def numbered(self, owner: Tensor, order: Tensor, keep: Tensor) -> Tensor:
        """Numbers 1..n in each item, by the sequence; 0 for objects that are not kept."""
        row = rows(owner)
        kept = keep[row] & (owner.reshape(-1) < no())
        places = torch.where(kept, order[row], 0)
        present = torch.zeros_like(torch.cat([row, row]))
        present = present.scatter_reduce(0, places, kept.long(), "amax")
        number = present.cumsum(0)
        count = present.reshape(owner.shape[0], -1).sum(1)
        before = (count.cumsum(0) - count).reshape([-1] + [1] * (owner.dim() - 1))
        return torch.where(kept.reshape_as(owner), number[places].reshape_as(owner) - before, 0)

    def closed(self, labels: Tensor) -> Tensor:
        """Background that one object alone encloses given to that object."""
        empty = labels == 0
        holes = self.components(indices(labels), self.inside(empty))
        filling = enclosing(labels, holes)[holes.reshape(-1)].reshape_as(labels)
        return torch.where(empty, filling, labels)


class SpocoUNetWithLabels(SpocoUNet):
    """The U-Net, and labels of the whole image as a second output.

    Weights are those of `SpocoUNet`. ``forward`` maps float32 ``(N, C, [Z,] Y, X)``
    to ``(embeddings, labels)``, see `Instances`.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        embedding_dim: int,
        features: Sequence[int],
        pooling: Sequence[Sequence[int]],
        background: Optional[Sequence[float]],
        bandwidth: float,
        foreground: float,
        smoothness: float,
        min_size: int,
        rotary: Sequence[Sequence[float]] = (),
        fill_holes: bool = False,
    ):
        super().__init__(ndim, in_channels, embedding_dim, features, pooling, rotary)
        self.instances = Instances(
            background, bandwidth, foreground, smoothness, min_size, fill_holes
        )

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        embeddings = self.embed(x)
        return embeddings, self.instances(embeddings)
