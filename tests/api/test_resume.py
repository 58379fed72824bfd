"""Runs that are interrupted anywhere, and the same run again: the same files to the last byte."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geothresh import RefineResult, refine
from geothresh.durability import Journal
from geothresh.errors import InputError, OutputError, UsageError
from geothresh.mosaic import ArrayReader, Sink, Workers, mosaic, refining
from geothresh.raster.writing import RasterWriter
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize
from tests.support.fakes import FakeSource, Recognisable, UnevenRefiner
from tests.support.flat import grouped
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster

TILES: dict[str, Any] = {"tile_size": 64, "overlap": 32, "creation_options": {"BLOCKYSIZE": "64"}}
# Strips of 512 rows: eight of them.
HEIGHT, WIDTH = 3700, 70
# Smooth, so that the mask has some hundred polygons and not many thousand.
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
VALUES = (0.5 + 0.45 * np.sin(ROWS / 13.3) * np.cos(COLUMNS / 9.1)).astype(np.float32)
VALUES[900:1100, 20:60] = np.nan
VALUES[2000:2600] = np.nan


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", VALUES)


def run(scene: Path, folder: Path, refiner: Recognisable, **options: Any) -> RefineResult:
    others = {"confidence": folder / "conf.tif", "vector": folder / "v.gpkg"}
    return refine(
        scene, folder / "out.tif", model=refiner, **grouped(**grouped(**others | TILES | options))
    )


@pytest.fixture(scope="module")
def reference(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RefineResult]:
    folder = tmp_path_factory.mktemp("reference")
    return folder, run(scene, folder, Recognisable())


FILES = ["conf.tif", "out.manifest.json", "out.tif", "v.gpkg"]
SIDES = ["conf.qml", "out.qml", "out.tif.aux.xml"]


def require_same(folder: Path, result: RefineResult, reference: tuple[Path, RefineResult]) -> None:
    expected, told = reference
    assert sorted(os.listdir(folder)) == sorted(FILES + SIDES)
    for name in ("out.tif", "conf.tif"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    with closing(sqlite3.connect(folder / "v.gpkg")) as file:
        assert file.execute("select count(*) from v").fetchone() == (told.features,)
    own = ("mask", "confidence", "vector", "manifest", "seconds", "strips_resumed")
    facts, wanted = result.as_dict(), told.as_dict()
    assert {k: v for k, v in facts.items() if k not in own} == {
        k: v for k, v in wanted.items() if k not in own
    }


@settings(max_examples=6)
@given(stops=st.lists(st.integers(0, 100), min_size=1, max_size=3))
def test_a_run_goes_on_wherever_it_was_stopped(
    scene: Path,
    reference: tuple[Path, RefineResult],
    tmp_path_factory: pytest.TempPathFactory,
    stops: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("run")
    for stop in stops:
        # What is left to do may take fewer calls than that.
        with suppress(KeyboardInterrupt):
            run(scene, folder, Recognisable(stop), overwrite=True)
        assert set(without_sides(folder)) - {".out.tif.geothresh"} in (set(), set(FILES))
    told: list[tuple[int, int]] = []
    refiner = Recognisable()
    result = run(scene, folder, refiner, overwrite=True, progress=lambda *at: told.append(at))
    # Only what the strips to be made need is refined: tiles that reach below the others.
    data = np.isfinite(VALUES)
    grid = TileGrid(size=RasterSize(height=HEIGHT, width=WIDTH), tile=64, overlap=32, patch=16)
    assert refiner.tiles == sum(
        tile.row_stop > result.strips_resumed * 512 and data[tile.slices()].any()
        for tile in grid.tiles()
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (result.tiles, result.tiles)
    require_same(folder, result, reference)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_strips_below_do_not_depend_on_those_above(workers: int) -> None:
    """The engine's part: started at any strip, it gives what it gave from there on."""
    values = np.random.default_rng(1).random((200, 150), np.float32)
    values[60:110, :90] = np.nan
    reader = ArrayReader(values)
    grid = TileGrid(size=reader.size, tile=64, overlap=32, patch=16)

    def made(start: int, **where: Any) -> tuple[dict[PixelWindow, bytes], list[tuple[int, int]]]:
        chunks: dict[PixelWindow, bytes] = {}
        strips: list[tuple[int, int]] = []

        def store(window: PixelWindow, confidence: Float32Array, valid: BoolArray) -> None:
            chunks[window] = confidence.tobytes() + valid.tobytes()

        stats = mosaic(
            reader,
            UnevenRefiner() if not where else FakeSource(kind="uneven"),
            Sink(
                store,
                chunk_height=32,
                chunk_width=64,
                start_strip=start,
                on_strip=lambda *tiles: strips.append(tiles),
            ),
            grid=grid,
            **where,
        )
        assert stats.tiles_refined == sum(refined for refined, _ in strips)
        assert stats.tiles_skipped == sum(skipped for _, skipped in strips)
        return chunks, strips

    where = {}
    if workers:
        where = {"where": Workers(workers), "reader_spec": _Remembered(200, 150)}
    whole, strips = made(0)
    for start in range(8) if not workers else (3,):
        chunks, below = made(start, **where)
        assert below == strips[start:]
        assert chunks == {window: c for window, c in whole.items() if window.row >= 32 * start}


class _Remembered:
    """A spec of the array above, which every process makes for itself."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __hash__(self) -> int:
        return hash(self.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Remembered) and self.shape == other.shape

    def open(self) -> ArrayReader:
        values = np.random.default_rng(1).random(self.shape, np.float32)
        values[60:110, :90] = np.nan
        return ArrayReader(values)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(7))
def test_an_interruption_while_files_are_put_in_place(
    scene: Path,
    reference: tuple[Path, RefineResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    number: int,
) -> None:
    renamed: list[str] = []
    replace = os.replace

    def stopping(source: Path, target: Path) -> None:
        if Path(target).parent == tmp_path:
            renamed.append(Path(target).name)
            if len(renamed) == number + 1 and when == "before":
                raise KeyboardInterrupt
        replace(source, target)
        if len(renamed) == number + 1 and Path(target).parent == tmp_path:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Recognisable())
    monkeypatch.undo()
    there = {name: (tmp_path / name).stat().st_ino for name in renamed[:-1]}
    refiner = Recognisable()
    require_same(tmp_path, run(scene, tmp_path, refiner), reference)
    assert refiner.tiles == 0
    if number > 1:  # both rasters were there: they are left alone
        assert there["out.tif"] == (tmp_path / "out.tif").stat().st_ino


def test_an_old_output_stays_until_its_replacement_is_proven(
    scene: Path, reference: tuple[Path, RefineResult], tmp_path: Path
) -> None:
    for name in FILES:
        (tmp_path / name).write_text("old")
    with pytest.raises(OutputError, match="exists already"):
        run(scene, tmp_path, Recognisable())
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Recognisable(60), overwrite=True)
    assert without_sides(tmp_path) == [".out.tif.geothresh", *FILES]
    assert all((tmp_path / name).read_text() == "old" for name in FILES)
    with pytest.raises(OutputError, match="exists already"):
        run(scene, tmp_path, Recognisable())
    result = run(scene, tmp_path, Recognisable(), overwrite=True)
    assert result.strips_resumed > 0
    require_same(tmp_path, result, reference)


def test_a_full_disk_keeps_the_work(
    scene: Path,
    reference: tuple[Path, RefineResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: RasterWriter) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(RasterWriter, "finish", full)
    with pytest.raises(OutputError, match="no room"):
        run(scene, tmp_path, Recognisable())
    assert os.listdir(tmp_path) == [".out.tif.geothresh"]
    monkeypatch.undo()
    refiner = Recognisable()
    require_same(tmp_path, run(scene, tmp_path, refiner), reference)
    assert refiner.tiles == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"threshold": 0.4}, "threshold (0.5, now 0.4)"),
        ({"overlap": 16}, "overlap (32, now 16)"),
        ({"blend": "crop"}, "blend (hann, now crop)"),
        ({"tta": "d4"}, "tta (none, now d4)"),
        ({"confidence": None}, "outputs ("),
        ({"creation_options": {}}, "creation_options ("),
    ],
)
def test_a_run_of_other_parameters_does_not_go_on(
    scene: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Recognisable(60))
    with pytest.raises(UsageError, match="`restart") as caught:
        outputs = {"confidence": tmp_path / "conf.tif", "vector": tmp_path / "v.gpkg"}
        refine(
            scene,
            tmp_path / "out.tif",
            model=Recognisable(),
            **grouped(**outputs | TILES | options),
        )
    assert named in str(caught.value)
    assert os.listdir(tmp_path) == [".out.tif.geothresh"]


def _touch(scene: Path) -> None:
    os.utime(scene, ns=(0, scene.stat().st_mtime_ns + 1))


def _rewrite(scene: Path) -> None:
    time = scene.stat().st_mtime_ns
    content = bytearray(scene.read_bytes())
    content[-1] ^= 1
    scene.write_bytes(content)
    os.utime(scene, ns=(0, time))


@pytest.mark.catalogue(22)
@pytest.mark.parametrize("change", [_touch, _rewrite])
def test_a_run_of_another_input_does_not_go_on(
    scene: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy = tmp_path / "scene.tif"
    copy.write_bytes(scene.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        refine(copy, model=Recognisable(60), **grouped(**TILES))
    change(copy)
    with pytest.raises(InputError, match="another input .*`restart"):
        refine(copy, model=Recognisable(), **grouped(**TILES))
    result = refine(copy, model=Recognisable(), **grouped(restart=True, **TILES))
    assert result.strips_resumed == 0
    assert without_sides(tmp_path) == ["scene.tif", "scene_mask.tif"]


def test_a_refiner_that_nobody_can_recognise_starts_afresh(scene: Path, tmp_path: Path) -> None:
    class Nameless(Recognisable):
        digest = ""

    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Nameless(60))
    assert os.listdir(tmp_path) == []


def test_without_resume_nothing_is_kept(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Recognisable(60), resume=False)
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Recognisable(60))
    assert run(scene, tmp_path, Recognisable(), resume=False).strips_resumed == 0
    assert sorted(os.listdir(tmp_path)) == sorted(FILES + SIDES)


def test_an_impossible_size_is_refused_before_any_work(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geothresh.run.outputs.free_bytes", lambda path: 2**10)
    refiner = Recognisable()
    with pytest.raises(OutputError, match="0 MiB are free in .*; make room"):
        run(scene, tmp_path, refiner, creation_options={"COMPRESS": "NONE"})
    assert refiner.tiles == 0 and os.listdir(tmp_path) == []


@pytest.mark.catalogue(90)
def test_two_runs_of_one_output_do_not_meet(scene: Path, tmp_path: Path) -> None:
    with Journal(tmp_path / "out.tif", {}):
        with pytest.raises(OutputError, match="another run is making it"):
            run(scene, tmp_path, Recognisable())
        with pytest.raises(OutputError, match="another run is making it"):
            run(scene, tmp_path, Recognisable(), restart=True, resume=False, overwrite=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.catalogue(127)
def test_clocks_do_not_matter(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene from the future, a clock that is set back between two runs, another time zone."""
    copy = tmp_path / "scene.tif"
    copy.write_bytes(scene.read_bytes())
    os.utime(copy, (4e9, 4e9))
    with pytest.raises(KeyboardInterrupt):
        refine(copy, model=Recognisable(60), **grouped(**TILES))
    monkeypatch.setattr(time, "time", lambda: 1e6)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        result = refine(copy, model=Recognisable(), **grouped(**TILES))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert result.strips_resumed > 0


@pytest.mark.parametrize(
    ("name", "driver", "files"),
    [
        ("v.geojson", "GeoJSON", {"v.geojson"}),
        ("v.fgb", "FlatGeobuf", {"v.fgb"}),
        ("v.shp", "ESRI Shapefile", {"v.shp", "v.shx", "v.dbf", "v.prj", "v.cpg"}),
    ],
)
def test_polygons_of_any_format_are_put_in_place_whole(
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    driver: str,
    files: set[str],
) -> None:
    replace, renamed = os.replace, []

    def stopping(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target).parent == tmp_path:
            renamed.append(Path(target).name)
            if len(renamed) == 2:  # the mask, and one file of the vectors
                raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path, Recognisable(), confidence=None, vector=tmp_path / name)
    monkeypatch.undo()
    result = run(scene, tmp_path, Recognisable(), confidence=None, vector=tmp_path / name)
    assert set(without_sides(tmp_path)) == {"out.tif", "out.manifest.json"} | files
    found = pyogrio.read_info(tmp_path / name)
    assert (found["driver"], found["features"]) == (driver, result.features)
    digests = json.loads((tmp_path / "out.manifest.json").read_text())["sha256"]
    assert set(digests) == {"out.tif"} | files


@pytest.mark.parametrize("workers", [0, 1])
def test_a_processor_of_another_kind_does_not_go_on_with_a_run(
    scene: Path, tmp_path: Path, tiny_model: Path, workers: int
) -> None:
    """``auto`` is bf16 on the one and fp32 on the other, which would be mixed in one raster."""

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"model": tiny_model, "device": "cpu", **TILES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geothresh.nn.device.has_bf16", lambda: True)
        with suppress(KeyboardInterrupt):
            refine(scene, tmp_path / "out.tif", progress=stop, **grouped(**options))
    assert (tmp_path / ".out.tif.geothresh" / "s000001.bin").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geothresh.nn.device.has_bf16", lambda: False)
        refining._load.cache_clear()  # a process keeps its model, which has a format already
        with pytest.raises(UsageError, match=r"precision.*bf16.*fp32"):
            refine(scene, tmp_path / "out.tif", **grouped(workers=workers, **options))
    done = refine(scene, tmp_path / "out.tif", **grouped(precision="bf16", **options))
    assert done.strips_resumed > 1
    with rasterio.open(done.mask) as mask:
        assert mask.tags()["GEOTHRESH_PRECISION"] == "bf16"
        assert mask.tags()["GEOTHRESH_DEVICE"] == "cpu"
