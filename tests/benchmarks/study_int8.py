"""What int8 is worth on a CPU: `roads` quantised after training, beside bf16 and fp32.

    python tests/benchmarks/study_int8.py --data DATA

DATA is as for study.py: ``SET/<id>_mask.png`` and ``confidence/SET/NETWORK/<id>.png``. ONNX Runtime
quantises the graph statically: weights per channel, features by their least and greatest value on
real tiles of places trained on; scored are places held out. ``--heads`` keeps the heads and the
gates in fp32. Both libraries run it on one thread, in turn with OpenVINO's fp32 and bf16.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from measuring import in_turn, least, machine, script_parser, table, timed
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from geothresh.metrics import Counts, boundary_counts, boundary_distance
from geothresh.nn.backends import OnnxRuntime, OpenVino
from geothresh.nn.modelfile import beside, load_arrays, read_card
from geothresh.nn.onnx_graph import INPUT, threshnet_graph
from geothresh.nn.packaged import find_model
from geothresh.nn.wrappers import smoothed
from geothresh.raster.pairs import read_confidence, read_mask
from geothresh.types import BoolArray, Float32Array

TILE = 512
_OPERATORS = {
    "conv": ["Conv"],
    "more": ["Conv", "Add", "Mul", "Resize", "Concat", "MatMul", "Transpose", "Reshape", "Relu"],
}
Pair = tuple[Float32Array, BoolArray]


class Tiles(CalibrationDataReader):  # type: ignore[misc]  # it comes without types
    """Tiles for the calibration, one at a time."""

    def __init__(self, tiles: list[Float32Array]) -> None:
        self._left = iter(tiles)

    def get_next(self) -> dict[str, Float32Array] | None:
        """The next one; None at the end."""
        tile = next(self._left, None)
        return None if tile is None else {INPUT: tile[None, None]}


def pairs(data: Path, ids: set[str], most: int) -> Iterator[Pair]:
    """Of each set and network, maps of these ids with their masks, spread evenly, cut to a tile."""
    for folder in sorted((data / "confidence").glob("roads-*/*")):
        name = folder.parent.name
        files = sorted(path for path in folder.glob("*.png") if path.stem in ids)
        for file in files[:: max(1, len(files) // most)][:most]:
            confidence, truth = (
                read_confidence(file),
                read_mask(data / name / f"{file.stem}_mask.png"),
            )
            yield confidence[:TILE, :TILE], truth[:TILE, :TILE]


def tile_of(confidence: Float32Array) -> Float32Array:
    """A whole tile, mirrored beyond the map, smoothed as the model's card asks for."""
    height, width = confidence.shape
    padded = np.pad(smoothed(confidence), ((0, TILE - height), (0, TILE - width)), "symmetric")
    return np.ascontiguousarray(padded, np.float32)


def quantised(
    graph: onnx.ModelProto, tiles: list[Float32Array], keep_heads: bool, operators: str
) -> bytes:
    """The graph in int8, with nodes that quantise and dequantise (QDQ)."""
    with tempfile.TemporaryDirectory() as name:
        source, ready, target = (Path(name) / f"{k}.onnx" for k in ("fp32", "ready", "int8"))
        onnx.save(graph, source)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        heads = [
            node.name for node in onnx.load(ready).graph.node
            if node.op_type == "Conv" and _is_single_pixel(node)
        ]  # fmt: skip
        quantize_static(
            ready, target, Tiles(tiles), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=_OPERATORS[operators], activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, nodes_to_exclude=heads if keep_heads else [],
            extra_options={"ActivationSymmetric": False},
        )  # fmt: skip
        return target.read_bytes()


def _is_single_pixel(node: onnx.NodeProto) -> bool:
    """Whether a convolution is 1x1: heads and gates, and little of the work."""
    return any(a.name == "kernel_shape" and list(a.ints) == [1, 1] for a in node.attribute)


def scores(refined: list[Float32Array], truths: list[BoolArray]) -> tuple[float, float]:
    """Mean IoU and mean Boundary IoU over maps cut at 0.5."""
    ious, edges = [], []
    for confidence, truth in zip(refined, truths, strict=True):
        cut = confidence >= 0.5
        ious.append(Counts.of(prediction=cut, target=truth).iou())
        distance = boundary_distance(*truth.shape)
        edges.append(boundary_counts(prediction=cut, target=truth, distance=distance).iou())
    return 100 * float(np.mean(ious)), 100 * float(np.mean(edges))


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--maps", type=int, default=20, help="of each set and network")
    parser.add_argument("--repeat", type=int, default=10, help="rounds of speed")
    parser.add_argument("--heads", action="store_true", help="keep 1x1 convolutions in fp32")
    parser.add_argument("--operators", choices=_OPERATORS, default="conv", help="what is in int8")
    arguments = parser.parse_args()
    print(machine("onnxruntime", "openvino"))
    source = find_model("roads")
    config = read_card(source).config
    graph = threshnet_graph(load_arrays(source, config), config, height=TILE, width=TILE)
    split = json.loads(beside(source, ".split.json").read_text())
    seen = [tile_of(map_) for map_, _ in pairs(arguments.data, set(split["train"]), 4)]
    scored = list(pairs(arguments.data, set(split["validation"]), arguments.maps))
    int8 = quantised(graph, seen, arguments.heads, arguments.operators)
    plain = graph.SerializeToString()
    ways: dict[str, Callable[[Float32Array], Float32Array]] = {
        "OpenVINO fp32": OpenVino("cpu", "fp32", threads=1).compile(plain),
        "OpenVINO bf16": OpenVino("cpu", "bf16", threads=1).compile(plain),
        "OpenVINO int8": OpenVino("cpu", "fp32", threads=1).compile(int8),
        "OpenVINO int8, else bf16": OpenVino("cpu", "bf16", threads=1).compile(int8),
        "ONNX Runtime int8": OnnxRuntime("cpu", "fp32", threads=1).compile(int8),
    }
    batch = seen[0][None, None]
    runs = in_turn(
        {name: partial(timed, partial(way, batch)) for name, way in ways.items()}, arguments.repeat
    )
    usual = least(runs["OpenVINO bf16"]).cpu
    tiles, truths = [tile_of(map_) for map_, _ in scored], [truth for _, truth in scored]
    rows, reference, base = [], None, (0.0, 0.0)
    for name, way in ways.items():
        refined = [
            way(tile[None, None])[0, 0, : truth.shape[0], : truth.shape[1]]
            for tile, truth in zip(tiles, truths, strict=True)
        ]
        found = scores(refined, truths)
        if reference is None:
            reference, base = refined, found
        differ = [
            ((a >= 0.5) != (b >= 0.5)).mean() for a, b in zip(refined, reference, strict=True)
        ]
        took = least(runs[name]).cpu
        rows.append(
            [
                name, f"{took:.3f}", f"{usual / took:.2f}", f"{100 * float(np.mean(differ)):.3f} %",
                f"{found[0] - base[0]:+.2f}", f"{found[1] - base[1]:+.2f}",
            ]
        )  # fmt: skip
    print(f"\n{len(tiles)} maps held out, {len(seen)} others for the calibration\n")
    head = [
        "one thread", "processor s a tile", "as fast as bf16", "mask differs from fp32",
        "miou, points", "Boundary IoU, points",
    ]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
