"""The bench that most cases are laid out on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalogue.bench import Bench


@pytest.fixture(scope="session")
def identity_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of which every correction is nought: what goes in comes out."""
    import torch

    from geothresh.nn.config import NetworkConfig
    from geothresh.nn.modelfile import save_model
    from geothresh.nn.network import ThreshNet

    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16, head="correction")
    path = tmp_path_factory.mktemp("model") / "identity.safetensors"
    save_model(path, tensors=ThreshNet(config).state_dict(), config=config, training={})
    return path


@pytest.fixture
def bench(tmp_path: Path, identity_model: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An empty current directory, and a model."""
    monkeypatch.chdir(tmp_path)
    return Bench(place=tmp_path, model=identity_model)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """An open directory of the user nobody, who runs the test; root could read everything."""
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        os.setresuid(65534, 65534, 0)
        try:
            yield Path(folder)
        finally:
            os.setresuid(0, 0, 0)
