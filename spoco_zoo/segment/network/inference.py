"""Networks made ready for inference: same function, less work.

In evaluation mode BatchNorm is a fixed scaling, so it is folded into the
convolution before it, and tensors are laid out with their channels last, which
is what convolutions in torch like best. In 2D on a CPU ONNX Runtime is faster still
(`spoco_zoo.segment.network.graph`); in 3D it is slower. All change the last bits only: embeddings
differ by less than 1e-5 of their range. A model in memory, in a run or in a bundle
stays as it is; this happens where `segment` loads it.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spoco_zoo.nets.unet import SpocoUNet

if TYPE_CHECKING:
    from torch import Tensor

    from spoco_zoo.config import Precision
    from spoco_zoo.nets.model import Embedder
    from spoco_zoo.segment.blocks import BlockGrid

__all__ = ["folded", "made_ready", "uses_bfloat16", "worth_graphs"]

GRAPH_VOXELS = 2**20
"""For fewer voxels graphs cost more (0.2 s, nearly all of it for importing onnx) than they save."""

Net = TypeVar("Net", bound=nn.Module)
LAYOUT = {4: torch.channels_last, 5: torch.channels_last_3d}
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def made_ready(
    network: Embedder, device: torch.device, precision: Precision, *, graphs: bool = False
) -> Embedder:
    """A network as `embed` runs it.

    Parameters
    ----------
    network : Embedder
        In evaluation mode. Modules with convolutions are folded; TorchScript, ONNX
        and plain functions are taken as they are.
    device : torch.device
        Where it will run.
    precision : {"auto", "float32", "bfloat16"}
        See `uses_bfloat16`.
    graphs : bool
        Whether 2D U-Nets may be run by ONNX Runtime (`worth_graphs`): on a CPU in float32.

    Returns
    -------
    Embedder
        Takes batches on `device` and gives float32.
    """
    ours = isinstance(network, nn.Module) and any(
        isinstance(layer, CONVOLUTIONS) for layer in network.modules()
    )
    low = uses_bfloat16(device, precision)
    if isinstance(network, nn.Module):
        if ours:
            network = folded(network)
            if graphs and device.type == "cpu" and not low:
                network = _with_graphs(network)
        network = network.to(device)
    run = network
    # Where float32 is asked for, a GPU must not round products to 19 bits (TF32).
    exact = device.type == "cuda" and not low

    def forward(x: Tensor, /) -> Tensor:
        if ours:
            x = x.contiguous(memory_format=LAYOUT[x.ndim])
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if exact else nullcontext(),
            torch.autocast(device.type, torch.bfloat16, enabled=low),
        ):
            return run(x).float()

    return forward


def worth_graphs(grid: BlockGrid) -> bool:
    """Whether a run has so many voxels that graphs save more than they cost."""
    return grid.voxels >= GRAPH_VOXELS


def uses_bfloat16(device: torch.device, precision: Precision) -> bool:
    """Whether products are rounded to bfloat16: by default on a GPU only.

    Tiled then equals whole to about 1e-2, a fiftieth of delta_var, not to 1e-4.
    """
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


def _with_graphs(network: nn.Module) -> nn.Module:
    """A folded network whose 2D U-Nets are run by ONNX Runtime."""
    if type(network) is SpocoUNet and network.ndim == 2:
        from spoco_zoo.segment.network.graph import GraphUNet

        return GraphUNet(network, torch.get_num_threads())
    for name, child in network.named_children():
        setattr(network, name, _with_graphs(child))
    return network


def folded(network: Net) -> Net:
    """A copy in which each BatchNorm behind a convolution is part of it, channels last."""
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        layers: list[nn.Module] = []
        for layer in parent:
            if isinstance(layer, NORMS) and layers and isinstance(layers[-1], CONVOLUTIONS):
                layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
            else:
                layers.append(layer)
        for name in list(parent._modules):
            del parent._modules[name]
        parent.extend(layers)
    # A weight's number of axes tells 2D from 3D.
    for layer in network.modules():
        if isinstance(layer, CONVOLUTIONS):
            layer.weight.data = layer.weight.data.contiguous(
                memory_format=LAYOUT[layer.weight.ndim]
            )
    return network
