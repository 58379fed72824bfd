"""Hypothesis profiles and rasters that several test modules share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from rasterio.transform import Affine

from tests.support.rasters import coordinate_array, write_raster

# A law that a test gives no number of examples is tried on so many.
settings.register_profile(
    "ci",
    max_examples=30,
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search", parent=settings.get_profile("ci"), derandomize=False, max_examples=300
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """What a test starts heeds signals, as in a terminal.

    A shell ignores SIGINT in what it starts in the background, and nohup SIGHUP; programs started
    by the test run would inherit that. A handler that does nothing is inherited as the default.
    """
    ignored = [
        number
        for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM))
        if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, lambda number, frame: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def rotated_transform() -> Affine:
    """A pixel grid turned by 33 degrees, with oblong pixels: no symmetry hides a swap."""
    return (
        Affine.translation(431_234.5, 5_812_345.25) @ Affine.rotation(33) @ Affine.scale(0.5, -0.7)
    )


@pytest.fixture
def coordinate_raster(
    tmp_path: Path, rotated_transform: Affine
) -> Callable[[int, int], tuple[Path, NDArray[np.float32]]]:
    """Writes a float32 GeoTIFF of given height and width whose values encode row and column."""

    def write(height: int, width: int) -> tuple[Path, NDArray[np.float32]]:
        values = coordinate_array(height, width)
        path = tmp_path / f"coordinates_{height}x{width}.tif"
        return write_raster(path, values, transform=rotated_transform), values

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with random weights and patch 16."""
    from tests.support.networks import write_model

    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that name no network train one of a few milliseconds a step, for small."""
    from geothresh.nn.config import PRESETS, NetworkConfig

    tiny = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), shuffle=4)
    monkeypatch.setitem(PRESETS, "small", tiny)


@pytest.fixture(scope="session")
def half_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_model`, and said to be trained at half a metre to one."""
    from tests.support.networks import write_model

    path = tmp_path_factory.mktemp("model") / "half.safetensors"
    return write_model(path, ground_sample_distance=[0.5, 1.0])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scene.tif, roads.gpkg, mask.tif of the same roads, aoi.geojson in degrees."""
    from tests.support.scenes import write_site

    return write_site(tmp_path_factory.mktemp("site"))
