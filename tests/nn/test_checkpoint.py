"""Model files: what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geothresh.api.models import load_model
from geothresh.errors import ModelError, OutputError
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import digest, load_arrays, load_weights, read_card, save_model
from geothresh.nn.network import ThreshNet
from geothresh.nn.packaged import find_model
from geothresh.nn.refiner import ModelSource

TINY = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16, shuffle=2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_model(
        path,
        tensors=ThreshNet(TINY).state_dict(),
        config=TINY,
        training={"epoch": 3, "loss": float("nan"), "data": {"sha256": "ab"}},
    )
    return path


def rewritten(path: Path, *, tensors=None, **metadata: str) -> Path:
    """The same file with some tensors or metadata replaced."""
    with path.open("rb") as file:
        (n,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n))
    save_file(tensors or load_file(path), path, metadata={**header["__metadata__"], **metadata})
    return path


def test_the_file_alone_rebuilds_its_network(model: Path) -> None:
    card = read_card(model)
    assert card.config == TINY
    assert card.training == {"epoch": 3, "loss": None, "data": {"sha256": "ab"}}
    torch.manual_seed(0)
    expected = ThreshNet(TINY).state_dict()
    weights = load_weights(model, card.config)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_a_model_is_read_without_torch_too(model: Path) -> None:
    weights, arrays = load_weights(model, TINY), load_arrays(model, TINY)
    assert weights.keys() == arrays.keys()
    for name, tensor in weights.items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())
    halved = {name: tensor.bfloat16() for name, tensor in load_file(model).items()}
    with pytest.raises(ModelError, match="bfloat16"):
        load_arrays(rewritten(model, tensors=halved), TINY)


def test_a_model_has_the_permissions_of_any_new_file(model: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert model.stat().st_mode == plain.stat().st_mode


def test_a_saved_model_refines_as_the_network_does(model: Path) -> None:
    refiner = load_model(model, device="cpu", precision="fp32")
    assert (refiner.name, refiner.digest) == ("tiny", digest(model))
    tiles = np.random.default_rng(0).random((2, 64, 64), np.float32)
    torch.manual_seed(0)
    net = ThreshNet(TINY).eval()
    with torch.no_grad():
        expected = net.refine(torch.from_numpy(tiles)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(refiner(tiles), expected, atol=1e-6)


def test_a_source_is_small_hashable_and_checks_the_file(model: Path) -> None:
    source = ModelSource.find(model)
    assert hash(source) == hash(ModelSource.find(model))
    assert len(pickle.dumps(source)) < 1000
    rewritten(model, training='{"epoch": 4}')
    with pytest.raises(ModelError, match="changed"):
        source.load()


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        find_model("atlantis")
    with pytest.raises(ModelError, match="no such model file"):
        find_model(tmp_path)


def test_a_model_that_goes_away_or_is_a_pipe_is_refused(model: Path, tmp_path: Path) -> None:
    source = ModelSource.find(model)
    model.unlink()
    with pytest.raises(ModelError, match="cannot read the model"):
        source.load()
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ModelError, match="0 bytes are no model"):
        read_card(tmp_path / "pipe.safetensors")


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        b"<html><body>404</body></html>",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        struct.pack("<Q", 20) + b'{"__metadata__":null}',
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and "x.safetensors" in str(caught.value)


@pytest.mark.catalogue(101)
@pytest.mark.parametrize("protocol", [0, 5])
def test_pickles_are_not_run(tmp_path: Path, protocol: int) -> None:
    canary, path = tmp_path / "canary", tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(Bomb(canary), protocol=protocol))
    with pytest.raises(ModelError):
        load_model(path)
    torch.save({"optimizer": Bomb(canary)}, path)
    with pytest.raises(ModelError):
        load_model(path)
    assert not canary.exists()


def test_truncated_files_are_refused(model: Path) -> None:
    whole = model.read_bytes()
    for share in (0.1, 0.5, 0.99):
        model.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelError):
            load_model(model)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "other"}, "not a geothresh model"),
        ({"format_version": "99"}, "model format 99"),
        ({"config": "{}"}, "configuration"),
        ({"config": "5"}, "config, which is no JSON object"),
        ({"config": '[1, "a"]'}, "config, which is no JSON object"),
        ({"training": "[]"}, "training, which is no JSON object"),
        ({"config": json.dumps({**TINY.as_dict(), "patch": 10**12})}, "patch is 1000000000000"),
        ({"config": json.dumps({**TINY.as_dict(), "head": "__import__('os')"})}, "head is"),
        ({"config": json.dumps({**TINY.as_dict(), "widths": [2, 2, 2, 4]})}, "tensor"),
        ({"config": json.dumps({**TINY.as_dict(), "widths": 2})}, "not a list of whole numbers"),
        ({"config": json.dumps({**TINY.as_dict(), "pool_sizes": 1})}, "not a list of whole"),
        ({"config": json.dumps({**TINY.as_dict(), "shuffle": [2]})}, "not a whole number"),
        ({"config": json.dumps({**TINY.as_dict(), "patch": 16.0})}, "not a whole number"),
        ({"training": "not json"}, "not a geothresh model"),
        ({"training": '{"strength": 7}'}, "strength 7"),
        ({"training": '{"ground_sample_distance": 7}'}, "ground_sample_distance is 7"),
    ],
)
def test_metadata_is_not_trusted(model: Path, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(rewritten(model, **metadata))
    assert str(caught.value).startswith(f"{model}: ")


def test_an_infinite_version_is_no_version(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    header = b'{"__metadata__":{"format":"geothresh-threshnet","format_version":Infinity}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelError, match="not a geothresh model"):
        read_card(path)


def test_damaged_tensors_are_refused(model: Path) -> None:
    tensors = load_file(model)
    name = "stem.0.weight"
    for value in (float("nan"), float("inf")):
        broken = {**tensors, name: torch.full_like(tensors[name], value)}
        with pytest.raises(ModelError, match="NaN or infinity"):
            load_model(rewritten(model, tensors=broken))
    with pytest.raises(ModelError, match="stem.0.weight is"):
        load_model(rewritten(model, tensors={**tensors, name: torch.zeros(1)}))
    lacking = {k: v for k, v in tensors.items() if k != name}
    with pytest.raises(ModelError, match="1 tensor missing"):
        load_model(rewritten(model, tensors=lacking))
    with pytest.raises(ModelError, match="1 unknown"):
        load_model(rewritten(model, tensors={**tensors, "more": torch.zeros(1)}))


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_model(tmp_path / "no" / "x.safetensors", tensors={}, config=TINY, training={})
    assert list(tmp_path.iterdir()) == []
