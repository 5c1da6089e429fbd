"""A U-Net as an ONNX graph, built from its weights, which ONNX Runtime runs on a CPU.

ONNX Runtime keeps channels in blocks from one convolution to the next one and joins
activations to them, where torch goes through memory after each layer. The graph is made from
the weights in memory and not taken from a bundle's ``weights.onnx``, so a run and a bundle,
with ONNX weights or without, are embedded alike, and there is no second file to be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spoco_zoo.nets.unet import SpocoUNet

if TYPE_CHECKING:
    import onnx

__all__ = ["GraphUNet", "build_graph"]

OPSET, IR_VERSION = 17, 8
"""Of 2022: what every ONNX Runtime that we allow reads."""


class GraphUNet(SpocoUNet):
    """The function of a `SpocoUNet` in evaluation mode, its layers run by ONNX Runtime.

    Padding to the pooling factor and turning with position stay in torch.

    Parameters
    ----------
    network : SpocoUNet
        On the CPU, float32, its BatchNorms folded (`spoco_zoo.segment.network.inference.folded`).
    threads : int
        That one call uses.
    """

    def __init__(self, network: SpocoUNet, threads: int) -> None:
        nn.Module.__init__(self)
        import onnxruntime

        self.ndim, self.factor, self.rotary = network.ndim, network.factor, network.rotary
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Memory planned for one shape of patch lies badly for the next, and the arena grows.
        options.enable_mem_pattern = False
        graph = build_graph(network).SerializeToString()
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def unpadded(self, x: Tensor) -> Tensor:
        """See `SpocoUNet.unpadded`."""
        (result,) = self.session.run(None, {"x": x.contiguous().numpy()})
        return torch.from_numpy(result)


class _Graph:
    """Nodes in the order in which they run, and their constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node; its output's name."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: Tensor) -> str:
        """A constant; its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = value.detach().contiguous().numpy()
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def convolution(self, x: str, layer: nn.Conv2d | nn.Conv3d) -> str:
        """A convolution as the U-Net has them: padded by zeros, nothing else."""
        parts = [self.constant(layer.weight)]
        if layer.bias is not None:
            parts.append(self.constant(layer.bias))
        pads = [int(p) for p in layer.padding] * 2
        return self.add("Conv", x, *parts, pads=pads)

    def double(self, x: str, block: nn.Module) -> str:
        """Two convolutions, each with its ReLU: a folded `DoubleConv`."""
        for layer in block.get_submodule("layers").children():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                x = self.add("Relu", self.convolution(x, layer))
            elif not isinstance(layer, nn.ReLU):
                raise TypeError(f"a folded U-Net has no {type(layer).__name__}")
        return x


def build_graph(network: SpocoUNet) -> onnx.ModelProto:
    """`SpocoUNet.unpadded` as an ONNX model.

    Parameters
    ----------
    network : SpocoUNet
        On the CPU, float32, its BatchNorms folded.

    Returns
    -------
    onnx.ModelProto
        From ``x``, float32 (N, C, [Z,] Y, X) of any size that is a multiple of the pooling
        factor, to embeddings (N, E, [Z,] Y, X).

    Raises
    ------
    TypeError
        If a block holds other layers than convolutions and ReLUs.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    x, skips = "x", []
    for level, encoder in enumerate(network.encoders):
        if level:
            size = network.pooling[level - 1]
            x = graph.add("MaxPool", x, kernel_shape=size, strides=size)
        x = graph.double(x, encoder)
        skips.append(x)
    skips.pop()
    for size, decoder in zip(reversed(network.pooling), network.decoders, strict=True):
        scales = graph.constant(torch.tensor([1.0, 1.0, *map(float, size)]))
        x = graph.add(
            "Resize", x, "", scales,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        x = graph.double(graph.add("Concat", skips.pop(), x, axis=1), decoder)
    x = graph.convolution(x, network.head)
    free = [None] * (network.ndim + 2)
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, free) for end in ("x", x)]
    made = helper.make_graph(graph.nodes, "unet", ends[:1], ends[1:], graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION)
