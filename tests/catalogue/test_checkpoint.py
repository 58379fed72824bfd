"""99-106: models that cannot be used: exit code 5. 101 stands in ``tests/nn/test_checkpoint``."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import save_model
from geothresh.nn.network import ThreshNet
from tests.catalogue.bench import Bench
from tests.support.rasters import write_raster

CONFIG = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16, head="correction")
MODEL = Path("model.safetensors")


@pytest.fixture
def scene(bench: Bench) -> Path:
    return write_raster(Path("x.tif"), np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30))


def saved(**tensors: torch.Tensor | None) -> None:
    """A model file, some of whose tensors are others or (None) not there."""
    weights = {**ThreshNet(CONFIG).state_dict(), **tensors}
    held = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_model(MODEL, tensors=held, config=CONFIG, training={})


def described(**changes: object) -> None:
    """A model file whose configuration says something else than its tensors."""
    saved()
    with MODEL.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        metadata = json.loads(file.read(size))["__metadata__"]
    metadata["config"] = json.dumps({**CONFIG.as_dict(), **changes})
    save_file(load_file(MODEL), MODEL, metadata=metadata)


def refused(bench: Bench, text: str, *options: object) -> None:
    bench.refine_refused(5, text, "x.tif", "-m", MODEL, *options)


@pytest.mark.catalogue(99)
@pytest.mark.parametrize("make", [lambda: None, MODEL.mkdir, lambda: MODEL.symlink_to("gone")])
def test_no_model_there(bench: Bench, scene: Path, make: Callable[[], object]) -> None:
    make()
    refused(bench, "no such model file, nor a packaged model (there: ")


def cut(part: float) -> Callable[[], object]:
    def make() -> None:
        saved()
        content = MODEL.read_bytes()
        MODEL.write_bytes(content[: int(len(content) * part)])

    return make


@pytest.mark.catalogue(100)
@pytest.mark.parametrize(
    "make",
    [
        lambda: MODEL.write_bytes(b""),
        lambda: MODEL.write_text("a model, said the file"),
        lambda: MODEL.write_bytes(np.random.default_rng(0).bytes(10_000)),
        cut(0.1),
        cut(0.5),
        cut(0.999),
    ],
    ids=["empty", "text", "random", "10 %", "50 %", "99.9 %"],
)
def test_no_model_in_it(bench: Bench, scene: Path, make: Callable[[], object]) -> None:
    make()
    refused(bench, "model.safetensors: ")


@pytest.mark.catalogue(102)
@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**40, 2**31])
def test_a_header_without_end(bench: Bench, scene: Path, size: int) -> None:
    MODEL.write_bytes(struct.pack("<Q", size) + b'{"__metadata__": {}}' + bytes(1000))
    refused(bench, "model.safetensors: ")


@pytest.mark.catalogue(103)
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: described(head="transformer"), "head is"),
        (lambda: described(widths=[4, 4, 4, 4]), "tensor"),
        (lambda: saved(**{"stem.0.weight": None}), "1 tensor missing"),
        (lambda: saved(**{"extra": torch.zeros(3)}), "1 unknown"),
        (lambda: saved(**{"stem.0.weight": torch.zeros(3, 3)}), "stem.0.weight is"),
    ],
)
def test_another_network(bench: Bench, scene: Path, make: Callable[[], object], text: str) -> None:
    make()
    refused(bench, text)


@pytest.mark.catalogue(104)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(bench: Bench, scene: Path, value: float) -> None:
    weight = ThreshNet(CONFIG).state_dict()["stem.0.weight"].clone()
    weight[0, 0, 0, 0] = value
    saved(**{"stem.0.weight": weight})
    refused(bench, "NaN or infinity")


@pytest.mark.catalogue(105)
@pytest.mark.parametrize("patch", [16, 32, 64])
def test_the_tiles_follow_the_patch_or_are_refused(bench: Bench, scene: Path, patch: int) -> None:
    config = replace(CONFIG, patch=patch)
    save_model(MODEL, tensors=ThreshNet(config).state_dict(), config=config, training={})
    fitting = ("-m", MODEL, "--tile-size", 3 * patch, "--overlap", patch, "--overwrite")
    with_patch = bench.run("refine", "x.tif", "-o", "out.tif", *fitting)
    assert with_patch.exit_code == 0, with_patch.output
    for wrong in (("--tile-size", 3 * patch + 8), ("--overlap", patch // 2)):
        bench.refine_refused(2, f"{patch}", "x.tif", *fitting, *wrong, "-o", "other.tif")


@pytest.mark.catalogue(106)
@pytest.mark.parametrize("patch", [10**12, 2**31, 0, -16, 7])
def test_a_patch_that_cannot_be(bench: Bench, scene: Path, patch: int) -> None:
    described(patch=patch)
    refused(bench, f"patch is {patch}")
