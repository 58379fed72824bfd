"""Build ThreshNet as an ONNX graph.

The graph is built node by node instead of traced. That takes a tenth of a second, needs only the
package onnx, and folds the batch norms. torch's exporter would take 15 s in every worker process.
The tests compare the graph with `geothresh.nn.network.ThreshNet.refine` for every kind of network.

Shape letters are those of `geothresh.nn.network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geothresh._version import __version__
from geothresh.nn.config import LOGIT_MARGIN, NetworkConfig
from geothresh.nn.device import require_whole_patches

if TYPE_CHECKING:
    from onnx import ModelProto

Weights = Mapping[str, NDArray[np.float32]]
"""Name -> array, as in a model file."""

#: Version of the operators: the newest that ONNX 1.12 (2022) supports.
OPSET = 17
#: Version of the file format that goes with these operators.
_IR_VERSION = 8

INPUT = "confidence"
OUTPUT = "refined"

# The default of torch.nn.BatchNorm2d.
_EPSILON = 1e-5
# Transpositions of six axes for fold and unfold of `geothresh.nn.network`.
_FOLD = (0, 2, 4, 1, 3, 5)
_UNFOLD = (0, 3, 1, 4, 2, 5)


def threshnet_graph(
    weights: Weights, config: NetworkConfig, *, height: int, width: int, **metadata: str
) -> ModelProto:
    """The ONNX graph of ``ThreshNet.refine`` with folded batch norms, for tiles of one size.

    Its input ``confidence`` and its output ``refined`` are (B, 1, height, width) float32 in [0, 1];
    B is free.

    Args:
        weights: weights of the whole network.
        config: sizes of the network.
        height: rows of a tile, a multiple of the patch.
        width: columns of a tile, a multiple of the patch.
        metadata: properties to store in the ONNX model.

    Raises:
        ModelError: the tile is not a multiple of the patch.
    """
    from onnx import TensorProto, helper

    require_whole_patches((1, height, width), config.patch)
    graph = _Graph(weights)
    _network(graph, config, height, width)
    shape: list[str | int | None] = ["batch", 1, height, width]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "threshnet",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
            graph.constants,
        ),
        producer_name="geothresh",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, metadata)
    return model


class _Graph:
    """Builder of an ONNX graph: each method adds nodes and returns the name of their output."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._weights = weights

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: NDArray[Any] | float) -> str:
        from onnx import numpy_helper

        if isinstance(values, float):
            values = np.array(values, np.float32)
        name = f"constant_{len(self.constants)}"
        # ascontiguousarray would make a scalar one-dimensional.
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def conv_norm(self, x: str, name: str, *, stride: int = 1) -> str:
        """A convolution with its batch norm folded in."""
        norm = {
            part: self._weights[f"{name}.1.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
        kernel = self._weights[f"{name}.0.weight"] * scale[:, None, None, None]
        bias = norm["bias"] - norm["running_mean"] * scale
        return self._conv(x, kernel, bias, stride)

    def conv(self, x: str, name: str) -> str:
        return self._conv(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], 1)

    def _conv(self, x: str, kernel: NDArray[Any], bias: NDArray[Any], stride: int) -> str:
        size = kernel.shape[-1]
        weights = [self.constant(values.astype(np.float32)) for values in (kernel, bias)]
        return self.add(
            "Conv", x, *weights, kernel_shape=[size, size], strides=[stride, stride],
            pads=[size // 2] * 4,
        )  # fmt: skip

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def concat(self, *parts: str) -> str:
        return self.add("Concat", *parts, axis=1)

    def doubled(self, x: str) -> str:
        """Bilinear upsampling by 2, as torch's with align_corners=False."""
        # The second input, for regions of interest, is left empty.
        return self.add(
            "Resize", x, "", self.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear",
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    def resampled(self, x: str, rows: NDArray[np.float32], cols: NDArray[np.float32]) -> str:
        """Each map X of (B, C, H, W) as rows @ X @ cols.T."""
        return self.add("MatMul", self.add("MatMul", self.constant(rows), x), self.constant(cols.T))

    def reshaped(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant(np.array(shape, np.int64)))


def _network(graph: _Graph, config: NetworkConfig, height: int, width: int) -> None:
    s = config.shuffle
    x = INPUT if s == 1 else graph.add("SpaceToDepth", INPUT, blocksize=s)
    x = graph.add("Sub", graph.add("Mul", x, graph.constant(2.0)), graph.constant(1.0))
    x = graph.relu(graph.conv_norm(x, "stem"))
    skips = []
    for level, n_blocks in enumerate(config.blocks):
        for block in range(n_blocks):
            narrows = block == 0 and level > 0
            changes = narrows or (block == 0 and config.widths[0] != config.widths[level])
            x = _residual(graph, x, f"encoder.{level}.{block}", 2 if narrows else 1, changes)
        skips.append(x)
    deepest = (height // config.multiple, width // config.multiple)
    bottleneck = _pyramid(graph, skips.pop(), config, *deepest)
    branches = [
        _decoder(graph, bottleneck, skips[::-1], config, branch, height // s, width // s)
        for branch in ("global", "local")
        if config.branches in ("both", branch)
    ]
    if s > 1:
        branches = [graph.add("DepthToSpace", x, blocksize=s, mode="CRD") for x in branches]
    if config.head == "correction":
        prior = _logit(graph, INPUT)
        branches = [graph.add("Add", x, prior) for x in branches]
    confidences = [graph.add("Sigmoid", x) for x in branches]
    total = graph.add("Add", *confidences) if len(confidences) > 1 else confidences[0]
    graph.add("Div", total, graph.constant(float(len(confidences))), output=OUTPUT)


def _residual(graph: _Graph, x: str, name: str, stride: int, changes: bool) -> str:
    y = graph.relu(graph.conv_norm(x, f"{name}.conv1", stride=stride))
    y = graph.conv_norm(y, f"{name}.conv2")
    shortcut = graph.conv_norm(x, f"{name}.shortcut", stride=stride) if changes else x
    return graph.relu(graph.add("Add", y, shortcut))


def _pyramid(graph: _Graph, x: str, config: NetworkConfig, height: int, width: int) -> str:
    parts = [x]
    for i, size in enumerate(config.pool_sizes):
        n_rows, n_cols = min(size, height), min(size, width)
        pooled = graph.resampled(x, means(height, n_rows), means(width, n_cols))
        y = graph.relu(graph.conv_norm(pooled, f"pyramid.branches.{i}"))
        parts.append(graph.resampled(y, bilinear(n_rows, height), bilinear(n_cols, width)))
    return graph.relu(graph.conv_norm(graph.concat(*parts), "pyramid.join"))


def _decoder(
    graph: _Graph, x: str, skips: list[str], config: NetworkConfig, branch: str, height: int,
    width: int,
) -> str:  # fmt: skip
    """Logits of one branch, (B, S * S, height, width), the size of level one."""
    n_rows = n_cols = 1
    if branch == "local":
        patch = config.patch // config.shuffle
        n_rows, n_cols = height // patch, width // patch

    def folded(x: str, level: int) -> str:
        """Fold the patches of a map of this level into the batch: `geothresh.nn.network.fold`."""
        if n_rows == n_cols == 1:
            return x
        channels, h, w = config.widths[level], height >> level, width >> level
        x = graph.reshaped(x, -1, channels, n_rows, h // n_rows, n_cols, w // n_cols)
        x = graph.add("Transpose", x, perm=_FOLD)
        return graph.reshaped(x, -1, channels, h // n_rows, w // n_cols)

    name = f"{branch}_decoder"
    deepest = len(config.widths) - 1
    x = folded(x, deepest)
    for i, skip in enumerate(skips):
        x = _decoder_level(graph, x, folded(skip, deepest - 1 - i), f"{name}.levels.{i}")
    x = graph.conv(x, f"{name}.head")
    if n_rows == n_cols == 1:
        return x
    n_out = config.shuffle**2
    x = graph.reshaped(x, -1, n_rows, n_cols, n_out, height // n_rows, width // n_cols)
    x = graph.add("Transpose", x, perm=_UNFOLD)
    return graph.reshaped(x, -1, n_out, height, width)


def _decoder_level(graph: _Graph, x: str, skip: str, name: str) -> str:
    x = graph.relu(graph.conv_norm(graph.doubled(x), f"{name}.up"))
    signal = graph.conv_norm(x, f"{name}.gate.signal")
    gate = graph.relu(graph.add("Add", signal, graph.conv_norm(skip, f"{name}.gate.skip")))
    gate = graph.add("Sigmoid", graph.conv(gate, f"{name}.gate.weight"))
    x = graph.concat(x, graph.add("Mul", skip, gate))
    x = graph.relu(graph.conv_norm(x, f"{name}.conv1"))
    return graph.relu(graph.conv_norm(x, f"{name}.conv2"))


def _logit(graph: _Graph, x: str) -> str:
    low, high = graph.constant(LOGIT_MARGIN), graph.constant(1 - LOGIT_MARGIN)
    x = graph.add("Clip", x, low, high)
    return graph.add("Log", graph.add("Div", x, graph.add("Sub", graph.constant(1.0), x)))


def means(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Matrix (n_out, n_in) of torch's adaptive average pooling along one axis.

    ONNX has no operator for it.
    """
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        start, stop = i * n_in // n_out, -(-(i + 1) * n_in // n_out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix.astype(np.float32)


def bilinear(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Matrix (n_out, n_in) of linear interpolation along one axis (align_corners=False).

    ONNX's own operator takes a factor, from which it computes n_out by rounding.
    """
    centre = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    distance = np.abs(centre[:, None] - np.arange(n_in))
    matrix: NDArray[np.float64] = np.maximum(0, 1 - distance)
    return matrix.astype(np.float32)
