"""Names of files that mean something else to a library than to the user."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.raster.paths import find_raster
from geothresh.vector.reading import find_layer, read_geometries
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
WORDS = ["a;b", "a!b", "a.zip!b", "a\nb", "a\tb"]
"""pyogrio takes what comes before or after these marks for the file."""
ODD = ["a#b", "a?b", "a%20b", "a%2fb", "a&b", "a b", "a:b", "http:b", "zip:b", "-b", "it's", 'a"b',
       "PG:dbname=x", "路", "<b>", "$(b)", "`b`", "a|b", "*", "~"]  # fmt: skip


def geojson(count: int) -> str:
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
    }
    return json.dumps({"type": "FeatureCollection", "features": [feature] * count})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 1
    write_raster(tmp_path / "m.tif", mask)
    return tmp_path


@pytest.mark.parametrize("stem", WORDS)
@pytest.mark.parametrize("ending", ["gpkg", "geojson", "fgb", "shp"])
def test_vectors_are_not_written_where_a_library_would_look_elsewhere(
    stem: str, ending: str, place: Path
) -> None:
    for command in (["vectorize", "-o"], ["refine", "--vector-out"]):
        if command[0] == "refine" and ending != "gpkg":
            continue
        result = runner().invoke(main, [*command, f"{stem}.{ending}", "m.tif"])
        assert result.exit_code == 2, result.output
        assert result.stderr.splitlines()[-1].endswith("rename it")
        assert sorted(file.name for file in place.iterdir()) == ["m.tif"]


@pytest.mark.parametrize("stem", WORDS)
def test_vectors_are_not_read_where_a_library_would_look_elsewhere(stem: str, place: Path) -> None:
    (place / f"{stem}.geojson").write_text(geojson(1))
    with pytest.raises(UsageError, match="rename it"):
        find_layer(f"{stem}.geojson")


def test_an_archive_that_begins_as_a_geojson_is_not_opened(place: Path) -> None:
    """A list of files elsewhere, in an archive behind a GeoJSON: the start would let it pass."""
    with zipfile.ZipFile("tail.zip", "w") as archive:
        archive.writestr("x.vrt", "<OGRVRTDataSource></OGRVRTDataSource>")
    (place / "x.zip").write_bytes(geojson(1).encode() + (place / "tail.zip").read_bytes())
    with pytest.raises(UsageError, match="rename it"):
        find_layer("x.zip")


@pytest.mark.parametrize("stem", ODD)
@pytest.mark.parametrize("ending", ["gpkg", "geojson"])
def test_all_other_names_are_those_of_their_files(stem: str, ending: str, place: Path) -> None:
    """Written under the name, and what is read is what stands under it."""
    name = f"{stem}.{ending}"
    result = runner().invoke(main, ["vectorize", f"--output={name}", "m.tif"])
    assert result.exit_code == 0, result.output
    style = [] if ending == "gpkg" else [f"{stem}.qml"]
    assert sorted(file.name for file in place.iterdir()) == sorted(["m.tif", name, *style])
    assert len(read_geometries(find_layer(name))[0]) == 1


def test_a_directory_called_like_a_protocol_is_a_directory(place: Path) -> None:
    folder = place / "http:" / "127.0.0.1:1"
    folder.mkdir(parents=True)
    (folder / "x.geojson").write_text(geojson(2))
    assert find_layer(Path("http:/127.0.0.1:1/x.geojson")).n_features == 2
    result = runner().invoke(main, ["vectorize", "m.tif", "-o", "http:/127.0.0.1:1/y.gpkg"])
    assert result.exit_code == 0, result.output
    assert (folder / "y.gpkg").is_file()


@pytest.mark.parametrize("stem", [*WORDS, *ODD])
def test_rasters_are_read_and_written_under_their_own_names(
    stem: str, place: Path, tiny_model: Path
) -> None:
    (place / "m.tif").rename(place / f"{stem}.tif")
    # What comes before and after the marks exists too, and is something else.
    for other in {"a", "b.tif", "a.zip", "b"} - {f"{stem}.tif"}:
        (place / other).write_text("nothing of a raster")
    before = {file.name for file in place.iterdir()}
    model = ["-m", str(tiny_model)]
    result = runner().invoke(main, ["refine", *model, "--", f"./{stem}.tif"])
    assert result.exit_code == 0, result.output
    written = {file.name for file in place.iterdir()} - before
    assert written == {f"{stem}_mask{end}" for end in (".tif", ".qml", ".tif.aux.xml")}


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="not the name of a file"):
        find_raster("good.tif\0.vrt")


def test_an_output_that_is_the_input_by_another_way(place: Path) -> None:
    (place / "d").mkdir()
    for output in ("m.tif", "./m.tif", "d/../m.tif", str(place / "m.tif")):
        result = runner().invoke(main, ["refine", "m.tif", "-o", output, "--overwrite"])
        assert result.exit_code == 2 and "is the input" in result.stderr


@pytest.mark.parametrize("leads_to", ["/proc/self/fd/1", "/dev/fd/1", "/proc/thread-self/fd/2"])
def test_a_stream_of_the_process_is_not_replaced_by_a_file(leads_to: str, place: Path) -> None:
    """/dev/stdout is such a link, and where stdout goes to a file it leads to a regular one."""
    stream = place / "stdout.tif"
    stream.symlink_to(leads_to)
    for command in (["refine", "m.tif"], ["vectorize", "m.tif"]):
        name = stream if command[0] == "refine" else stream.with_suffix(".gpkg")
        if name is not stream:
            name.symlink_to(leads_to)
        result = runner().invoke(main, [*command, "-o", str(name), "--overwrite"])
        assert result.exit_code == 4 and "stream" in result.stderr, result.stderr
        assert name.is_symlink()
