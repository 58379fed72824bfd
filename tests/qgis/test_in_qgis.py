"""The plugin in a real QGIS, without a window: ``make qgis``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window

import geothresh
from geothresh.cli.qgis import vocabulary
from geothresh.qgis.vocabulary import Vocabulary

# Debian 12's wrapper of this name gives every call an option that it does not know.
PROCESS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
# The one whose packages QGIS is among.
PYTHON = "/usr/bin/python3"
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DEMO = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"

pytestmark = [
    pytest.mark.qgis,
    pytest.mark.skipif(PROCESS is None, reason="QGIS is not installed; see make qgis"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qgis")


@pytest.fixture(scope="module")
def environment(place: Path) -> dict[str, str]:
    """A user who has started QGIS once."""
    (place / "run").mkdir(mode=0o700)
    own = {
        **os.environ,
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_DATA_HOME": str(place / "data"),
        "XDG_CONFIG_HOME": str(place / "config"),
        "XDG_RUNTIME_DIR": str(place / "run"),
    }
    own.pop("QGIS_CUSTOM_CONFIG_PATH", None)
    subprocess.run([str(PROCESS), "plugins"], env=own, capture_output=True, check=True)
    return own


@pytest.fixture(scope="module")
def plugins(environment: dict[str, str]) -> Path:
    """The plugin, put there by the command and enabled by QGIS's own."""
    own = {**environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "geothresh", "qgis", "install"],
        env=own, capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = Path(done.stdout.strip())
    told = qgis_process(environment, "plugins", "enable", folder.name)
    assert "Enabled" in told or "enabled" in told
    return folder.parent


@pytest.fixture(scope="module")
def executable(place: Path) -> Path:
    """The command of this very source, as a user may set it."""
    script = place / "geothresh"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" OMP_NUM_THREADS=1 exec "{sys.executable}" '
        '-m geothresh "$@"\n'
    )
    script.chmod(0o755)
    return script


@pytest.fixture(scope="module")
def scene(place: Path) -> Path:
    """A thousand pixels of the demo scene, most of which are there."""
    path = place / "scene.tif"
    with rasterio.open(DEMO) as whole:
        window = Window(2200, 300, 1000, 1000)
        profile = {
            **whole.profile, "width": 1000, "height": 1000,
            "transform": whole.window_transform(window),
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as part:
            part.write(whole.read(window=window))
    return path


def qgis_process(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [str(PROCESS), *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def in_qgis(environment: dict[str, str], plugins: Path, executable: Path, tmp_path: Path) -> Any:
    """Runs an algorithm in QGIS's Python, as the dialog would, and tells what came."""

    def run(algorithm: str, parameters: Mapping[str, Any], **job: Any) -> Any:
        file = tmp_path / "job.json"
        wanted = {name: str(v) if isinstance(v, Path) else v for name, v in parameters.items()}
        file.write_text(
            json.dumps({"id": f"geothresh:{algorithm}", "parameters": wanted, **job}), "utf-8"
        )
        done = subprocess.run(
            [PYTHON, HERE / "in_qgis.py", plugins, executable, file],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, done.stdout + done.stderr
        return json.loads(lines[-1])

    return run


def test_parameters_are_the_options_of_the_command(
    environment: dict[str, str], plugins: Path
) -> None:
    known = Vocabulary.of(json.loads(json.dumps(vocabulary())))
    own = {
        "refine": {"INPUT", "MASK"},
        "vectorise": {"INPUT", "VECTOR"},
        "compare": {"INPUT", "AFTER", "CHANGES"},
        "refineandvectorise": {"INPUT", "MASK", "VECTOR"},
    }
    options = {name: {o.parameter for o in c.options} for name, c in known.commands.items()}
    expected = {
        "refine": options["refine"] - {"VECTOR"},
        "vectorise": options["vectorize"],
        "compare": options["compare"],
        "refineandvectorise": (options["refine"] | options["vectorize"])
        - {"VECTOR", "CHANGES", "THRESHOLDS"},
    }
    for name, parameters in own.items():
        told = json.loads(qgis_process(environment, "help", f"geothresh:{name}", "--json"))
        assert set(told["parameters"]) == expected[name] | parameters, name
        for option in known.commands[{"vectorise": "vectorize"}.get(name, "refine")].options:
            there = told["parameters"].get(option.parameter)
            if there and option.kind in ("choice", "number", "whole", "word"):
                assert there["default_value"] in (option.default, str(option.default)), option


def test_qgis_process_runs_refine(
    environment: dict[str, str], plugins: Path, scene: Path, tmp_path: Path
) -> None:
    """By the Python that has installed the plugin, which needs no setting."""
    mask = tmp_path / "mask.tif"
    told = qgis_process(
        environment, "run", "geothresh:refine", "--", f"INPUT={scene}", f"MASK={mask}",
        "THRESHOLD=0.4", "BLEND=linear",
    )  # fmt: skip
    assert f"MASK:\t{mask}" in told and "tiles: " in told
    with rasterio.open(mask) as written, rasterio.open(scene) as read:
        assert (written.transform, written.crs) == (read.transform, read.crs)
        assert written.tags()["GEOTHRESH_THRESHOLD"] == "0.4"
        assert written.tags()["GEOTHRESH_BLEND"] == "linear"


def test_results_are_loaded_and_drawn_with_their_styles(
    in_qgis: Any, scene: Path, tmp_path: Path
) -> None:
    mask, picture = tmp_path / "mask.tif", tmp_path / "map.png"
    facts = in_qgis(
        "refineandvectorise",
        {
            "INPUT": scene, "MASK": mask, "CONFIDENCE": tmp_path / "confidence.tif",
            "VECTOR": tmp_path / "roads.gpkg", "KIND": "centerlines", "MIN_LENGTH": 20,
        },
        picture=str(picture), background="#808080",
    )  # fmt: skip
    assert facts["error"] == "" and facts["most"] == 100
    assert len(facts["layers"]) == 3 and all(layer["valid"] for layer in facts["layers"])
    with rasterio.open(mask) as written:
        values, bounds = written.read(1), list(written.bounds)
    for layer in facts["layers"]:
        if layer["renderer"] in ("paletted", "singlebandgray", "singlebandpseudocolor"):
            assert layer["extent"] == pytest.approx(bounds)
    (lines,) = [layer for layer in facts["layers"] if ".gpkg" in layer["source"]]
    assert lines["renderer"] in ("singleSymbol", "categorizedSymbol", "RuleRenderer")
    commands = [text for kind, text in facts["log"] if kind == "command"]
    assert len(commands) == 2 and "--min-length=20" in commands[1]
    assert values.max() == 255 or set(np.unique(values)) <= {0, 1}
    with Image.open(picture) as drawn:
        colours = Counter(drawn.convert("RGB").getdata())
    assert len(colours) > 10, "nothing is drawn"


def test_a_mask_is_drawn_over_what_lies_below(in_qgis: Any, scene: Path, tmp_path: Path) -> None:
    """Background and nodata are transparent, the foreground has its colour and its name."""
    from geothresh.raster.creation import mask_band

    mask, picture = tmp_path / "mask.tif", tmp_path / "map.png"
    facts = in_qgis(
        "refine", {"INPUT": scene, "MASK": mask}, picture=str(picture), background="#00ff00"
    )
    (layer,) = facts["layers"]
    assert layer["renderer"] == "paletted"
    with rasterio.open(mask) as written:
        share = float((written.read(1) == 1).mean())
    with Image.open(picture) as drawn:
        colours = Counter(drawn.convert("RGB").getdata())
    pixels = sum(colours.values())
    foreground = dict(mask_band().colours)[1]
    assert layer["classes"] == {"0.0": "background", "1.0": "roads and streets"}
    assert colours[(0, 255, 0)] / pixels == pytest.approx(1 - share, abs=0.02)
    assert colours[foreground] / pixels == pytest.approx(share, abs=0.02)


def test_vectorise_and_compare(in_qgis: Any, tmp_path: Path, scene: Path) -> None:
    with rasterio.open(scene) as whole:
        profile = {**whole.profile, "nodata": 255}
        confidence = whole.read(1)
    masks = []
    for name, threshold in (("before", 100), ("after", 160)):
        masks.append(tmp_path / f"{name}.tif")
        with rasterio.open(masks[-1], "w", **profile) as file:
            file.write((confidence >= threshold).astype(np.uint8), 1)
    vectors = in_qgis(
        "vectorise", {"INPUT": masks[0], "VECTOR": tmp_path / "p.gpkg", "MIN_AREA": 50}
    )
    assert vectors["error"] == "" and any("polygons" in text for _, text in vectors["log"])
    changes = in_qgis(
        "compare", {"INPUT": masks[0], "AFTER": masks[1], "CHANGES": tmp_path / "c.tif"}
    )
    removed = int(((confidence >= 100) & (confidence < 160)).sum())
    assert any(f"0 added, {removed:,} removed" in text for _, text in changes["log"])
    assert changes["layers"][0]["renderer"] == "paletted"


def test_an_error_is_the_one_line_that_it_is(in_qgis: Any, scene: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.tif"
    mask.touch()
    facts = in_qgis("refine", {"INPUT": scene, "MASK": mask})
    assert facts["layers"] == [] and "\n" not in facts["error"].strip()
    assert f"{mask}" in facts["error"] and "exists" in facts["error"]


def test_a_run_that_is_cancelled_goes_on(in_qgis: Any, scene: Path, tmp_path: Path) -> None:
    # Small tiles, so that strips are done long before the end.
    mask = tmp_path / "mask.tif"
    parameters = {"INPUT": scene, "MASK": mask, "TILE_SIZE": 128, "OVERLAP": 64}
    first = in_qgis("refine", parameters, cancel_at=80)
    assert first["error"] == "" and first["layers"] == []
    assert any("Stopped by SIGTERM" in text for _, text in first["log"])
    assert not mask.exists()
    second = in_qgis("refine", parameters)
    assert any("went on after" in text for _, text in second["log"])
    assert second["layers"][0]["source"] == str(mask)


def test_a_part_of_a_scene(in_qgis: Any, scene: Path, tmp_path: Path) -> None:
    """An extent and a polygon layer in another CRS than the scene's mean the same."""
    from rasterio.warp import transform_bounds

    with rasterio.open(scene) as whole:
        left, bottom, right, top = whole.bounds
        sides = left + 300, bottom + 300, left + 600, bottom + 500
        crs, height = whole.crs, whole.height
    masks = [tmp_path / "bounds.tif", tmp_path / "aoi.tif"]
    extent = "{0},{2},{1},{3} [{4}]".format(*sides, crs.to_string())
    told = in_qgis("refine", {"INPUT": scene, "MASK": masks[0], "BOUNDS": extent})
    assert told["error"] == ""
    west, south, east, north = transform_bounds(crs, "EPSG:4326", *sides)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    aoi = tmp_path / "aoi.geojson"
    feature = {
        "type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]},
    }  # fmt: skip
    aoi.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    told = in_qgis("refine", {"INPUT": scene, "MASK": masks[1], "AOI": aoi})
    assert told["error"] == ""
    for mask in masks:
        with rasterio.open(mask) as written:
            rows, columns = np.nonzero(written.read(1) != 255)
        found = [columns.min(), height - rows.max() - 1, columns.max() + 1, height - rows.min()]
        assert found == pytest.approx([300, 300, 600, 500], abs=6)
