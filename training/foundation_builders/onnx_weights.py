"""Reader of the int8 ONNX files that onnxruntime's dynamic quantisation writes."""

from collections.abc import Iterator

import numpy as np
import torch

from speechverse.training.foundation_builders.errors import FoundationError


class OnnxWeights:
    """The weights of one ONNX graph.

    Args:
        blob (`bytes`): Content of the `.onnx` file.

    Attributes:
        arrays (`dict[str, np.ndarray]`): Every initialiser by name. The quantised form of `w` is three of them:
            `w_quantized`, `w_scale` and `w_zero_point`.
    """

    def __init__(self, blob: bytes):
        import onnx  # an optional dependency: only those who build from packages need it

        graph = onnx.load_from_string(blob).graph
        self.nodes = graph.node
        self.arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def tensor(self, name: str) -> torch.Tensor:
        """A float initialiser."""
        return torch.from_numpy(self.arrays[name].copy())

    def dequantised(self, name: str) -> torch.Tensor:
        """`(quantised - zero point) * scale` in float32.

        Args:
            name (`str`): Name of the quantised initialiser, with its `_quantized`.

        Raises:
            FoundationError: If there is more than one scale: the files read here have one for each tensor.
        """
        base = name.removesuffix("_quantized")
        scale = self.arrays[base + "_scale"].astype(np.float32)
        zero_point = self.arrays[base + "_zero_point"].astype(np.int32)
        if scale.size != 1:
            raise FoundationError(f"The ONNX weight {base} has {scale.size} scales; only one per tensor can be read.")
        return torch.from_numpy((self.arrays[name].astype(np.int32) - zero_point).astype(np.float32) * scale)

    def linear_layers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and weight `(out_features, in_features)` of every quantised linear layer.

        The initialisers themselves are anonymous (`onnx::MatMul_1493`); the node that multiplies by one is named after
        its module: `layers.0/self_attn/q_proj`.
        """
        for node in self.nodes:
            if node.op_type == "MatMulInteger" and node.input[1] in self.arrays:
                weight = self.dequantised(node.input[1])  # (in_features, out_features), as MatMul wants it
                yield node.name.strip("/").removesuffix("/MatMul_quant"), weight.T
