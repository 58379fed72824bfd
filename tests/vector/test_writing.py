"""A GeoPackage is complete or not there; it opens elsewhere as it was meant."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import shapely
from pyogrio import list_layers, raw, read_info
from pyproj import CRS

from geothresh.durability.locking import only_run
from geothresh.errors import OutputError, UsageError
from geothresh.sidecars import is_ours
from geothresh.vector import ogr, outputs
from geothresh.vector.formats import check_layer_name, layer_name_from
from geothresh.vector.layers import Layer
from geothresh.vector.ogr import write_layer
from geothresh.vector.outputs import Existing, check_vector_output
from geothresh.vector.styles import style_of
from geothresh.vector.writing import write_geopackage

UTM = CRS.from_epsg(32633).to_wkt()


def squares(count: int) -> Any:
    left = np.arange(count) * 2.0
    return shapely.box(left, 0.0, left + 1.0, 1.0)


def write(path: Path, count: int = 3, **options: Any) -> str:
    geometry = options.pop("geometry", squares(count))
    attributes = {"area_m2": np.arange(len(geometry)) + 0.5}
    arguments = {"name": "roads", "attributes": attributes, "kind": "Polygon", **options}
    how = {name: arguments.pop(name) for name in ("crs", "existing") if name in arguments}
    layer = Layer(geometry=geometry, **arguments)
    (written,) = write_geopackage(path, [layer], **{"crs": UTM, **how})
    return written


def layers_of(path: Path) -> list[str]:
    return [str(name) for name in list_layers(path)[:, 0]]


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_gis_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "roads.gpkg"
    means = np.array([0.25, np.nan, 1.0])
    attributes = {"area_m2": np.array([1.0, 2.0, 3.0]), "confidence_mean": means}
    assert write(path, attributes=attributes, metadata={"made_by": "a test"}) == "Polygon"
    frame = geopandas.read_file(path, layer="roads")
    assert frame.crs.to_epsg() == 32633
    assert frame.area_m2.tolist() == [1.0, 2.0, 3.0]
    assert frame.confidence_mean.isna().tolist() == [False, True, False]
    assert shapely.equals(frame.geometry.to_numpy(), squares(3)).all()
    info = read_info(path, layer="roads")
    assert info["geometry_type"] == "Polygon"
    assert info["layer_metadata"] == {"made_by": "a test"}
    assert info["capabilities"]["fast_spatial_filter"]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM rtree_roads_geom").fetchone() == (3,)
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert names_in(tmp_path) == ["roads.gpkg"]


def test_no_features_leave_a_layer_with_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "none.gpkg"
    assert write(path, 0) == "Polygon"
    frame = geopandas.read_file(path, layer="roads")
    assert len(frame) == 0
    assert list(frame.columns) == ["area_m2", "geometry"]
    assert frame.crs.to_epsg() == 32633
    assert read_info(path)["geometry_type"] == "Polygon"


def test_one_multipolygon_makes_a_layer_of_them(tmp_path: Path) -> None:
    path = tmp_path / "multi.gpkg"
    geometry = np.array([*squares(2), shapely.multipolygons(squares(2))], dtype=object)
    assert write(path, geometry=geometry) == "MultiPolygon"
    assert set(geopandas.read_file(path).geom_type) == {"MultiPolygon"}
    assert read_info(path)["geometry_type"] == "MultiPolygon"


def test_no_crs_is_written_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "plain.gpkg", crs=None)
    assert read_info(tmp_path / "plain.gpkg")["crs"] is None


def test_writing_and_reading_back_go_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ogr, "_POINTS", 20)  # four squares of five points
    write(tmp_path / "many.gpkg", 11)
    assert len(geopandas.read_file(tmp_path / "many.gpkg")) == 11

    def move_one(target: str, *, geometry: Any, append: bool, **rest: Any) -> None:
        moved = geometry.copy()
        if append:
            moved[-1] = moved[0]
        real(target, geometry=moved, append=append, **rest)

    real = raw.write
    monkeypatch.setattr(raw, "write", move_one)
    with pytest.raises(OutputError, match=r"feature \d+ of 11 has other corners"):
        write(tmp_path / "bad.gpkg", 11)
    assert names_in(tmp_path) == ["many.gpkg"]


def test_the_old_file_stays_until_the_new_one_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roads.gpkg"
    write(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write(path, 5)

    def forget_one(target: str, *, geometry: Any, field_data: Any, **rest: Any) -> None:
        real(target, geometry=geometry[:-1], field_data=[one[:-1] for one in field_data], **rest)

    def interrupt(*args: Any, **rest: Any) -> None:
        real(*args, **rest)
        raise KeyboardInterrupt

    real = raw.write
    for fake, error in ((forget_one, OutputError), (interrupt, KeyboardInterrupt)):
        monkeypatch.setattr(raw, "write", fake)
        with pytest.raises(error):
            write(path, 5, existing=Existing.REPLACE)
        assert path.read_bytes() == before
        assert names_in(tmp_path) == ["roads.gpkg"]
    monkeypatch.setattr(raw, "write", real)
    write(path, 5, existing=Existing.REPLACE)
    assert len(geopandas.read_file(path)) == 5


_LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import tests.vector.test_writing as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from geothresh.errors import OutputError
path = Path({path!r})
for limit in (0, 1000, 50_000, 100_000, 150_000, {size} - 4096, {size} - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        t.write(path, 2000, existing=t.Existing.REPLACE)
    except OutputError as error:
        assert "\\n" not in str(error), error
        continue
    print("written at", limit)
"""


def test_a_full_disk_is_noticed_whenever_it_fills_up(tmp_path: Path) -> None:
    path = tmp_path / "roads.gpkg"
    write(path, 2000)
    before = path.read_bytes()
    code = _LIMITED.format(root=str(Path(__file__).parents[2]), path=str(path), size=len(before))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["roads.gpkg"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        write(tmp_path / "roads.gpkg")
    finally:
        os.umask(old)
    assert (tmp_path / "roads.gpkg").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
def test_a_file_that_another_program_has_open_is_left_alone(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "roads.gpkg"
    write(path)
    path.with_name(path.name + ending).touch()
    with pytest.raises(OutputError, match="has it open or died"):
        check_vector_output(path, existing=Existing.REPLACE)


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    mask = tmp_path / "mask.tif"
    mask.touch()
    (tmp_path / "folder.gpkg").mkdir()
    (tmp_path / "link.gpkg").symlink_to(mask)
    for name, error, words in (
        ("roads.kml", UsageError, "tells no format"),
        ("roads", UsageError, "tells no format"),
        ("missing/roads.gpkg", OutputError, "does not exist"),
        ("folder.gpkg", OutputError, "is a directory"),
        ("link.gpkg", UsageError, "is the input"),
    ):
        with pytest.raises(error, match=words):
            check_vector_output(tmp_path / name, existing=Existing.REPLACE, inputs=[mask])
    assert (
        check_vector_output(tmp_path / "UPPER.GPKG", existing=Existing.REFUSE)
        == tmp_path / "UPPER.GPKG"
    )


def test_awkward_file_names(tmp_path: Path) -> None:
    for stem in ("straße 道路", 'it\'s "quoted"', "-dash", "a?b#c%20d", "n" * 204):
        write(tmp_path / f"{stem}.gpkg")
        assert len(geopandas.read_file(tmp_path / f"{stem}.gpkg")) == 3
    assert len(names_in(tmp_path)) == 5


@pytest.mark.parametrize("name", ["roads", "_", "R2", "a" * 63])
def test_good_layer_names(name: str, tmp_path: Path) -> None:
    assert check_layer_name(name) == name
    write(tmp_path / "named.gpkg", name=name)
    assert len(geopandas.read_file(tmp_path / "named.gpkg", layer=name)) == 3


@pytest.mark.parametrize(
    "name",
    ["", "2020", "a b", "a-b", 'roads"; DROP TABLE x;--', "a" * 64, "a" * 1000, "straße", "roads\n",
     "gpkg_contents", "GPKG_contents", "rtree_x", "sqlite_x"],
)  # fmt: skip
def test_bad_layer_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_layer_name(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("stem", "name"),
    [("scene_mask", "scene_mask"), ("S2 2024-05 mask", "S2_2024_05_mask"), ("2024", "layer_2024"),
     ("карта", "polygons"), ("", "polygons"), ("sqlite_x", "layer_sqlite_x"), ("x" * 90, "x" * 63)],
)  # fmt: skip
def test_layer_names_from_files(stem: str, name: str) -> None:
    assert layer_name_from(stem) == name


def test_layers_are_added_to_a_copy_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path, 3)
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE notes (text TEXT)")
        file.execute("INSERT INTO notes VALUES ('of somebody else')")
        file.commit()
    assert write(path, 5, name="slides", existing=Existing.ADD) == "Polygon"
    assert [len(geopandas.read_file(path, layer=n)) for n in ("roads", "slides")] == [3, 5]
    before = path.read_bytes()
    for name in ("roads", "SLIDES"):
        with pytest.raises(OutputError, match=f"has a layer {name} already.*`overwrite_layer"):
            write(path, 2, name=name, existing=Existing.ADD)
    assert path.read_bytes() == before
    write(path, 2, existing=Existing.REPLACE_LAYER, crs=CRS.from_epsg(4326).to_wkt())
    roads, slides = (geopandas.read_file(path, layer=n) for n in ("roads", "slides"))
    assert (len(roads), len(slides)) == (2, 5)
    assert (roads.crs.to_epsg(), slides.crs.to_epsg()) == (4326, 32633)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT text FROM notes").fetchone() == ("of somebody else",)
    assert names_in(tmp_path) == ["all.gpkg"]
    # Where there is no file yet, there is nothing to keep.
    write(tmp_path / "new.gpkg", 4, existing=Existing.ADD)
    assert len(geopandas.read_file(tmp_path / "new.gpkg")) == 4


def test_two_additions_at_once_lose_no_layer(tmp_path: Path) -> None:
    path = tmp_path / "roads.gpkg"
    write(path, name="first")
    with only_run(path), pytest.raises(OutputError, match="another run is making it"):
        write(path, name="second", existing=Existing.ADD)
    assert "first" in layers_of(path) and "second" not in layers_of(path)


def test_what_another_program_writes_meanwhile_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roads.gpkg"
    write(path, name="first")

    def edited(*given: Any, **options: Any) -> None:
        write_layer(*given, **options)
        with closing(sqlite3.connect(path)) as file:
            file.execute("CREATE TABLE noted (what TEXT)")
            file.commit()

    monkeypatch.setattr("geothresh.vector.writing.write_layer", edited)
    with pytest.raises(OutputError, match="another program has written to it meanwhile"):
        write(path, name="second", existing=Existing.ADD)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM noted").fetchone() == (0,)
    assert "first" in layers_of(path) and "second" not in layers_of(path)
    assert os.listdir(tmp_path) == ["roads.gpkg"]


def test_a_failed_addition_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all.gpkg"
    write(path, 3)
    before = path.read_bytes()

    def fail(*args: Any, **rest: Any) -> None:
        real(*args, **rest)
        raise OSError(28, "No space left on device")

    real = raw.write
    monkeypatch.setattr(raw, "write", fail)
    with pytest.raises(OutputError, match="nothing was left behind"):
        write(path, 5, name="more", existing=Existing.ADD)
    assert path.read_bytes() == before and names_in(tmp_path) == ["all.gpkg"]


def test_only_a_sound_geopackage_is_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "_PATIENCE", 0.2)
    path = tmp_path / "roads.gpkg"
    write(path, 200)
    whole = path.read_bytes()
    cases = {
        "text": b"not a database at all, but long enough to be looked at " * 40,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
    }
    for name, content in cases.items():
        other = tmp_path / f"{name}.gpkg"
        other.write_bytes(content)
        with pytest.raises(OutputError, match=r"no layer can be added|is damaged"):
            write(other, 2, name="more", existing=Existing.ADD)
        assert other.read_bytes() == content
    with closing(sqlite3.connect(path)) as held:
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="database is locked"):
            write(path, 2, name="more", existing=Existing.ADD)
        held.rollback()
    assert path.read_bytes() == whole


def styles(path: Path) -> dict[str, ElementTree.Element]:
    """The default style of each layer, as QGIS looks for it."""
    with closing(sqlite3.connect(path)) as file:
        rows = file.execute(
            "SELECT f_table_name, styleQML FROM layer_styles WHERE useAsDefault = 1 "
            "AND f_table_catalog = '' AND f_table_schema = '' AND f_geometry_column = 'geom'"
        ).fetchall()
        (kind,) = file.execute(
            "SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'"
        ).fetchone()
    assert kind == "attributes" and len(rows) == len({name for name, _ in rows})
    return {name: ElementTree.fromstring(text) for name, text in rows}


def test_layers_carry_their_style(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    lines = np.array([shapely.LineString([(0, 0), (9, 9)])] * 2)
    marks = {"bridged": np.array([True, False])}
    layers = [
        Layer(name="areas", kind="Polygon", geometry=squares(2), attributes={}),
        Layer(name="lines", kind="LineString", geometry=lines, attributes={}),
        Layer(name="gaps", kind="LineString", geometry=lines, attributes=marks),
        Layer(name="nodes", kind="Point", geometry=shapely.points([[0, 0]]), attributes={}),
    ]
    write_geopackage(path, layers, crs=UTM)
    found = styles(path)
    renderers = {name: style.find("renderer-v2") for name, style in found.items()}
    assert {name: one.get("type") for name, one in renderers.items()} == {
        "areas": "singleSymbol", "lines": "singleSymbol", "gaps": "categorizedSymbol",
        "nodes": "singleSymbol",
    }  # fmt: skip
    kinds = {name: one.find("symbols/symbol").get("type") for name, one in renderers.items()}
    assert kinds == {"areas": "fill", "lines": "line", "gaps": "line", "nodes": "marker"}
    values = [one.get("value") for one in renderers["gaps"].findall("categories/category")]
    assert values == ["false", "true"]
    numbers = [one.get("name") for one in renderers["gaps"].findall("symbols/symbol")]
    assert numbers == ["0", "1"]


def rows(path: Path) -> list[tuple[str, str, int]]:
    """Name, style and default of all that is kept, in order."""
    with closing(sqlite3.connect(path)) as file:
        found = file.execute(
            "SELECT styleName, styleQML, useAsDefault FROM layer_styles ORDER BY id"
        ).fetchall()
    return [
        (name, "ours" if is_ours(style, "vector") else style, use) for name, style, use in found
    ]


@pytest.mark.parametrize("existing", [Existing.REPLACE_LAYER, Existing.REPLACE])
def test_styles_that_the_user_saved_stay(tmp_path: Path, existing: Existing) -> None:
    path = tmp_path / "all.gpkg"
    write(path)
    write(path, name="slides", existing=Existing.ADD)
    assert rows(path) == [("roads", "ours", 1), ("slides", "ours", 1)]
    with closing(sqlite3.connect(path)) as file:  # as QGIS saves another one, as default
        file.execute("UPDATE layer_styles SET useAsDefault = 0 WHERE f_table_name = 'roads'")
        file.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, useAsDefault, description, update_time) "
            "VALUES ('', '', 'roads', 'geom', 'mine', '<qgis>mine</qgis>', 1, 'of March', 'then')"
        )
        file.commit()
    for _ in range(2):
        write(path, existing=existing)
        kept = [row for row in rows(path) if row[0] in ("mine", "roads")]
        assert sorted(kept) == [("mine", "<qgis>mine</qgis>", 1), ("roads", "ours", 0)]
    assert styles(path)["roads"].text == "mine"
    with closing(sqlite3.connect(path)) as file:
        (time,) = file.execute(
            "SELECT update_time FROM layer_styles WHERE styleName = 'mine'"
        ).fetchone()
    assert time == "then"


def test_a_style_of_ours_that_was_changed_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE layer_styles SET styleQML = replace(styleQML, 'solid', 'dash')")
        file.commit()
    write(path, existing=Existing.REPLACE_LAYER)
    assert [(kind == "ours", use) for _, kind, use in rows(path)] == [(False, 1), (True, 0)]


def test_those_of_earlier_versions_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path)
    with closing(sqlite3.connect(path)) as file:
        former = '<qgis version="3.22" styleCategories="Symbology">red</qgis>'
        file.execute("UPDATE layer_styles SET styleQML = ?", (former,))
        file.commit()
    write(path, existing=Existing.REPLACE_LAYER)
    assert rows(path) == [("roads", "ours", 1)]


def test_no_styles(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    for _ in range(2):
        layers = [Layer(name="roads", kind="Polygon", geometry=squares(2), attributes={})]
        write_geopackage(path, layers, crs=UTM, existing=Existing.REPLACE_LAYER, style=False)
        assert layers_of(path) == ["roads"]
    write(path, existing=Existing.REPLACE_LAYER)
    write_geopackage(path, layers, crs=UTM, existing=Existing.REPLACE_LAYER, style=False)
    assert rows(path) == []


def test_styles_conform_to_the_standard(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path, name="a" * 60)
    with closing(sqlite3.connect(path)) as file:
        name, time = file.execute("SELECT styleName, update_time FROM layer_styles").fetchone()
    assert len(name) == 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # GDAL warned of the time whenever the file was read
        geopandas.read_file(path, layer="layer_styles")
    with pytest.raises(UsageError, match="layer_styles"):
        write(path, name="layer_styles", existing=Existing.ADD)


def test_the_legend_of_lines_says_what_they_are(tmp_path: Path) -> None:
    lines = np.array([shapely.LineString([(0, 0), (9, 9)])])
    layer = Layer(
        name="slips", kind="LineString", geometry=lines,
        attributes={"bridged": np.array([False])}, metadata={"geothresh_theme": "landslides"},
    )  # fmt: skip
    style = ElementTree.fromstring(style_of(layer))
    labels = [one.get("label") for one in style.iter("category")]
    assert labels == ["landslides", "gap bridged"]
    unknown = replace(layer, metadata={})
    assert 'label="foreground"' in style_of(unknown)
