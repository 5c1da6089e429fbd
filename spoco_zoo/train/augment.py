"""Photometric augmentation: two independent views of one geometric crop.

Images are z-scored over their whole extent before they are cropped, so the
units here are standard deviations of an image. Everything is drawn from one
generator per step and applied on the device of the batch, in 2D and 3D alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Photometry", "view"]


@dataclass(frozen=True)
class Photometry:
    """Strength of the photometric augmentation.

    Attributes
    ----------
    contrast : float
        Standard deviation of the natural logarithm of the contrast factor.
    brightness : float
        Standard deviation of the added constant.
    gamma : float
        Standard deviation of the logarithm of the exponent, applied above the crop's minimum.
    noise : float
        Largest standard deviation of added normal noise.
    blur : float
        Largest standard deviation of the Gaussian blur, in voxels, applied to a third of the crops.
    grain : float
        Largest standard deviation of the strong noise that a fifth of the crops get besides.
    shading : float
        Standard deviation of the natural logarithm of a gain that changes smoothly over the crop,
        applied to a third of the crops: uneven light, and objects dimmer than others.
    """

    contrast: float = 0.4
    brightness: float = 0.2
    gamma: float = 0.25
    noise: float = 0.15
    blur: float = 1.2
    grain: float = 0.0
    shading: float = 0.0

    def scaled(self, strength: float) -> Photometry:
        """The same with every strength times `strength`."""
        return Photometry(**{name: value * strength for name, value in asdict(self).items()})


def view(batch: Tensor, photometry: Photometry, generator: torch.Generator) -> Tensor:
    """One random view of float32 (N, C, [Z,] Y, X), of the same shape."""
    spatial = tuple(range(2, batch.ndim))

    def normal(std: float) -> Tensor:
        shape = (batch.shape[0], batch.shape[1], *[1] * len(spatial))
        return torch.randn(shape, generator=generator, device=batch.device) * std

    def uniform(top: float) -> Tensor:
        shape = (batch.shape[0], 1, *[1] * len(spatial))
        return torch.rand(shape, generator=generator, device=batch.device) * top

    low = batch.amin(dim=spatial, keepdim=True)
    span = (batch.amax(dim=spatial, keepdim=True) - low).clamp(min=1e-6)
    lit = ((batch - low) / span).pow(normal(photometry.gamma).exp()) * span
    if photometry.shading > 0:
        lit = lit * _gain(batch, photometry.shading * (uniform(1.0) < 1 / 3), generator)
    result = lit + low
    sigma = (uniform(3.0) - 2.0).clamp(min=0) * photometry.blur
    result = _blur(result, sigma.flatten())
    result = result * normal(photometry.contrast).exp() + normal(photometry.brightness)
    noise = torch.randn(batch.shape, generator=generator, device=batch.device)
    strength = uniform(photometry.noise)
    if photometry.grain > 0:
        strength = strength + uniform(photometry.grain) * (uniform(1.0) < 1 / 5)
    return result + noise * strength


def _gain(batch: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth positive factors (N, 1, [Z,] Y, X): a coarse normal field, linearly interpolated."""
    ndim = batch.ndim - 2
    shape = (batch.shape[0], 1, *[3] * ndim)
    coarse = torch.randn(shape, generator=generator, device=batch.device) * std
    mode = "bilinear" if ndim == 2 else "trilinear"
    smooth = F.interpolate(coarse, size=batch.shape[2:], mode=mode, align_corners=True)
    return smooth.exp()


def _blur(batch: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur with one standard deviation per sample; 0 leaves it as it is."""
    radius = 4
    taps = torch.arange(-radius, radius + 1, device=batch.device, dtype=batch.dtype)
    weight = torch.exp(-0.5 * (taps / sigma.clamp(min=1e-3)[:, None]).square())
    weight = weight / weight.sum(1, keepdim=True)
    samples, channels = batch.shape[:2]
    ndim = batch.ndim - 2
    kernel = weight.repeat_interleave(channels, dim=0)
    flat = batch.reshape(1, samples * channels, *batch.shape[2:])
    convolve = F.conv2d if ndim == 2 else F.conv3d
    for axis in range(ndim):
        if batch.shape[2 + axis] <= radius:
            continue
        shape = [samples * channels, 1, *[1] * ndim]
        shape[2 + axis] = 2 * radius + 1
        pad = [0] * (2 * ndim)
        pad[2 * (ndim - 1 - axis)] = pad[2 * (ndim - 1 - axis) + 1] = radius
        padded = F.pad(flat, pad, mode="reflect")
        flat = convolve(padded, kernel.reshape(shape), groups=samples * channels)
    return flat.reshape(batch.shape)
