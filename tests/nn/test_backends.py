"""Backends other than torch: the graph is the network, and what they give is what torch gives."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import geothresh
from geothresh.api.arrays import refine_array
from geothresh.api.export import export_onnx
from geothresh.api.models import load_model
from geothresh.cli import main
from geothresh.errors import InputError, ModelError, OutputError, UsageError
from geothresh.mosaic.readers import read_mirrored
from geothresh.nn import backends
from geothresh.nn.config import PRESETS, NetworkConfig
from geothresh.nn.device import pick_dtype
from geothresh.nn.onnx_graph import bilinear, means, threshnet_graph
from geothresh.nn.refiner import ModelSource
from geothresh.nn.shapes import tensor_shapes
from geothresh.nn.transformation import Transformation
from geothresh.nn.wrappers import smoothed
from geothresh.options import Compute, Refining, Tiling
from geothresh.raster.scene import open_scene
from geothresh.tiling import TileGrid
from tests.support.cli_runner import runner
from tests.support.flat import grouped
from tests.support.networks import TINY, network
from tests.support.rasters import write_raster

#: fp32 everywhere, but sums in another order: what a confidence may differ by on trained weights.
FP32 = 1e-5
#: The share of pixels, in percent, that may be on the other side of 0.5.
MASK = 0.1
#: bf16 has 8 bits; single pixels on the edge of a road move by this much.
BF16 = 0.1

EXTRAS = {"onnxruntime": "geothresh[onnx]", "openvino": "geothresh[openvino]"}
Array = NDArray[np.float32]

onnx = pytest.importorskip("onnx", reason="needs geothresh[onnx]")


def needs(backend: str) -> object:
    reason = f"needs {EXTRAS[backend]}"
    return pytest.param(
        backend, marks=pytest.mark.skipif(find_spec(backend) is None, reason=reason)
    )


BACKENDS = [needs("onnxruntime"), needs("openvino")]


def arrays_of(net: torch.nn.Module) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def compiled_tiny(
    backend: str, config: NetworkConfig = TINY, **options: object
) -> backends.CompiledRefiner:
    options = {"device": "cpu", "precision": "fp32", **options}
    return backends.CompiledRefiner(arrays_of(network(config)), config, backend=backend, **options)


def refined_by_torch(config: NetworkConfig, tiles: Array) -> Array:
    with torch.no_grad():
        return network(config).refine(torch.from_numpy(tiles)[:, None])[:, 0].numpy()


def off_edge(n: int, side: int, width: int | None = None) -> Array:
    """Tiles of confidences, 0 and 1 among them."""
    values = np.random.default_rng(1).random((n, side, width or side), np.float32) * 1.2 - 0.1
    return np.clip(values, 0, 1)


KINDS = {
    "paper": TINY,
    "correction": dataclasses.replace(TINY, head="correction"),
    "global": dataclasses.replace(TINY, branches="global"),
    "local": dataclasses.replace(TINY, branches="local", head="correction"),
    "shuffle": dataclasses.replace(TINY, shuffle=4, patch=32, head="correction"),
    "narrow": dataclasses.replace(TINY, widths=(6, 5, 5, 3), blocks=(2, 1, 3, 2), patch=16),
    "pools": dataclasses.replace(TINY, pool_sizes=(3, 5, 64)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_is_torchs(backend: str, kind: str) -> None:
    config = KINDS[kind]
    # 3 patches beside one another: pooling cells that share pixels. A zero head corrects nothing.
    net, tiles = network(config), off_edge(2, 192)
    for decoder in net.decoders():
        torch.nn.init.normal_(decoder.head.weight, std=10)
    refiner = backends.CompiledRefiner(
        arrays_of(net), config, backend=backend, device="cpu", precision="fp32"
    )
    with torch.no_grad():
        expected = net.refine(torch.from_numpy(tiles)[:, None])[:, 0].numpy()
    assert expected.std() > 0.02
    np.testing.assert_allclose(refiner(tiles), expected, rtol=0, atol=FP32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_of_a_network_are_known_without_torch(kind: str) -> None:
    tensors = network(KINDS[kind]).state_dict()
    assert tensor_shapes(KINDS[kind]) == {name: tuple(t.shape) for name, t in tensors.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_refining_does_not_wait_for_torch(backend: str, tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", off_edge(1, 64)[0])
    code = (
        "import sys; from geothresh.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'torch', 'distributed', 'geopandas'} & set(sys.modules)"
    )
    arguments = ["refine", scene, "-m", tiny_model, "--tile-size", "64", "--overlap", "32"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), "--backend", backend],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiles_of_any_number_and_size(backend: str) -> None:
    refiner = compiled_tiny(backend, batch_size=2)
    for tiles in (off_edge(5, 128), off_edge(1, 64), off_edge(1, 64, 192), off_edge(3, 128)):
        np.testing.assert_allclose(refiner(tiles), refined_by_torch(TINY, tiles), rtol=0, atol=FP32)
    tiles = off_edge(4, 64)
    before = tiles.copy()
    first, alone = refiner(tiles), refiner(tiles[2:3])
    # Neither the input nor what an earlier call gave is written to.
    assert (tiles == before).all()
    np.testing.assert_allclose(first[2:3], alone, rtol=0, atol=1e-6)
    assert refiner.batch_size == 2
    with pytest.raises(ModelError, match="patch 64"):
        refiner(off_edge(1, 96))


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_wait_for_one_another(backend: str) -> None:
    refiner = compiled_tiny(backend)
    tiles = [off_edge(1, 128) * (k + 1) / 4 for k in range(4)]
    expected = [refiner(one) for one in tiles]
    got: dict[int, list[Array]] = {}

    def work(k: int) -> None:
        got[k] = [refiner(tiles[k]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((one == expected[k]).all() for k in range(4) for one in got[k])


def demo_tiles(every: int) -> Array:
    """Tiles of the demo scene, as `refine` gives them to the network."""
    path = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"
    with open_scene(path) as scene:
        grid = TileGrid(size=scene.size, tile=512, overlap=128, patch=64)
        places = [(row, col) for row in range(grid.n_rows) for col in range(grid.n_cols)]
        return np.stack([read_mirrored(scene, grid.window(*at))[0] for at in places[::every]])


@cache
def demo_by_torch() -> tuple[Array, Array]:
    """Some tiles of the demo scene, and what torch makes of them in fp32."""
    tiles = demo_tiles(every=6)
    return tiles, load_model("roads", device="cpu", precision="fp32")(tiles)


def compare(got: Array, expected: Array) -> tuple[float, float]:
    """The greatest difference, and the percentage of pixels on the other side of 0.5."""
    return float(np.abs(got - expected).max()), 100 * ((got >= 0.5) != (expected >= 0.5)).mean()


@pytest.mark.parametrize("backend", BACKENDS)
def test_trained_weights_give_the_same_mask(backend: str) -> None:
    tiles, expected = demo_by_torch()
    assert 0.01 < (expected >= 0.5).mean() < 0.5
    refiner = load_model("roads", device="cpu", precision="fp32", backend=backend)
    assert refiner.backend == backend and refiner.name == "roads" and refiner.patch == 64
    difference, flipped = compare(refiner(tiles), expected)
    assert difference < FP32
    assert flipped < MASK


@pytest.mark.skipif(
    pick_dtype("auto", torch.device("cpu")) is not torch.bfloat16,
    reason="this CPU has no instructions for bf16",
)
@pytest.mark.parametrize("backend", ["torch", needs("openvino")])
def test_bf16_gives_nearly_the_same_mask(backend: str) -> None:
    tiles, expected = demo_by_torch()
    refiner = load_model("roads", device="cpu", precision="bf16", backend=backend)
    difference, flipped = compare(refiner(tiles), expected)
    assert difference < BF16
    assert flipped < MASK


@pytest.mark.parametrize("backend", BACKENDS)
def test_refine_says_what_ran_the_model(backend: str, tmp_path: Path, tiny_model: Path) -> None:
    values = off_edge(1, 96)[0]
    scene = write_raster(tmp_path / "scene.tif", values)
    options = ["-m", str(tiny_model), "--tile-size", "64", "--overlap", "32", "--device", "cpu"]
    options += ["--precision", "fp32", "--overwrite", "--json"]
    masks = {}
    for name in ("torch", backend):
        done = runner().invoke(main, ["refine", str(scene), *options, "--backend", name])
        assert done.exit_code == 0, done.output
        with rasterio.open(json.loads(done.stdout)["mask"]) as mask:
            assert mask.tags()["GEOTHRESH_BACKEND"].split()[0] == name
            assert mask.tags()["GEOTHRESH_BACKEND"] == backends.versioned(name)
            masks[name] = mask.read(1)
    assert (masks["torch"] == masks[backend]).mean() > 0.999
    model = {"model": tiny_model, "tile_size": 64, "overlap": 32, "precision": "fp32"}
    by_torch = geothresh.refine_array(values, **grouped(**model))
    refined = geothresh.refine_array(values, **grouped(backend=backend, **model))
    np.testing.assert_allclose(refined, by_torch, rtol=0, atol=FP32)


def test_a_run_is_known_by_its_backend_and_its_version(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geothresh.run import jobs

    seen = []

    def fingerprint(*args: object, **parameters: object) -> dict[str, str]:
        seen.append(parameters["backend"])
        raise UsageError("seen")

    scene = write_raster(tmp_path / "scene.tif", off_edge(1, 64)[0])
    monkeypatch.setattr(jobs, "run_fingerprint", fingerprint)
    installed = [name for name in EXTRAS if find_spec(name) is not None]
    for name in ("torch", *installed):
        for workers in (0, 1):
            with pytest.raises(UsageError, match="seen"):
                geothresh.refine(
                    scene,
                    model=tiny_model,
                    tiling=Tiling(tile_size=64, overlap=32),
                    compute=Compute(backend=name, workers=workers),
                )
    assert seen == [backends.versioned(n) for n in ("torch", *installed) for _ in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", [needs("openvino")])
def test_workers_load_the_backend_themselves(
    backend: str, tmp_path: Path, tiny_model: Path
) -> None:
    values = off_edge(1, 160)[0]
    model = {
        "model": tiny_model, "tile_size": 64, "overlap": 32, "precision": "fp32",
        "backend": backend,
    }  # fmt: skip
    alone = geothresh.refine_array(values, **grouped(**model))
    assert (geothresh.refine_array(values, **grouped(workers=1, **model)) == alone).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_that_runs_out_halves_the_batch(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = compiled_tiny(backend, batch_size=4)
    real = refiner._library.compile

    def small(graph: bytes) -> Callable[[Array], Array]:
        forward = real(graph)

        def limited(tiles: Array) -> Array:
            if len(tiles) > 1:
                raise MemoryError("bad_alloc")
            return forward(tiles)

        return limited

    monkeypatch.setattr(refiner._library, "compile", small)
    tiles = off_edge(4, 64)
    np.testing.assert_allclose(refiner(tiles), refined_by_torch(TINY, tiles), rtol=0, atol=FP32)
    assert refiner.batch_size == 1


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "openvino"])
def test_a_missing_package_is_one_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == package else True)
    hint = r"pip install 'geothresh\[onnx\]'"
    if package != "openvino":
        with pytest.raises(UsageError, match=rf"\({package}\).*{hint}"):
            ModelSource.find("roads", backend="onnxruntime")
    if package != "onnxruntime":
        with pytest.raises(UsageError, match=rf"\({package}\).*'geothresh\[openvino\]'"):
            ModelSource.find("roads", backend="openvino")
    if package == "onnx":
        done = runner().invoke(main, ["model", "export", "roads"])
        assert done.exit_code == 2
        assert "pip install 'geothresh[onnx]'" in done.stderr and done.stderr.count("\n") == 1
    assert ModelSource.find("roads").backend == "torch"


@pytest.mark.parametrize(
    ("backend", "options", "error", "text"),
    [
        ("onnxruntime", {"precision": "bf16"}, UsageError, "fp32 alone"),
        ("onnxruntime", {"precision": "fp16"}, UsageError, "fp32 alone"),
        ("onnxruntime", {"device": "mps"}, UsageError, "'mps'"),
        ("onnxruntime", {"device": "cuda:x"}, UsageError, "'cuda:x'"),
        ("onnxruntime", {"device": "cuda:0"}, InputError, "onnxruntime-gpu"),
        ("onnxruntime", {"batch_size": 0}, UsageError, "`batch_size` 0"),
        ("openvino", {"precision": "fp16"}, UsageError, "needs a GPU"),
        ("openvino", {"device": "cuda"}, UsageError, "'cuda'"),
        ("tensorrt", {}, UsageError, "give torch or onnxruntime or openvino"),
    ],
)
def test_what_a_backend_lacks_is_refused(
    backend: str, options: dict[str, object], error: type[Exception], text: str
) -> None:
    if backend in EXTRAS:
        module = pytest.importorskip(backend, reason=f"needs {EXTRAS[backend]}")
        cuda = options.get("device") == "cuda:0"
        if cuda and "CUDAExecutionProvider" in module.get_available_providers():
            pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(error, match=text):
        load_model("roads", backend=backend, **options)


def test_openvino_refuses_bf16_where_it_would_take_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino", reason="needs geothresh[openvino]")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(UsageError, match="bf16"):
        compiled_tiny("openvino", precision="bf16")


def test_openvino_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs geothresh[openvino]")
    telemetry = pytest.importorskip("openvino_telemetry")

    def made(*_: object, **__: object) -> None:
        raise AssertionError("telemetry")

    monkeypatch.setattr(telemetry.main.Telemetry, "__init__", made)
    compiled_tiny("openvino")(off_edge(1, 64))


@pytest.mark.parametrize(("n_in", "n_out"), [(6, 6), (8, 4), (17, 8), (5, 1), (7, 3)])
def test_the_matrices_pool_and_widen_as_torch_does(n_in: int, n_out: int) -> None:
    x = torch.rand(1, 1, 1, n_in)
    pooled = F.adaptive_avg_pool2d(x, (1, n_out))[0, 0]
    np.testing.assert_allclose(x[0, 0].numpy() @ means(n_in, n_out).T, pooled, atol=1e-6)
    wide = F.interpolate(pooled[None, None], size=(1, n_in), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(pooled.numpy() @ bilinear(n_out, n_in).T, wide[0, 0], atol=1e-6)


def test_the_graph_has_no_norm_left_and_all_that_is_in_the_network() -> None:
    net = network(PRESETS["small"])
    model = threshnet_graph(arrays_of(net), PRESETS["small"], height=512, width=512)
    onnx.checker.check_model(model, full_check=True)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == len(convolutions)
    assert "BatchNormalization" not in operators
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == dict.fromkeys(("confidence", "refined"), ["batch", 1, 512, 512])


def test_an_exported_model_says_where_it_comes_from(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs geothresh[onnx]")
    target = tmp_path / "roads.onnx"
    done = runner().invoke(
        main, ["model", "export", "roads", "--format", "onnx", "-o", str(target),
               "--tile-size", "128", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["output"] == str(target) and result["bytes"] == target.stat().st_size
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", result["opset"])]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    source = ModelSource.find("roads")
    assert properties == {
        "geothresh": geothresh.__version__,
        "model": "roads",
        "model_sha256": source.sha256,
        "patch": "64",
        "tile_size": "128",
        "ground_sample_distance": "[0.8, 2.08]",
    }
    tiles = demo_tiles(every=6)[:, :128, :128]
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (refined,) = session.run(None, {"confidence": tiles[:, None]})
    expected = load_model("roads", device="cpu", precision="fp32")(tiles)
    assert math.isclose(compare(refined[:, 0], expected)[0], 0, abs_tol=FP32)


@pytest.mark.parametrize("name", ["general", "roads"])
def test_an_export_says_what_refine_does_around_the_network(tmp_path: Path, name: str) -> None:
    """With this, a program that runs the file gets what `refine` makes."""
    target = tmp_path / "m.onnx"
    done = runner().invoke(
        main, ["model", "export", name, "-o", str(target), "--tile-size", "64", "--json"]
    )
    told = json.loads(done.stdout)
    scope = load_model(name, device="cpu").scope
    assert (told["smooth"], told["strength"]) == (scope.smooth, scope.strength)
    assert scope.smooth and (scope.strength < 1) == (name == "general")
    done = runner().invoke(main, ["model", "export", name, "-o", str(target), "--overwrite"])
    assert "smooths the logits of each tile first" in done.stderr
    mixed = f"takes {scope.strength:g} x the logit of the output" in done.stderr
    assert mixed == (name == "general")
    tile = np.random.default_rng(0).random((64, 64), np.float32)
    seen = smoothed(tile)
    network = load_model(name, device="cpu", precision="fp32")
    made = Transformation(strength=told["strength"]).mixed(seen, network(seen[None])[0])
    found = refine_array(
        tile, model=name, refining=Refining(resolution="native"),
        tiling=Tiling(tile_size=64, overlap=0), compute=Compute(device="cpu", precision="fp32"),
    )  # fmt: skip
    np.testing.assert_allclose(found, made, atol=1e-5)


def test_an_export_replaces_nothing_unless_told(tmp_path: Path, tiny_model: Path) -> None:
    target = tmp_path / "tiny.onnx"
    first = export_onnx(tiny_model, target, tile_size=64)
    content = target.read_bytes()
    with pytest.raises(OutputError, match="`overwrite"):
        export_onnx(tiny_model, target, tile_size=64)
    target.write_bytes(b"old")
    assert export_onnx(tiny_model, target, tile_size=64, overwrite=True) == first
    assert target.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
    with pytest.raises(UsageError, match="multiple of the model's patch, 16"):
        export_onnx(tiny_model, target, tile_size=100, overwrite=True)
    with pytest.raises(UsageError, match="end in .onnx"):
        export_onnx(tiny_model, tmp_path / "tiny.safetensors")
    assert target.read_bytes() == content
