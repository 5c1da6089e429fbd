"""The U-Net of SPOCO: pixel embeddings in 2D and 3D from one class.

This file needs torch alone. It travels inside every exported bundle as its
architecture file, so nothing of spoco_zoo may be imported here.
"""

import math
from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Module):
    """Two times 3x3(x3) convolution, BatchNorm, ReLU; spatial size is kept."""

    def __init__(self, ndim: int, in_channels: int, out_channels: int):
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if ndim == 2 else nn.BatchNorm3d
        self.layers = nn.Sequential(
            conv(in_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
            nn.ReLU(inplace=True),
            conv(out_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def turned(embeddings: Tensor, rotary: List[List[float]], places: List[Tensor]) -> Tensor:
    """Pairs of channels turned in their planes, once per period along an axis.

    Parameters
    ----------
    embeddings : Tensor
        float32 (N, E, [Z,] Y, X).
    rotary : list of list of float
        Periods in voxels, see `SpocoUNet`.
    places : list of Tensor
        Voxels along each axis ([Z,] Y, X); they spread over (N, [Z,] Y, X).
    """
    parts: List[Tensor] = []
    for periods in rotary:
        for place, period in zip(places, periods):
            angle = torch.remainder(place, period) * (2 * math.pi / period)
            cos, sin = torch.cos(angle), torch.sin(angle)
            first, second = embeddings[:, len(parts)], embeddings[:, len(parts) + 1]
            parts.append(first * cos - second * sin)
            parts.append(first * sin + second * cos)
    return torch.cat([torch.stack(parts, 1), embeddings[:, len(parts) :]], dim=1)


class SpocoUNet(nn.Module):
    """U-Net from an image to one embedding vector per pixel.

    The head is a 1x1 convolution without activation and no coordinates enter
    the network (paper, section 3.1). Input of any size is taken: it is padded by
    replication at the high end of each axis to a multiple of the pooling factor,
    and the output is cropped back.
    Normalisation is BatchNorm only, because with instance or group statistics
    a pixel's embedding would depend on the tile that it was computed in.

    With `rotary` periods, pairs of output channels are turned by an angle that
    grows with the voxel's position, a full turn per period, as in rotary position
    embedding (Su et al., "RoFormer", 2021). To give one embedding to all voxels
    of an object, the network has to turn each pair back by the voxel's place
    within the object, which it can see; two alike objects then end up apart by
    the angle between their places, which it cannot see. Lengths stay, so what is
    at the origin (the background) stays there; and an image that is moved has
    all its embeddings turned alike, which leaves every distance as it was.
    Without periods the embeddings are non-spatial, as in the paper.

    Parameters
    ----------
    ndim : int
        2 or 3 spatial axes.
    in_channels : int
        Channels of the image.
    embedding_dim : int
        Channels of the output.
    features : sequence of int
        Channels of each level, finest first.
    pooling : sequence of sequence of int
        Pooling factor per axis ([Z,] Y, X) between successive levels:
        ``len(features) - 1`` entries.
    rotary : sequence of sequence of float
        Periods in voxels per axis ([Z,] Y, X); each entry turns the next
        ``2 ndim`` channels of the output, a pair per axis.

    Notes
    -----
    ``forward`` maps float ``(N, C, [Z,] Y, X)`` to ``(N, E, [Z,] Y, X)``.
    """

    # TorchScript cannot tell the type of an empty list.
    rotary: List[List[float]]

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        embedding_dim: int,
        features: Sequence[int],
        pooling: Sequence[Sequence[int]],
        rotary: Sequence[Sequence[float]] = (),
    ):
        super().__init__()
        self.ndim = ndim
        self.rotary = [[float(p) for p in periods] for periods in rotary]
        self.pooling: List[List[int]] = [[int(p) for p in level] for level in pooling]
        self.factor: List[int] = [1] * ndim
        for level in self.pooling:
            self.factor = [f * p for f, p in zip(self.factor, level)]
        widths = [int(f) for f in features]
        self.encoders = nn.ModuleList(
            [DoubleConv(ndim, a, b) for a, b in zip([in_channels, *widths[:-1]], widths)]
        )
        pool = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        self.pools = nn.ModuleList([nn.Identity()] + [pool(level) for level in self.pooling])
        # Stored coarsest first: the order in which they run.
        self.decoders = nn.ModuleList(
            [DoubleConv(ndim, a + b, a) for a, b in reversed(list(zip(widths, widths[1:])))]
        )
        self.ups = nn.ModuleList(
            [
                nn.Upsample(scale_factor=tuple(float(p) for p in level), mode="nearest")
                for level in reversed(self.pooling)
            ]
        )
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.head = conv(widths[0], embedding_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings, also for networks that return more than these."""
        if self.ndim == 2:
            height, width = x.shape[2], x.shape[3]
            fy, fx = self.factor
            x = F.pad(x, [0, -width % fx, 0, -height % fy], mode="replicate")
            return self.placed(self.unpadded(x)[:, :, :height, :width])
        depth, height, width = x.shape[2], x.shape[3], x.shape[4]
        fz, fy, fx = self.factor
        x = F.pad(x, [0, -width % fx, 0, -height % fy, 0, -depth % fz], mode="replicate")
        return self.placed(self.unpadded(x)[:, :, :depth, :height, :width])

    def placed(self, x: Tensor) -> Tensor:
        """Embeddings turned by their place in the input, float32 if there are periods."""
        if len(self.rotary) == 0:
            return x
        places: List[Tensor] = []
        for axis in range(self.ndim):
            at = torch.arange(x.shape[axis + 2], dtype=torch.float32, device=x.device)
            shape = [1] * (self.ndim + 1)
            shape[axis + 1] = -1
            places.append(at.reshape(shape))
        return turned(x.float(), self.rotary, places)

    def unpadded(self, x: Tensor) -> Tensor:
        """The network proper; every axis must be a multiple of its pooling factor."""
        skips: List[Tensor] = []
        for pool, encoder in zip(self.pools, self.encoders):
            x = encoder(pool(x))
            skips.append(x)
        skips.pop()
        for up, decoder in zip(self.ups, self.decoders):
            x = decoder(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)
