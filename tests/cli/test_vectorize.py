"""The command from end to end: files on the disk, exit codes, one line for each bad input."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import shapely
from click.testing import Result
from pyogrio import read_info
from rasterio.features import rasterize
from rasterio.transform import Affine

import geothresh
from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

TRANSFORM = Affine(10.0, 0.0, 5e5, 0.0, -10.0, 6e6)
RNG = np.random.default_rng(3)
MASK = (RNG.random((40, 50)) < 0.5).astype(np.uint8)
CONFIDENCE = np.where(MASK == 1, 0.9, 0.1).astype(np.float32)


CONFIDENCES = ["confidence_mean", "confidence_min", "confidence_p10"]


def fields_in(unit: str) -> list[str]:
    """The attributes of polygons."""
    measures = [f"area_{unit}2", f"perimeter_{unit}", "compactness"]
    return [*measures, f"rect_length_{unit}", f"rect_width_{unit}", "orientation_deg"]


def save(path: Path, values: Any, **options: Any) -> Path:
    return write_raster(path, values, **{"crs": "EPSG:32633", "transform": TRANSFORM, **options})


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return save(tmp_path / "scene mask.tif", MASK, nodata=255)


def run(*arguments: object) -> Result:
    return runner().invoke(main, ["vectorize", *map(str, arguments)])


def refused(code: int, words: str, *arguments: object) -> None:
    folder = Path(str(arguments[0])).parent
    before = sorted(folder.iterdir()) if folder.is_dir() else []
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and words in errors[0], result.stderr
    assert "Traceback" not in result.stderr
    assert (sorted(folder.iterdir()) if folder.is_dir() else []) == before


def test_the_default_is_a_geopackage_beside_the_mask(mask: Path) -> None:
    result = run(mask)
    assert result.exit_code == 0, result.stderr
    output = mask.with_name("scene mask.gpkg")
    assert result.stdout == f"{output}\n"
    frame = geopandas.read_file(output, layer="scene_mask")
    assert result.stderr.startswith(f"{len(frame)} polygons, ")
    assert list(frame.columns) == [*fields_in("m"), "geometry"]
    assert frame.crs.to_epsg() == 32633
    burned = rasterize([(one, 1) for one in frame.geometry], MASK.shape, transform=TRANSFORM)
    np.testing.assert_array_equal(burned, MASK)
    assert frame.area_m2.sum() == pytest.approx(MASK.sum() * 100.0, rel=1e-9)


def test_all_options_together(mask: Path, tmp_path: Path) -> None:
    confidence = save(tmp_path / "confidence.tif", CONFIDENCE)
    output = tmp_path / "roads.gpkg"
    output.write_text("an old file")
    result = run(
        mask, "-o", output, "--kind", "polygons", "--confidence", confidence, "--layer", "roads",
        "--min-area", 300, "--simplify", 5, "--overwrite", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    frame = geopandas.read_file(output, layer="roads")
    assert told["output"] == str(output)
    assert (told["features"], told["crs"], told["area_unit"]) == (len(frame), "EPSG:32633", "m2")
    assert told["left_out"] > 0
    assert told["fields"] == [*fields_in("m"), *CONFIDENCES]
    assert told["area"] == pytest.approx(frame.area_m2.sum())
    np.testing.assert_allclose(frame.confidence_mean, 0.9, rtol=1e-6)
    assert frame.geometry.is_valid.all()


def test_quiet_says_nothing_on_stderr(mask: Path) -> None:
    result = run(mask, "-q")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_threshold_makes_a_mask_and_its_confidence(tmp_path: Path) -> None:
    stored = np.rint(CONFIDENCE * 254).astype(np.uint8)
    scene = save(tmp_path / "refined.tif", stored, nodata=255)
    with rasterio.open(scene, "r+") as dataset:
        dataset.scales = [1 / 254]
    refused(3, "--threshold", scene)
    result = run(scene, "--threshold", 0.5)
    assert result.exit_code == 0, result.stderr
    frame = geopandas.read_file(tmp_path / "refined.gpkg")
    assert frame.area_m2.sum() == pytest.approx(MASK.sum() * 100.0)
    np.testing.assert_allclose(frame.confidence_mean, 0.9, atol=0.5 / 254 + 0.0005)


def test_an_empty_mask_gives_an_empty_layer(tmp_path: Path) -> None:
    path = save(tmp_path / "empty.tif", np.zeros((20, 20), np.uint8))
    confidence = save(tmp_path / "confidence.tif", np.full((20, 20), 0.5, np.float32))
    result = run(path, "--confidence", confidence)
    assert result.exit_code == 0, result.stderr
    frame = geopandas.read_file(tmp_path / "empty.gpkg")
    assert list(frame.columns) == [*fields_in("m"), *CONFIDENCES, "geometry"]
    assert len(frame) == 0


def test_degrees_are_measured_in_metres(tmp_path: Path) -> None:
    transform = Affine(1e-4, 0, 11, 0, -1e-4, 60)
    path = save(
        tmp_path / "degrees.tif", np.ones((9, 9), np.uint8), crs="EPSG:4326", transform=transform
    )
    assert run(path).exit_code == 0
    frame = geopandas.read_file(tmp_path / "degrees.gpkg")
    geod = frame.crs.get_geod()
    area, perimeter = geod.geometry_area_perimeter(
        shapely.geometry.polygon.orient(frame.geometry[0])
    )
    assert frame.area_m2[0] == pytest.approx(area, abs=0.0051)
    assert frame.perimeter_m[0] == pytest.approx(perimeter, abs=0.0051)


def test_without_a_crs_the_names_say_so(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.tif", MASK, crs=None)
    result = run(path)
    assert result.exit_code == 0
    assert "Warning: the mask has a transform but no CRS" in result.stderr
    frame = geopandas.read_file(tmp_path / "plain.gpkg")
    assert list(frame.columns) == [*fields_in("units"), "geometry"]
    assert frame.crs is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_a_georeference_only_on_request(tmp_path: Path) -> None:
    path = save(tmp_path / "bare.tif", MASK, crs=None, transform=None)
    refused(3, "--allow-pixel-coords", path)
    assert run(path, "--allow-pixel-coords").exit_code == 0
    frame = geopandas.read_file(tmp_path / "bare.gpkg")
    assert list(frame.columns) == [*fields_in("px"), "geometry"]
    burned = rasterize([(one, 1) for one in frame.geometry], MASK.shape)
    np.testing.assert_array_equal(burned, MASK)


def with_odd_offsets(tiff: bytes) -> bytes:
    """A little-endian TIFF whose tag of strip offsets (273) is of a type that does not exist."""
    torn = bytearray(tiff)
    (directory,) = struct.unpack_from("<I", torn, 4)
    (count,) = struct.unpack_from("<H", torn, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from("<H", torn, entry) == (273,):
            struct.pack_into("<H", torn, entry + 2, 232)
    assert torn != tiff
    return bytes(torn)


def test_bad_inputs(mask: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    striped = save(tmp_path / "whole.tif", RNG.integers(0, 2, (300, 300)).astype(np.uint8))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(striped.read_bytes()[:40_000])
    torn = tmp_path / "torn.tif"
    torn.write_bytes(with_odd_offsets(mask.read_bytes()))
    bands = save(tmp_path / "bands.tif", np.stack([MASK, MASK, MASK]))
    gray = save(tmp_path / "gray.tif", MASK * np.uint8(7))
    confidence = save(tmp_path / "confidence.tif", CONFIDENCE)
    small = save(tmp_path / "small.tif", CONFIDENCE[:-1])
    refused(3, "no such file", tmp_path / "missing.tif")
    (tmp_path / "empty").mkdir()
    refused(3, "holds no .tif file", tmp_path / "empty")
    refused(3, "is not a TIFF", text)
    refused(3, "cut short", cut)
    refused(3, "metadata cannot be understood", torn)
    refused(3, "--bidx", bands)
    refused(2, "band 4 does not exist", bands, "-b", 4)
    refused(3, "the value 7", gray)
    refused(3, "--threshold", confidence)
    refused(3, "50 x 39 pixels, and", mask, "--confidence", small)
    refused(3, "no such file", mask, "--confidence", tmp_path / "missing.tif")


def test_the_band_can_be_chosen(tmp_path: Path) -> None:
    bands = save(tmp_path / "bands.tif", np.stack([MASK * np.uint8(9), MASK]))
    assert run(bands, "-b", 2).exit_code == 0
    frame = geopandas.read_file(tmp_path / "bands.gpkg")
    assert frame.area_m2.sum() == pytest.approx(MASK.sum() * 100.0)


def test_bad_outputs(mask: Path, tmp_path: Path) -> None:
    (tmp_path / "old.gpkg").write_text("an old file")
    os.link(mask, tmp_path / "same.gpkg")
    refused(4, "exists already", mask, "-o", tmp_path / "old.gpkg")
    refused(4, "does not exist", mask, "-o", tmp_path / "missing" / "roads.gpkg")
    refused(2, "is the input", mask, "-o", tmp_path / "same.gpkg", "--overwrite")
    refused(2, "tells no format", mask, "-o", tmp_path / "roads.kml")
    assert (tmp_path / "old.gpkg").read_text() == "an old file"


@pytest.mark.parametrize(
    "arguments",
    [("--layer", "gpkg_contents"), ("--layer", 'x"; DROP'), ("--min-area", "-1"),
     ("--min-area", "inf"), ("--simplify", "nan"), ("--threshold", "2"), ("--kind", "lines")],
)  # fmt: skip
def test_bad_arguments(mask: Path, arguments: tuple[str, str]) -> None:
    result = run(mask, *arguments)
    assert result.exit_code == 2, result.stderr
    assert not mask.with_suffix(".gpkg").exists()


def test_the_function_takes_an_open_dataset_and_reports_progress(mask: Path) -> None:
    seen: list[tuple[int, int]] = []
    with rasterio.open(mask) as dataset:
        result = geothresh.vectorize(
            dataset, progress=lambda done, total: seen.append((done, total))
        )
    assert result.output == mask.with_suffix(".gpkg")
    assert seen[-1] == (1, 1)
    assert result.foreground_pixels == MASK.sum()


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from geothresh.cli import main\n"
        "try: main(['vectorize', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'rasterio', 'numpy', 'shapely', 'geopandas', 'pyogrio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_vectorizing_does_not_load_torch(mask: Path) -> None:
    code = (
        "import sys, geothresh; geothresh.vectorize(sys.argv[1])\n"
        "assert not {'torch', 'dask'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(mask)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_layers_of_both_kinds_in_one_file(mask: Path, tmp_path: Path) -> None:
    output = tmp_path / "all.gpkg"
    assert run(mask, "-o", output, "--layer", "areas").exit_code == 0
    more = ["-o", output, "--layer", "lines", "--kind", "centerlines", "--nodes"]
    refused(4, "exists already", mask, *more)
    assert run(mask, *more, "--append").exit_code == 0
    refused(4, "has a layer lines already", mask, *more, "--append")
    refused(2, "give one of them", mask, *more, "--append", "--overwrite")
    assert run(mask, *more, "--overwrite-layer").exit_code == 0
    layers = set(geopandas.list_layers(output).name)
    assert layers == {"areas", "lines", "lines_nodes", "layer_styles"}
    assert len(geopandas.read_file(output, layer="areas")) > 0


def test_another_crs(mask: Path, tmp_path: Path) -> None:
    assert run(mask, "-o", tmp_path / "own.gpkg").exit_code == 0
    degrees = tmp_path / "degrees.gpkg"
    result = run(mask, "-o", degrees, "--dst-crs", "EPSG:4326")
    assert result.exit_code == 0 and "EPSG:4326" in result.stderr
    own, there = (geopandas.read_file(tmp_path / f"{n}.gpkg") for n in ("own", "degrees"))
    assert there.crs.to_epsg() == 4326 and there.is_valid.all()
    # Measured in the mask's own CRS, and moved to the place.
    np.testing.assert_array_equal(there.area_m2, own.area_m2)
    back = there.to_crs(own.crs)
    assert shapely.hausdorff_distance(back.geometry.values, own.geometry.values).max() < 1e-5
    refused(2, "CRS 'EPSG:1' is not known", mask, "-o", tmp_path / "x.gpkg", "--dst-crs", "EPSG:1")
    bare = save(tmp_path / "bare.tif", MASK, crs=None)
    refused(3, "has no CRS", bare, "-o", tmp_path / "x.gpkg", "--dst-crs", "EPSG:4326")


def test_the_layer_says_how_it_came_about(mask: Path, tmp_path: Path) -> None:
    def told(*options: object) -> dict[str, str]:
        output = tmp_path / "told.gpkg"
        assert run(mask, "-o", output, "--overwrite", *options).exit_code == 0
        return dict(read_info(output, layer="told")["layer_metadata"])

    found = told("--sieve", 3, "--smooth", "--min-area", 200)
    assert found.pop("DESCRIPTION").startswith("foreground of scene mask.tif; geothresh ")
    assert found == {
        "geothresh_version": geothresh.__version__, "geothresh_mask": "scene mask.tif",
        "geothresh_kind": "polygons", "geothresh_threshold": "none", "geothresh_sieve": "3",
        "geothresh_fill_holes": "0.0", "geothresh_min_area": "200.0", "geothresh_smooth": "True",
        "geothresh_simplify": "0.0",
    }  # fmt: skip
    found = told("--kind", "centerlines", "--spur", 2)
    assert found["geothresh_spur"] == "2.0" and found["geothresh_kind"] == "centerlines"
    assert "geothresh_min_area" not in found


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".parquet"])
def test_vectors_name_model_and_rasters(mask: Path, tmp_path: Path, ending: str) -> None:
    with rasterio.open(mask, "r+") as dataset:
        dataset.update_tags(
            GEOTHRESH_MODEL="roads", GEOTHRESH_MODEL_SHA256="0123abcd", GEOTHRESH_THEME="roads"
        )
    confidence = save(tmp_path / "confidence.tif", CONFIDENCE)
    output = tmp_path / f"net{ending}"
    assert run(mask, "-o", output, "--confidence", confidence).exit_code == 0
    expected = (
        "roads of scene mask.tif; model roads (sha256 0123abcd); confidence confidence.tif; "
        f"geothresh {geothresh.__version__}"
    )
    if ending == ".parquet":
        found = json.loads(pyarrow.parquet.read_schema(output).metadata[b"geothresh"])
        found["DESCRIPTION"] = found.pop("description")
        assert geopandas.read_parquet(output).crs.to_epsg() == 32633
    else:
        found = read_info(output, layer="net")["layer_metadata"]
    assert found["DESCRIPTION"] == expected
    assert found["geothresh_model"] == "roads" and found["geothresh_model_sha256"] == "0123abcd"
    assert found["geothresh_confidence"] == "confidence.tif"
    if ending == ".gpkg":
        with closing(sqlite3.connect(output)) as file:
            (told,) = file.execute(
                "SELECT description FROM gpkg_contents WHERE table_name = 'net'"
            ).fetchone()
        assert told == expected


def test_attributes_have_the_decimals_that_mean_something(mask: Path, tmp_path: Path) -> None:
    confidence = save(tmp_path / "confidence.tif", CONFIDENCE * np.float32(0.98765))
    output = tmp_path / "net.gpkg"
    for kind in ("polygons", "centerlines"):
        options = ["--kind", kind, "--confidence", confidence, "--overwrite"]
        assert run(mask, "-o", output, *options).exit_code == 0
        frame = geopandas.read_file(output, layer="net").drop(columns="geometry")
        for name, values in frame.items():
            shares = name.startswith("confidence") or name == "compactness"
            np.testing.assert_array_equal(values, values.round(3 if shares else 2))
