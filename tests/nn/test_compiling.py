"""The network by `torch.compile`: when, for how many shapes, and how near to the plain pass."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch._inductor import config as inductor

import geothresh
from geothresh.api.models import load_model
from geothresh.errors import UsageError
from geothresh.nn import compiling
from geothresh.nn.compiling import PAYS_FROM, pays
from geothresh.nn.config import PRESETS, NetworkConfig
from geothresh.nn.cuda import recorded_size
from geothresh.nn.refiner import ModelSource, TorchRefiner
from geothresh.options import Compute, Tiling
from geothresh.run import models
from geothresh.run.models import ChosenModel, choose_model
from geothresh.windows import RasterSize
from tests.support.fakes import IdentityRefiner
from tests.support.networks import network, write_model
from tests.support.rasters import write_raster

WIDE = NetworkConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), patch=16)
LARGE = RasterSize(height=80_000, width=80_000)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a GPU and a compiler, as far as models are chosen; nothing runs on it."""
    monkeypatch.setattr(models, "resolved", lambda *asked: ("cuda", "bf16"))
    monkeypatch.setattr(models, "lacking_compiler", lambda device: None)
    return monkeypatch


def chosen(model: Path, size: RasterSize | None = LARGE, compile: str = "auto") -> ChosenModel:
    """By workers' processes, so that no model is loaded here."""
    return choose_model(model, Compute(workers=1, compile=compile), size=size)


def test_auto_compiles_large_networks_for_many_tiles_on_cuda_alone() -> None:
    full, small = PRESETS["full"], PRESETS["small"]
    assert pays(full, device=lambda: "cuda", n_tiles=PAYS_FROM)
    assert not pays(full, device=lambda: "cuda", n_tiles=PAYS_FROM - 1)
    assert not pays(full, device=lambda: "cpu", n_tiles=PAYS_FROM)
    assert not pays(small, device=lambda: "cuda", n_tiles=PAYS_FROM)


@pytest.mark.usefixtures("gpu")
def test_the_raster_decides_whether_auto_compiles_and_the_run_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_model(tmp_path / "model.safetensors")
    tiles = chosen(model).grid(LARGE, Tiling()).n_tiles
    assert tiles >= PAYS_FROM
    with caplog.at_level(logging.INFO, logger="geothresh"):
        compiled = chosen(model)
    assert compiled.described()["compiled"] == "yes"
    assert f"compile auto: compiled; {tiles} tiles" in caplog.text
    assert isinstance(compiled.refiner, ModelSource) and compiled.refiner.compiled
    for plain in (
        chosen(model, RasterSize(height=8_000, width=8_000)),
        chosen(model, None),
        chosen(model, compile="no"),
    ):
        assert "compiled" not in plain.described()
        assert isinstance(plain.refiner, ModelSource) and not plain.refiner.compiled


def test_auto_without_a_compiler_runs_the_plain_pass_and_says_why(
    tmp_path: Path, gpu: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.setattr(models, "lacking_compiler", lambda device: f"no compiler for {device}")
    with caplog.at_level(logging.INFO, logger="geothresh"):
        plain = chosen(write_model(tmp_path / "model.safetensors"))
    assert not plain.compiled
    assert "compile auto: not compiled (no compiler for cuda)" in caplog.text


def test_yes_without_a_compiler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "lacking_compiler", lambda device: "no g++")
    with pytest.raises(UsageError, match=r"`compile=yes`.*cpu here \(no g\+\+\); install"):
        load_model("roads", device="cpu", compiled=True)


def test_a_compiler_that_is_not_there_is_named_by_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiling.lacking_compiler.cache_clear()
    with inductor.patch({"cpp.cxx": (str(tmp_path / "absent"),)}):
        reason = compiling.lacking_compiler("cpu")
    compiling.lacking_compiler.cache_clear()
    torch.compiler.reset()
    assert reason is not None and "compiler" in reason.lower() and "\n" not in reason


def test_errors_of_the_compiler_are_told_from_those_of_memory() -> None:
    with (
        pytest.raises(UsageError, match=r"\(it is broken\)"),
        compiling.compiler_errors_reported("cpu"),
    ):
        raise RuntimeError("it is broken.\n\n  line 3")
    with (
        pytest.raises(RuntimeError, match="can't allocate memory"),
        compiling.compiler_errors_reported("cpu"),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_another_library_is_not_compiled_by_torch() -> None:
    with pytest.raises(UsageError, match="torch alone compiles"):
        Compute(compile="yes", backend="openvino")
    with pytest.raises(UsageError, match="torch alone compiles"):
        load_model("roads", backend="openvino", compiled=True)


def test_what_cannot_be_compiled_is_not_run_plainly_where_that_is_asked_for() -> None:
    yes = Compute(compile="yes", device="cpu")
    for model in (
        IdentityRefiner(),
        load_model("roads", device="cpu"),
        ModelSource.find("roads", backend="openvino"),
    ):
        with pytest.raises(UsageError, match="`compile=yes`: is for the name or the file"):
            choose_model(model, yes)


def test_a_compiled_network_is_recorded_in_one_size() -> None:
    assert [recorded_size(n, most=16, compiled=True) for n in (1, 2, 7, 16)] == [16] * 4
    assert [recorded_size(n, most=16) for n in (1, 2, 7, 16)] == [1, 2, 8, 16]


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_and_is_compiled_for_one_batch_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = network(WIDE).state_dict()
    made = [
        TorchRefiner(weights, WIDE, device="cpu", precision="fp32", batch_size=3) for _ in range(2)
    ]
    plain, compiled = made
    compiled.compile()
    asked: list[int] = []
    refine = compiled.network.refine

    def watched(batch: torch.Tensor) -> torch.Tensor:
        asked.append(len(batch))
        return refine(batch)

    monkeypatch.setattr(compiled.network, "refine", watched)
    torch._dynamo.utils.counters.clear()
    tiles = np.random.default_rng(0).random((5, 64, 64), np.float32)
    refined, expected = compiled(tiles), plain(tiles)
    assert refined.shape == expected.shape and asked == [3, 3]
    np.testing.assert_allclose(refined, expected, atol=1e-5)
    # A tile alone, a whole batch and the rest of one give the same, to the last bit.
    np.testing.assert_array_equal(compiled(tiles[4:]), refined[4:])
    np.testing.assert_array_equal(compiled(tiles[:3]), refined[:3])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_refine_by_a_compiled_network_differs_in_less_than_a_thousandth_of_the_mask(
    tmp_path: Path,
) -> None:
    scene = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"
    with rasterio.open(scene) as source:
        values = source.read(1, window=((0, 900), (0, 900)))
        small = write_raster(tmp_path / "scene.tif", values, nodata=source.nodata)
    masks = {}
    for compile in ("no", "yes"):
        out = tmp_path / f"{compile}.tif"
        geothresh.refine(
            small,
            out,
            model="roads-tiny",
            tiling=Tiling(tile_size=256),
            compute=Compute(device="cpu", compile=compile),
        )
        with rasterio.open(out) as mask:
            masks[compile] = mask.read(1)
            assert mask.tags().get("GEOTHRESH_COMPILED", "no") == compile
    assert (masks["no"] == 1).any()
    assert (masks["no"] != masks["yes"]).mean() < 0.001


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason="needs a CPU with AVX-512, which can be told to leave it alone",
)
def test_kernels_for_shorter_vectors_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    """They would be built again for longer ones, and write past the ends of their arrays."""
    code = "from geothresh.nn.compiling import require_compiler; require_compiler('cpu')"

    def kernels(**environment: str) -> set[str]:
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **environment},
            check=True,
        )
        sources = [path.read_text() for path in tmp_path.rglob("*.cpp")]
        return {text.split("Python bindings")[0] for text in sources if "loadu(" in text}

    short = kernels(ATEN_CPU_CAPABILITY="avx2")
    (long,) = kernels() - short
    assert len(short) == 1 and "static_cast<int64_t>(16)" in long
