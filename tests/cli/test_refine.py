"""``geothresh refine`` and ``geothresh info`` as they are typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import Result

import geothresh
from geothresh.cli import main
from geothresh.fields import decisive, known
from geothresh.options import Compute, Outputs, Reading, Refining, Tiling, Writing
from tests.support.cli_runner import runner
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster

TILES = ["--tile-size", "64", "--overlap", "16"]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.linspace(0, 1, 70 * 80, dtype=np.float32).reshape(70, 80)
    values[:10] = np.nan
    return write_raster(tmp_path / "scene.tif", values)


def run(*arguments: Any) -> Result:
    return runner().invoke(main, [str(argument) for argument in arguments])


def test_the_mask_and_a_summary(scene: Path, tiny_model: Path) -> None:
    result = run("refine", scene, "-m", tiny_model, *TILES)
    mask = scene.with_name("scene_mask.tif")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{mask}\n"
    assert "80 x 70 pixels, float32 in [0, 1]" in result.stderr
    assert "model tiny" in result.stderr and "4,800 with data" in result.stderr
    with rasterio.open(mask) as dataset:
        values = dataset.read(1)
        assert dataset.tags()["GEOTHRESH_MODEL"] == "tiny"
        assert len(dataset.tags()["GEOTHRESH_MODEL_SHA256"]) == 64
    assert (values[:10] == 255).all() and (values[10:] <= 1).all()
    assert without_sides(scene.parent) == ["scene.tif", "scene_mask.tif"]


def test_quiet_says_nothing_on_stderr(scene: Path, tiny_model: Path) -> None:
    result = run("refine", scene, "-m", tiny_model, *TILES, "-q")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.endswith("scene_mask.tif\n")


def test_every_option_reaches_the_library(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def record(*arguments: Any, **options: Any) -> Any:
        given.update(options, arguments=arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("geothresh.api.refine.refine", record)
    result = run(
        "refine", "a.tif", "-o", "m.tif", "--confidence-out", "c.tif", "--vector-out", "v.gpkg",
        "--diff-out", "d.tif", "--threshold-map-out", "t.tif",
        "--bounds", "-3,2,1.5,4", "--cog",
        "-b", "2", "--scale", "100", "--nodata", "-9999", "--allow-vrt", "-m", "full",
        "--threshold", "0.4", "--tile-size", "256", "--overlap", "64", "--blend", "crop",
        "--batch-size", "3", "--device", "cuda:1", "--precision", "bf16",
        "--backend", "openvino", "--workers", "2",
        "--co", "compress=ZSTD", "--co", "ZSTD_LEVEL=1", "--overwrite", "--no-progress",
        "--tta", "d4", "--resolution", "0.5", "--keep-threshold", "0.2", "--no-resume",
        "--restart",
    )  # fmt: skip
    assert result.exit_code == 130
    assert given == {
        "arguments": ("a.tif", Path("m.tif")),
        "outputs": Outputs(
            confidence=Path("c.tif"),
            changes=Path("d.tif"),
            thresholds=Path("t.tif"),
            vector=Path("v.gpkg"),
        ),
        "reading": Reading(
            bidx=2, scale=100.0, nodata=-9999.0, bounds=(-3.0, 2.0, 1.5, 4.0), allow_vrt=True
        ),
        "model": "full",
        "refining": Refining(tta="d4", resolution=0.5, threshold=0.4, keep_threshold=0.2),
        "tiling": Tiling(tile_size=256, overlap=64, blend="crop"),
        "compute": Compute(
            batch_size=3, device="cuda:1", precision="bf16", backend="openvino", workers=2
        ),
        "writing": Writing(
            creation_options={"COMPRESS": "ZSTD", "ZSTD_LEVEL": "1"},
            cog=True,
            resume=False,
            restart=True,
            overwrite=True,
        ),
        "progress": None,
    }


def test_json_is_all_there_is_on_stdout(scene: Path, tiny_model: Path) -> None:
    out = scene.with_name("c.tif")
    result = run(
        "refine",
        scene,
        "-m",
        tiny_model,
        *TILES,
        "--json",
        "--progress",
        "bar",
        "--confidence-out",
        out,
    )
    facts = json.loads(result.stdout)
    assert facts["mask"] == str(scene.with_name("scene_mask.tif"))
    assert facts["confidence"] == str(out) and facts["vector"] is None
    assert facts["valid_pixels"] == 4800 and facts["tiles"] == 4
    assert facts["model"] == "tiny"
    told = decisive(Refining(), Tiling(tile_size=64, overlap=16))
    told["keep_threshold"] = "none"
    assert {name: facts["parameters"][name] for name in told} == told
    assert "4/4" in result.stderr


def test_warnings_are_lines(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", np.eye(9, dtype=np.uint8), crs=None, transform=None)
    result = run("refine", scene, "-m", tiny_model, *TILES)
    told = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert result.exit_code == 0
    assert len(told) == 2 and "no georeference" in told[0] and "only 0 and 1" in told[1]


def test_the_refined_confidence_can_be_refined_again(scene: Path, tiny_model: Path) -> None:
    first = scene.with_name("c.tif")
    assert run("refine", scene, "-m", tiny_model, *TILES, "--confidence-out", first).exit_code == 0
    result = run("refine", first, "-m", tiny_model, *TILES)
    assert result.exit_code == 0 and "scale and offset tags" in result.stderr
    with rasterio.open(first.with_name("c_mask.tif")) as dataset:
        assert (dataset.read(1)[:10] == 255).all()


def test_info(scene: Path) -> None:
    result = run("info", scene)
    assert result.exit_code == 0 and result.stderr == ""
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["dtype"] == "float32" and lines["crs"] == "EPSG:32632"
    assert lines["scaling"] == "float32 in [0, 1], as it is"
    assert lines["transform"] == "2, 0, 500000, 0, -2, 5000000"
    for never in ("inf", "-inf"):
        assert json.loads(run("info", scene, "--json", "--nodata", never).stdout)["nodata"] == never
    facts = json.loads(run("info", scene, "--json", "--nodata", "nan").stdout)
    assert (facts["height"], facts["width"], facts["bands"], facts["bidx"]) == (70, 80, 1, 1)
    assert facts["nodata"] == "nan" and facts["mask"] == "none"
    assert facts["georeference"] == "transform"


SLOW = """
import sys, time
import geothresh.run.calibrated as api
from geothresh.run.models import ChosenModel
from geothresh.cli import main
from geothresh.nn.scope import ModelScope

class Slow:
    patch, name, digest = 16, "slow", ""
    def __call__(self, tiles):
        print("started", flush=True)
        time.sleep(0.2)
        return tiles

api.choose_model = lambda *given, **options: ChosenModel(
    refiner=Slow(), name="slow", digest="", patch=16, raster_patch=16,
    scope=ModelScope(), batch_size=1, backend="other", device="cpu", precision="fp32",
)
main(sys.argv[1:], prog_name="geothresh")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    scene = write_raster(tmp_path / "x.tif", np.zeros((600, 600), np.float32))
    (tmp_path / "x_mask.tif").write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "refine", str(scene), *TILES, "--overwrite"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        start = time.monotonic()
        assert process.wait(10) == exit_code
        assert time.monotonic() - start < 20  # well below 5 on a machine that does nothing else
        assert process.stderr.read() == f"Stopped by {number.name}.\n"
    assert without_sides(tmp_path) == ["x.tif", "x_mask.tif"]
    assert (tmp_path / "x_mask.tif").read_text() == "old"


FULL_DISK = """
import resource, sys
from geothresh.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
main(sys.argv[2:], prog_name="geothresh")
"""


@pytest.mark.catalogue(87)
@pytest.mark.skipif(sys.platform == "win32", reason="has no RLIMIT_FSIZE")
def test_a_full_disk_is_an_output_error(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", np.eye(600, dtype=np.float32))
    (tmp_path / "x_mask.tif").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "1000", "refine", str(scene), *TILES, "-m", tiny_model]
        + ["--overwrite"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4 and done.stdout == ""
    # libtiff itself may say something before.
    assert done.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / 'x_mask.tif'}: ")
    assert "make room and run again" in done.stderr and "Traceback" not in done.stderr
    # Strips of one value fit where their raster does not: they are kept.
    assert "finished strips, kept" in done.stderr
    assert without_sides(tmp_path) == [".x_mask.tif.geothresh", "x.tif", "x_mask.tif"]
    assert (tmp_path / "x_mask.tif").read_text() == "old"
    result = run("refine", scene, *TILES, "-m", tiny_model, "--overwrite")
    assert result.exit_code == 0 and "went on after" in result.stderr
    assert without_sides(tmp_path) == ["x.tif", "x_mask.tif"]


def test_the_python_names_are_those_of_the_command() -> None:
    """What can be typed can be called: each option is a keyword, or a field of one."""
    import inspect

    from geothresh.cli.refine import refine as command

    options = {parameter.name for parameter in command.params}
    names = set()
    one, many = (inspect.signature(f).parameters for f in (geothresh.refine, geothresh.refine_many))
    assert many["scenes"].kind == one["scene"].kind
    for name, keyword in {**one, **many}.items():
        names |= set(known(keyword.default)) if is_dataclass(keyword.default) else {name}
    own = {
        "as_json", "quiet", "verbose", "debug", "match_resolution", "no_progress",
    }  # fmt: skip
    assert options - own == names - {"scenes"}
