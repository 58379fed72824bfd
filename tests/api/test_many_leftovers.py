"""Files beside outputs that no run has made, or that a later run no longer makes."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pytest
import rasterio.shutil
import shapely

from geothresh import Many
from geothresh.errors import GeothreshWarning, OutputError, UsageError
from tests.support.fakes import Recognisable
from tests.support.many import VALUES, run, write_tiles
from tests.support.objects import ObjectStore
from tests.support.rasters import write_raster

UPDATE = Many(update=True)


OUT = "s3://bucket/out"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forget_indexes(record: Path, *, all_else: bool = False) -> None:
    """Make of a record one of a version that did not log indexes, or remove it."""
    if all_else:
        record.unlink()
        return
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(line for line in lines if b"indexed" not in line))


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


def test_update_removes_nothing_that_no_run_has_made(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([tiles], out)
    (out / "p12_changes.tif").write_text("mine")
    (out / "p12_confidence.tif").write_text("mine")
    (tiles / "p12.tif").unlink()
    assert run([tiles], out, many=UPDATE).removed == ("p12",)
    assert not (out / "p12_mask.tif").exists() and not (out / "p12_mask.qml").exists()
    for layer in ("changes", "confidence"):
        assert (out / f"p12_{layer}.tif").read_text() == "mine"


@pytest.mark.parametrize("name", ["mask.vrt", "mask.gti.gpkg"])
def test_an_index_that_no_run_has_made_is_replaced_by_overwrite_alone(
    tiles: Path, tmp_path: Path, name: str
) -> None:
    out, model = tmp_path / "out", Recognisable()
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name}: exists already, and is not an index as a run"):
        run([tiles], out, model=model)
    assert not model.tiles and (out / name).read_text() == "mine"
    assert len(run([tiles], out, overwrite=True).indexes) == 2
    assert (out / name).read_bytes() != b"mine"
    # What a run has left is replaced, but not what somebody made of it.
    (tiles / "p12.tif").unlink()
    assert run([tiles], out, many=UPDATE).removed
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    with pytest.raises(OutputError, match=f"{name}: exists already"):
        run([tiles], out)


def test_an_area_is_never_replaced_by_an_index(tiles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    area = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1e7, 1e7)], crs="EPSG:32632")
    area.to_file(folder / "mask.gti.gpkg")
    before = (folder / "mask.gti.gpkg").read_bytes()
    with pytest.raises(UsageError, match=r"mask.gti.gpkg: is an input and would be an output"):
        run([tiles], folder, aoi=folder / "mask.gti.gpkg", overwrite=True)
    assert (folder / "mask.gti.gpkg").read_bytes() == before


def test_an_index_that_is_an_input_is_never_replaced(tiles: Path, tmp_path: Path) -> None:
    index = tiles.parent / "mask.gti.gpkg"
    outlines = shapely.box([0, 1], 0, [1, 2], 1)
    files = {"location": ["tiles/p00.tif", "tiles/p01.tif"]}
    geopandas.GeoDataFrame(files, geometry=outlines, crs=32632).to_file(index)
    vrt = tiles.parent / "confidence.vrt"
    rasterio.shutil.copy(tiles / "p00.tif", vrt, driver="VRT")
    text, before = vrt.read_text(), index.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"mask.gti.gpkg: is an input and would be an output"):
            run([index], tiles.parent, overwrite=overwrite)
        with pytest.raises(UsageError, match=r"confidence.vrt: is an input and would be"):
            run(
                [vrt], tiles.parent, many=Many(layers="mask,confidence"), overwrite=overwrite,
                allow_vrt=True,
            )  # fmt: skip
    assert index.read_bytes() == before and vrt.read_text() == text


@pytest.mark.parametrize("name", ["mask.vrt", "mask.gti.gpkg"])
def test_an_object_that_is_no_index_of_a_run_is_kept(
    store: ObjectStore, tiles: Path, name: str
) -> None:
    store.objects[f"bucket/out/{name}"] = b"mine"
    with pytest.raises(OutputError, match=f"{name}: exists already, and is not an index as a run"):
        run([tiles], OUT)
    assert store.objects == {f"bucket/out/{name}": b"mine"}
    assert len(run([tiles], OUT, overwrite=True).indexes) == 2
    assert run([tiles], OUT).kept == 6
    (tiles / "p12.tif").unlink()
    assert run([tiles], OUT, many=Many(update=True, separately=True)).removed == ("p12",)
    assert not [key for key in store.objects if key.endswith((".vrt", ".gpkg"))]


@pytest.mark.parametrize("lost", [False, True])
def test_indexes_that_the_record_does_not_have_are_known_by_what_they_name(
    tiles: Path, tmp_path: Path, lost: bool
) -> None:
    out = tmp_path / "out"
    run([tiles], out, many=Many(layers="mask,confidence"))
    forget_indexes(out / ".geothresh.jsonl", all_else=lost)
    kept = run([tiles], out, many=Many(layers="mask,confidence")).kept
    assert kept == (0 if lost else 6)
    forget_indexes(out / ".geothresh.jsonl", all_else=lost)
    text = (out / "mask.vrt").read_text().replace("p11_mask.tif", "mine.tif")
    (out / "mask.vrt").write_text(text)
    with pytest.raises(OutputError, match=r"mask.vrt: exists already"):
        run([tiles], out, many=Many(layers="mask,confidence"))
    (out / "mask.vrt").unlink()
    if not lost:
        run([tiles], out, many=UPDATE)
        run([tiles], tmp_path / "fresh")
        assert names(out) == names(tmp_path / "fresh")


def other_grid(tiles: Path) -> None:
    write_raster(tiles / "q.tif", VALUES[:30, :30], crs="EPSG:32633")


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({"layers": "mask,confidence"}, {}, None),
        ({"layers": "mask,confidence,changes"}, {"layers": "changes"}, None),
        ({"layers": "mask,confidence"}, {"separately": True}, None),
        ({}, {}, other_grid),
    ],
)
@pytest.mark.filterwarnings("ignore:the 7 scenes lie on 2 pixel grids")
def test_update_leaves_what_a_run_from_nothing_would(
    tiles: Path, tmp_path: Path, before: dict, after: dict, change: object
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    run([tiles], out, many=Many(**before))
    if callable(change):
        change(tiles)
    run([tiles], out, many=Many(update=True, **after), threshold=0.4)
    run([tiles], fresh, many=Many(**after), threshold=0.4)
    assert names(out) == names(fresh)
    for path in fresh.glob("*.[tvq]*"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_what_somebody_has_changed_is_kept_with_a_warning(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([tiles], out, many=Many(layers="mask,confidence"))
    for name in ("p00_confidence.tif", "confidence.vrt"):
        (out / name).write_text("mine")
    with pytest.warns(GeothreshWarning) as warned:
        run([tiles], out, many=UPDATE)
    told = " ".join(str(warning.message) for warning in warned)
    assert "1 output of an earlier run (p00_confidence.tif) changed since" in told
    assert "confidence.vrt: is an index of outputs that are not there any more" in told
    assert (out / "p00_confidence.tif").read_text() == "mine"
    assert (out / "confidence.vrt").read_text() == "mine"
    assert not (out / "p01_confidence.tif").exists() and not (out / "confidence.gti.gpkg").exists()
