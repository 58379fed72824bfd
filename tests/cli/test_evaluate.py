"""``geothresh evaluate``: its table, its JSON, its files, its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from geothresh.cli import main
from geothresh.geobox import GeoBox
from geothresh.raster.pictures import write_png
from geothresh.vector.tile_index import IndexedRaster, write_tile_index
from geothresh.windows import RasterSize
from tests.support.rasters import write_raster


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command as a shell runs it: the two streams apart, which not every CliRunner does."""

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as end:
            main.main(["evaluate", *map(str, arguments)], prog_name="geothresh")
        said = capsys.readouterr()
        return Result(exit_code=int(end.value.code or 0), stdout=said.out, stderr=said.err)

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Plain layout: three maps of 64 x 64, and a truth that the cut at 0.4 hits exactly."""
    folder = tmp_path / "data"
    for name in ("mask", "confidence"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        levels = rng.integers(0, 256, (64, 64)).astype(np.uint8)
        write_png(folder / "confidence" / f"{name}.png", levels)
        write_png(folder / "mask" / f"{name}.png", (levels >= 102).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that corrects nothing: its correction is zero before training."""
    from geothresh.nn.config import NetworkConfig
    from geothresh.nn.modelfile import save_model
    from geothresh.nn.network import ThreshNet

    config = NetworkConfig(
        widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=32, head="correction", shuffle=2
    )
    path = tmp_path_factory.mktemp("model") / "nothing.safetensors"
    save_model(path, tensors=ThreshNet(config).state_dict(), config=config, training={})
    return path


def test_the_table_names_the_best_cut(run: Run, data: Path) -> None:
    result = run(data, "--no-refine")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "confidence: 3 maps"
    assert lines[3].split() == ["0.5", "single*", "per", "map*", "bound*"]
    assert lines[4].startswith("IoU (mean of maps) ")
    assert lines[4].split()[-3:] == ["100.00", "100.00", "100.00"]
    assert "Best single threshold: 0.40." in lines
    assert "Boundary IoU (d = 2 px)" in result.stdout
    assert "not refined" in result.stderr


def test_json_is_one_object_and_nothing_else(run: Run, data: Path, model: Path) -> None:
    result = run(
        data, "-m", model, "--json", "--progress", "bar", "--tile-size", 64, "--overlap", 32
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["model"], report["patch"], report["threshold"]) == ("nothing", 32, 0.5)
    assert len(report["model_sha256"]) == 64
    (source,) = report["sources"]
    assert source["rows"]["single"]["threshold"] == 0.4
    assert source["rows"]["refined"]["miou"] == source["rows"]["cut"]["miou"]
    assert source["changes"]["iou"]["n_worse"] == 0
    assert [line["id"] for line in source["maps"]] == ["a", "b", "c"]
    assert "3/3" in result.stderr


def test_the_augmentation_is_passed_on_and_told(run: Run, data: Path, model: Path) -> None:
    result = run(data, "-m", model, "--json", "--tta", "d4", "--tile-size", 64, "--overlap", 32)
    report = json.loads(result.stdout)
    assert report["tta"] == "d4" and "n_worse" in report["sources"][0]["changes"]["iou"]
    assert json.loads(run(data, "--no-refine", "--json").stdout)["tta"] == "none"
    result = run(data, "-m", model, "--tta", "d4", "--tile-size", 64, "--overlap", 32)
    assert "refined with nothing, TTA d4" in result.stderr


def test_figures_and_report_are_written(run: Run, data: Path, tmp_path: Path) -> None:
    figures, report = tmp_path / "figures", tmp_path / "report.json"
    result = run(data, "--no-refine", "--figures", figures, "-o", report, "-q")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert sorted(p.name for p in (figures / "confidence").iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
    ]
    assert json.loads(report.read_text())["sources"][0]["n"] == 3


def test_ids_restrict_to_a_side_of_the_split(run: Run, data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "split.json"
    manifest.write_text('{"train": ["a", "b"], "validation": ["c"]}')
    for side, n in (("validation", 1), ("train", 2)):
        result = run(data, "--no-refine", "--ids", manifest, "--split", side, "--json")
        assert json.loads(result.stdout)["sources"][0]["n"] == n


def test_a_list_of_ids_may_begin_with_a_byte_order_mark(
    run: Run, data: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.txt"
    for text in ("a\r\nb\r\n", '{"train": ["c"], "validation": ["a", "b"]}'):
        ids.write_text(text, encoding="utf-8-sig")
        result = run(data, "--no-refine", "--ids", ids, "--json")
        assert result.exit_code == 0 and result.stderr == "", result.stderr
        (source,) = json.loads(result.stdout)["sources"]
        assert [line["id"] for line in source["maps"]] == ["a", "b"]


IDLE_FOR_FOLDERS: list[list[object]] = [
    ["--scale", 255], ["--scale", "auto"], ["--nodata", 0], ["--bidx", 1],
]  # fmt: skip
IDLE_FOR_RASTERS: list[list[object]] = [
    ["--confidence", "x"], ["--ids", "x"], ["--split", "train"], ["--skip-unpaired"],
]  # fmt: skip
IDLE_WITHOUT_MODEL: list[list[object]] = [
    ["--model", "roads"], ["--tta", "none"], ["--match-resolution"], ["--gsd", 1],
    ["--threshold", 0.4], ["--tile-size", 512], ["--overlap", 64], ["--blend", "crop"],
    ["--batch-size", 1], ["--device", "cpu"], ["--precision", "fp32"], ["--backend", "torch"],
]  # fmt: skip


@pytest.mark.parametrize("idle", IDLE_FOR_FOLDERS + IDLE_FOR_RASTERS + IDLE_WITHOUT_MODEL)
def test_options_that_would_do_nothing_are_refused(
    run: Run, data: Path, idle: list[object]
) -> None:
    folders: list[object] = [data]
    raster: list[object] = [data / "confidence" / "a.png", "--mask", data / "mask" / "a.png"]
    cases = []
    if idle in IDLE_FOR_FOLDERS:
        cases.append((folders, "is for a raster, with --mask; leave it out"))
    if idle in IDLE_FOR_RASTERS:
        cases.append((raster, "is for folders of maps; leave it out"))
    if idle in IDLE_WITHOUT_MODEL:
        text = "is for refining, and --no-refine refines nothing; leave it out"
        cases += [(folders, text), (raster, text)]
    for of, text in cases:
        result = run(*of, "--no-refine", *idle)
        assert (result.exit_code, result.stdout) == (2, ""), result.stderr
        assert result.stderr.splitlines()[-1] == f"Error: {idle[0]} {text}"


def test_a_side_is_refused_where_nothing_has_sides(run: Run, data: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("a\nb\n")
    for more, text in (
        ([], "name that with --ids"),
        (["--ids", ids], "lists 2 ids without sides"),
    ):
        result = run(data, "--no-refine", "--split", "validation", *more)
        assert result.exit_code == 2 and text in result.stderr, result.stderr


def test_a_folder_of_maps_for_each_network_is_told_how_to_be_named(run: Run, data: Path) -> None:
    (data / "confidence").rename(data / "unet")
    for name in ("unet", "fcn", ".cache", "notes"):
        (data / "confidence" / name).mkdir(parents=True, exist_ok=True)
    for path in (data / "unet").iterdir():
        for name in ("unet", "fcn", ".cache"):
            (data / "confidence" / name / path.name).write_bytes(path.read_bytes())
    result = run(data, "--no-refine")
    assert result.exit_code == 3
    folder = data / "confidence"
    assert result.stderr == (
        f"Error: {folder}: no confidence maps in it but folders of them (fcn, unet); name each "
        f"that is meant, as --confidence {folder / 'fcn'}\n"
    )
    named = [part for name in ("fcn", "unet") for part in ("--confidence", folder / name)]
    assert run(data, "--no-refine", *named).exit_code == 0


def test_a_truth_of_confidences_is_told_what_it_has_to_be(run: Run, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for name, pixels in (("floats", values), ("bytes", (values * 200).astype(np.uint8))):
        path = write_raster(tmp_path / f"{name}.tif", pixels)
        result = run(path, "--mask", path, "--no-refine", "--scale", 200 if name == "bytes" else 1)
        assert result.exit_code == 3
        assert "--threshold" not in result.stderr
        assert result.stderr.rstrip().endswith(
            "if these are confidences, cut them at a threshold first, to whole numbers: "
            "1 foreground, 0 background, 255 no data"
        )


def test_wrong_input_ends_in_one_line_and_its_code(run: Run, data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("old")
    cases: list[tuple[int, str, list[object]]] = [
        (2, "--mask", [data / "mask" / "a.png", "--no-refine"]),
        (3, "cannot be listed", [tmp_path / "absent", "--no-refine"]),
        (3, "no such file", [data, "--no-refine", "--ids", tmp_path / "absent"]),
        (4, "exists already", [data, "--no-refine", "-o", there]),
        (4, "directory", [data, "--no-refine", "--figures", tmp_path / "no" / "figures"]),
        (5, "no such model", [data, "-m", tmp_path / "absent.safetensors"]),
    ]
    for code, text, arguments in cases:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (code, ""), (arguments, result.stderr)
        assert result.stderr.startswith("Error: ")
        assert text in result.stderr
        assert result.stderr.count("\n") == 1
    assert there.read_text() == "old"


def test_maps_and_masks_of_two_sizes_are_refused(run: Run, data: Path) -> None:
    write_png(data / "mask" / "b.png", np.zeros((64, 32), np.uint8))
    result = run(data, "--no-refine")
    assert result.exit_code == 3
    assert "64 x 64 pixels, its mask b.png has 64 x 32" in result.stderr


def test_several_rasters_are_given_with_their_masks(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scenes, truths = tmp_path / "scenes", tmp_path / "truths"
    scenes.mkdir()
    truths.mkdir()
    for name in ("a", "b"):
        levels = rng.random((40, 50)).astype(np.float32)
        write_raster(scenes / f"{name}.tif", levels)
        write_raster(truths / f"{name}_truth.tif", (levels >= 0.4).astype(np.uint8))
    by_name = run(scenes, "--mask", truths, "--no-refine", "--scale", 1, "--json")
    assert by_name.exit_code == 0, by_name.stderr
    masks = [part for path in sorted(truths.iterdir()) for part in ("--mask", path)]
    by_order = run(*sorted(scenes.iterdir()), *masks, "--no-refine", "--scale", 1, "--json")
    one, other = (json.loads(result.stdout)["sources"][0] for result in (by_name, by_order))
    assert [scene["name"] for scene in one["scenes"]] == ["a", "b"]
    assert one["scenes"] == other["scenes"] and one["rows"] == other["rows"]
    table = run(scenes, "--mask", truths, "--no-refine")
    assert "scene  cells  IoU before  after  gain" in table.stdout.splitlines()
    few = run(*sorted(scenes.iterdir()), *masks[:2], "--no-refine")
    assert few.exit_code == 2 and "2 rasters and 1 masks: --mask is" in few.stderr
    lines = run("lines.gpkg", *masks)
    assert lines.exit_code == 2 and "one file of lines has one truth" in lines.stderr


def test_a_tile_index_names_rasters_and_not_lines(run: Run, tmp_path: Path) -> None:
    levels = np.random.default_rng(3).random((40, 50)).astype(np.float32)
    box = GeoBox(size=RasterSize(height=40, width=50), transform=(1, 0, 0, 0, -1, 0))
    indexes = []
    for folder, values in (("scenes", levels), ("truths", (levels >= 0.4).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        write_raster(tmp_path / folder / "a.tif", values)
        indexes.append(tmp_path / f"{folder}.gti.gpkg")
        rasters = [IndexedRaster(location=f"{folder}/a.tif", box=box)]
        write_tile_index(indexes[-1], rasters, whole=box, dtype=str(values.dtype), nodata=255)
    scenes, truths = indexes
    result = run(scenes, "--mask", truths, "--no-refine", "--json")
    assert result.exit_code == 0, result.stderr
    assert [one["name"] for one in json.loads(result.stdout)["sources"][0]["scenes"]] == ["a"]
