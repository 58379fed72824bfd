"""What `refine` refuses or fails at leaves what was there, and nothing else."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geothresh
from geothresh.errors import GeothreshError, InputError, ModelError, OutputError, UsageError
from geothresh.options import Compute, Outputs, Writing
from geothresh.types import Float32Array
from geothresh.vector.options import VectorWriting
from tests.support.fakes import IdentityRefiner
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster
from tests.support.refining import refine, smooth


def test_polygons_without_a_place_are_refused_at_once(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20), crs=None, transform=None)
    with pytest.raises(InputError, match="no place on the map"):
        refine(scene, outputs=Outputs(vector=tmp_path / "x.gpkg"))
    assert os.listdir(tmp_path) == ["x.tif"]


def test_geojson_without_a_crs_is_refused_before_many_are_refined(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20), crs=None)
    with pytest.raises(InputError, match=r"x.tif: has no CRS, and a GeoJSON is in EPSG:4326"):
        geothresh.refine_many(
            [scene], tmp_path / "out", many=geothresh.Many(vector=tmp_path / "v.geojson")
        )
    assert os.listdir(tmp_path) == ["x.tif"]


class FailingRefiner(IdentityRefiner):
    def __init__(self, error: BaseException) -> None:
        super().__init__(16)
        self.error = error

    def refine(self, tiles: Float32Array) -> Float32Array:
        if self.tiles > 2:
            raise self.error
        return tiles.copy()


@pytest.mark.parametrize("error", [ModelError("broken"), RuntimeError("bug"), MemoryError()])
def test_a_run_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: Exception
) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(300, 90))
    mask = tmp_path / "x_mask.tif"
    mask.write_text("old")
    with pytest.raises(type(error)):
        refine(
            scene,
            model=FailingRefiner(error),
            outputs=Outputs(confidence=tmp_path / "c.tif"),
            compute=Compute(batch_size=1),
            writing=Writing(overwrite=True),
        )
    assert without_sides(tmp_path) == ["x.tif", "x_mask.tif"]
    assert mask.read_text() == "old"
    assert not [t for t in threading.enumerate() if t.name.startswith("geothresh-mosaic")]


@pytest.mark.catalogue(22)
def test_a_scene_that_changes_meanwhile(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(100, 90))
    with pytest.raises(InputError, match="changed"):
        refine(scene, progress=lambda done, total: os.utime(scene, ns=(done, done)))
    assert os.listdir(tmp_path) == ["x.tif"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"threshold": 1.5}, UsageError, "threshold"),
        ({"threshold": float("nan")}, UsageError, "threshold"),
        ({"tile_size": 70}, UsageError, "tile size 70"),
        ({"overlap": 64}, UsageError, "overlap 64"),
        ({"overlap": 8}, UsageError, "overlap 8"),
        ({"batch_size": 0}, UsageError, "batch_size"),
        ({"workers": -1}, UsageError, "workers"),
        ({"bidx": 2}, UsageError, "from 1 to 1"),
        ({"creation_options": {"COMPRESS": "JPEG"}}, UsageError, "COMPRESS"),
        ({"model": "no-such-model"}, ModelError, "no-such-model"),
        ({"model": None}, UsageError, "None is no model"),
        ({"output": "none/m.tif"}, OutputError, "does not exist"),
        ({"output": "x.tif"}, UsageError, "is the input"),
        ({"confidence": "x_mask.tif"}, UsageError, "two outputs"),
        ({"confidence": "../{here}/x_mask.tif"}, UsageError, "two outputs"),
        ({"vector": "x.kml"}, UsageError, "tells no format"),
        ({"workers": 1, "model": IdentityRefiner(16)}, UsageError, "workers"),
    ],
)
def test_what_is_refused_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(Path("x.tif"), smooth(20, 20))
    options = {
        key: value.format(here=tmp_path.name) if isinstance(value, str) else value
        for key, value in options.items()
    }
    with pytest.raises(error) as caught:
        refine("x.tif", **options)
    assert text in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir() == ["x.tif"]


def test_the_scene_as_any_output_is_told_without_the_name_of_another_option(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20))
    for outputs in ({"output": scene}, {"confidence": scene}, {"report": scene.with_name("x.tif")}):
        with pytest.raises(UsageError) as caught:
            refine(scene, **{"output": tmp_path / "m.tif", **outputs})
        assert "`output`" not in str(caught.value)


def test_directories_are_made_where_asked_and_go_if_nothing_comes(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", np.full((40, 50), 0.7, np.float32))
    out = tmp_path / "a" / "b" / "mask.tif"
    kept = Outputs(confidence=tmp_path / "c" / "refined.tif")
    with pytest.raises(OutputError, match=r"a/b does not exist"):
        refine(path, out)
    making = Writing(parents=True)
    with pytest.raises(InputError, match="no such file"):
        refine(tmp_path / "nothing.tif", out, outputs=kept, writing=making)
    assert {file.name for file in tmp_path.iterdir()} == {"scene.tif"}
    result = refine(path, out, outputs=kept, writing=making)
    assert result.mask.is_file() and result.confidence is not None and result.confidence.is_file()
    shapes = geothresh.vectorize(
        out, tmp_path / "d" / "roads.gpkg", writing=VectorWriting(parents=True)
    )
    assert shapes.output.is_file()


def test_no_directory_is_made_of_a_url_that_lost_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = write_raster(Path("m.tif"), np.ones((20, 20), np.uint8))
    scene = write_raster(Path("x.tif"), smooth(20, 20))
    with pytest.raises(UsageError, match="lost a slash"):
        geothresh.vectorize(mask, Path("s3://b/v.gpkg"), writing=VectorWriting(parents=True))
    with pytest.raises(UsageError, match="lost a slash"):
        lost = Outputs(confidence=Path("s3://b/c.tif"))
        refine(scene, "new/m.tif", outputs=lost, writing=Writing(parents=True))
    assert sorted(os.listdir()) == ["m.tif", "x.tif"]


def test_odd_names_of_directories_to_be_made(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", np.full((40, 50), 0.7, np.float32))
    making = Writing(parents=True)
    for odd in ("n" * 300, "a\0b"):
        with pytest.raises(OutputError, match="the directory .* cannot be made"):
            refine(path, tmp_path / "new" / odd / "mask.tif", writing=making)
    assert os.listdir(tmp_path) == ["scene.tif"]
    assert refine(path, tmp_path / "new" / ".." / "out" / "mask.tif", writing=making).mask.is_file()
    assert (tmp_path / "out" / "mask.tif").is_file()


def test_a_scene_may_have_the_longest_name(tmp_path: Path) -> None:
    path = write_raster(tmp_path / f"{'n' * 251}.tif", np.full((40, 50), 0.7, np.float32))
    assert refine(path, tmp_path / "mask.tif").mask.is_file()


class Module(torch.nn.Module):
    """A network, which has no patch."""


@pytest.mark.parametrize("model", [Module(), lambda tiles: tiles, IdentityRefiner])
def test_a_network_or_a_function_is_no_refiner(tmp_path: Path, model: Any) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20))
    for call in (
        lambda: geothresh.refine(scene, model=model),
        lambda: geothresh.refine_array(smooth(20, 20), model=model),
        lambda: geothresh.refine_many([scene], tmp_path / "out", model=model),
        lambda: geothresh.evaluate(scene, mask=scene, model=model),
    ):
        with pytest.raises(UsageError, match="is no refiner, as it has no patch"):
            call()
    assert os.listdir(tmp_path) == ["x.tif"]


@pytest.mark.parametrize(
    "call",
    [
        lambda name: geothresh.refine(f"{name}.tif"),
        lambda name: geothresh.evaluate(name),
        lambda name: geothresh.calibrate(name),
        lambda name: geothresh.train(name, output="m.safetensors"),
        lambda name: geothresh.predict_base(f"{name}.tif", model=name),
        lambda name: geothresh.refine_many([f"{name}.tif"], "out"),
    ],
)
def test_names_that_are_too_long_are_told(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GeothreshError):
        call("n" * 300)
