"""No file that is given as a model, or lies where a training left its state, runs any code."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geothresh.cli import main
from geothresh.errors import ModelError
from geothresh.training.state import optimizer_tensors, restore_optimizer
from tests.support.cli_runner import runner
from tests.support.imagery import image_set
from tests.support.rasters import write_raster
from tests.support.roads import make_roads

pytestmark = pytest.mark.catalogue(101)


class Bomb:
    """Makes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.canary,)


def raw(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb))


def old_protocol(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb, protocol=0))


def torch_zip(path: Path, bomb: Bomb) -> None:
    torch.save(bomb, path)


def torch_legacy(path: Path, bomb: Bomb) -> None:
    torch.save({"weights": bomb}, path, _use_new_zipfile_serialization=False)


def state_dict(path: Path, bomb: Bomb) -> None:
    """What looks like weights, with a bomb beside them."""
    torch.save({"model": {"stem.0.weight": torch.zeros(2, 2)}, "optimizer": bomb}, path)


def torch_script(path: Path, bomb: Bomb) -> None:
    """An archive as TorchScript makes it, with a pickle of constants."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/version", "3\n")
        archive.writestr("x/code/__torch__.py", "raise SystemExit\n")
        for name in ("x/data.pkl", "x/constants.pkl"):
            archive.writestr(name, pickle.dumps(bomb))


def in_metadata(path: Path, bomb: Bomb) -> None:
    """True safetensors, with pickles for all that its metadata and tensors hold."""
    text = pickle.dumps(bomb, protocol=0).decode("latin-1")
    metadata = {"format": "geothresh-threshnet", "format_version": "1", "config": text}
    body = torch.frombuffer(bytearray(pickle.dumps(bomb)), dtype=torch.uint8)
    save_file({"stem.0.weight": body}, path, metadata={**metadata, "training": text})


def numpy_object(path: Path, bomb: Bomb) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([bomb], object), allow_pickle=True)


KINDS: list[Callable[[Path, Bomb], None]] = [
    raw, old_protocol, torch_zip, torch_legacy, state_dict, torch_script, in_metadata, numpy_object,
]  # fmt: skip


def test_the_bombs_go_off_where_they_are_unpickled(tmp_path: Path) -> None:
    """Or else their silence below would mean nothing."""
    canary = tmp_path / "canary"
    for make in (raw, torch_zip, torch_legacy, state_dict):
        make(tmp_path / "x", Bomb(canary))
        if make is raw:
            pickle.loads((tmp_path / "x").read_bytes())
        else:
            torch.load(tmp_path / "x", weights_only=False)
        assert canary.exists()
        canary.unlink()


COMMANDS = {
    "refine": "refine x.tif -m {}",
    "refine on workers": "refine x.tif --workers 1 -m {}",
    "train --init": "train roads --confidence net1 --confidence net2 -o t.safetensors --init {}",
    "base predict": "base predict i.tif -m {}",
    "evaluate": "evaluate x.tif --mask x.tif -m {}",
    "model show": "model show {}",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data on which each command would work, were the model one."""
    folder = tmp_path_factory.mktemp("place")
    make_roads(folder)
    values = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    write_raster(folder / "x.tif", values)
    image = np.zeros((3, 64, 64), np.uint8)
    write_raster(folder / "i.tif", image, photometric="RGB")
    return folder


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_unpickles_a_model(
    command: str, ending: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = sorted(file.name for file in place.iterdir())
    model, canary = tmp_path / f"m{ending}", tmp_path / "canary"
    for make in KINDS:
        make(model, Bomb(canary))
        result = runner().invoke(main, COMMANDS[command].format(model).split())
        assert result.exit_code == 5, (make.__name__, result.stderr)
        lines = result.stderr.splitlines()
        assert [line for line in lines if line.startswith("Error: ")] == lines[-1:]
        assert not canary.exists(), make.__name__
    assert sorted(file.name for file in place.iterdir()) == before


def test_no_resumed_training_unpickles_its_state(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    canary = tmp_path / "canary"
    ids = sorted(f.name.removesuffix("_mask.png") for f in (place / "roads").glob("*_mask.png"))
    (tmp_path / "m.split.json").write_text(json.dumps({"train": ids[1:], "validation": ids[:1]}))
    for make in KINDS:
        make(tmp_path / "m.state.safetensors", Bomb(canary))
        command = f"train roads --confidence net1 --confidence net2 -o {tmp_path}/m.safetensors"
        result = runner().invoke(main, [*command.split(), "--resume", "--chip-size", "64"])
        assert result.exit_code == 5, (make.__name__, result.stderr)
        assert not canary.exists(), make.__name__


def test_no_resumed_training_of_a_base_network_unpickles_its_state(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = image_set(tmp_path / "data", 4)
    for make in KINDS:
        make(tmp_path / "m.state.safetensors", Bomb(canary))
        command = f"base train {data} -o {tmp_path}/m.safetensors --steps 1 --resume"
        result = runner().invoke(main, command.split())
        assert result.exit_code in (2, 5), (make.__name__, result.stderr)
        assert not canary.exists(), make.__name__


@pytest.mark.parametrize(
    ("tensors", "groups"),
    [
        ({"optimizer.0.exp_avg": torch.zeros(3)}, None),
        ({"optimizer.7.exp_avg": torch.zeros(2, 2)}, None),
        ({"optimizer.x.exp_avg": torch.zeros(2, 2)}, None),
        ({"optimizer.0": torch.zeros(2, 2)}, None),
        ({}, "groups"),
        ({}, []),
        ({}, [{"lr": 1.0}]),
        ({}, [{"lr": 1.0, "params": [0, 1]}]),
        ({}, None),
    ],
)
def test_the_state_of_an_optimiser_is_not_trusted(
    tensors: dict[str, torch.Tensor], groups: object, tmp_path: Path
) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    path = tmp_path / "x.state.safetensors"
    save_file({**optimizer_tensors(optimizer), **tensors}, path)
    given = optimizer.state_dict()["param_groups"] if groups is None else groups
    if not tensors and groups is None:
        restore_optimizer(optimizer, path, given)
        return
    with pytest.raises(ModelError, match="damaged"):
        restore_optimizer(optimizer, path, given)
