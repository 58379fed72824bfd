"""GeoParquet by row groups: the features of a layer, near each other in a group, told by boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geothresh.errors import OutputError
from geothresh.vector import exchange, spill
from geothresh.vector.formats import format_of
from geothresh.vector.geoparquet import write_geoparquet
from geothresh.vector.layers import Layer
from geothresh.vector.writing import write_vectors

UTM = pyproj.CRS.from_epsg(32633).to_wkt()


def squares(count: int) -> Layer:
    """Squares of several sizes, here and there, with numbers of which some are missing."""
    rng = np.random.default_rng(count)
    x, y = rng.integers(0, 10_000, (2, count)).astype(float)
    side = rng.uniform(1, 30, count)
    mean = rng.uniform(0, 1, count)
    mean[::3] = np.nan
    return Layer(
        name="roads", kind="Polygon", geometry=shapely.box(x, y, x + side, y + side),
        attributes={"area": side**2, "count": np.arange(count), "mean": mean},
        metadata={"geothresh_mask": "town.tif", "geothresh_version": "1"},
    )  # fmt: skip


def same_rows(frame: geopandas.GeoDataFrame, layer: Layer) -> None:
    """Whether a frame holds the features of a layer, whatever their order."""
    frame = frame.sort_values("count", ignore_index=True)
    assert shapely.equals_exact(frame.geometry.to_numpy(), layer.geometry).all()
    for name, values in layer.attributes.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values)


@settings(max_examples=10)
@given(count=st.integers(0, 300), points=st.sampled_from([7, 60, 2**20]))
def test_all_features_come_back_whatever_the_groups(
    tmp_path_factory: pytest.TempPathFactory, count: int, points: int
) -> None:
    path = tmp_path_factory.mktemp("groups") / "roads.parquet"
    layer = squares(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_POINTS", points)
        assert write_vectors(path, [layer], crs=UTM) == ["Polygon"]
    frame = geopandas.read_parquet(path)
    assert frame.crs == pyproj.CRS.from_wkt(UTM)
    assert list(frame.columns) == ["area", "count", "mean", "geometry"]
    same_rows(frame, layer)
    groups = pyarrow.parquet.ParquetFile(path).num_row_groups
    assert groups == 1 if points == 2**20 else groups >= count * 5 // (points + 5)


def test_the_content_is_that_of_geopandas(tmp_path: Path) -> None:
    layer = squares(50)
    write_vectors(tmp_path / "ours.parquet", [layer], crs=UTM)
    theirs = geopandas.GeoDataFrame(dict(layer.attributes), geometry=list(layer.geometry), crs=UTM)
    theirs.to_parquet(tmp_path / "theirs.parquet", write_covering_bbox=True, schema_version="1.1.0")
    ours, expected = (
        pyarrow.parquet.read_schema(tmp_path / f"{name}.parquet") for name in ("ours", "theirs")
    )
    assert ours.names == expected.names and ours.types == expected.types
    told, theirs_told = (json.loads(one.metadata[b"geo"]) for one in (ours, expected))
    del theirs_told["creator"]
    assert told == theirs_told
    assert json.loads(ours.metadata[b"geothresh"])["geothresh_mask"] == "town.tif"


def test_without_a_crs_there_is_none(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.parquet", [squares(3)], crs=None)
    assert geopandas.read_parquet(tmp_path / "a.parquet").crs is None


def test_a_reader_of_a_part_passes_over_most_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "_POINTS", 500)
    layer = squares(2000)
    path = tmp_path / "roads.parquet"
    write_vectors(path, [layer], crs=UTM)
    source = pyarrow.parquet.ParquetFile(path)
    corner = 0
    for number in range(source.num_row_groups):
        group = source.metadata.row_group(number)
        sides = {
            group.column(k).path_in_schema: group.column(k).statistics
            for k in range(group.num_columns)
        }
        corner += sides["bbox.xmin"].min < 1000 and sides["bbox.ymin"].min < 1000
    assert source.num_row_groups >= 20 and corner <= 4
    part = geopandas.read_parquet(path, bbox=(0, 0, 1000, 1000))
    expected = shapely.intersects(layer.geometry, shapely.box(0, 0, 1000, 1000))
    assert sorted(part["count"]) == np.flatnonzero(expected).tolist()


def test_a_group_that_is_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_POINTS", 50)

    def lose(*arguments: Any, groups: Any, **options: Any) -> None:
        write_geoparquet(*arguments, groups=groups[:-1], **options)

    monkeypatch.setattr(exchange, "write_geoparquet", lose)
    path = tmp_path / "roads.parquet"
    assert format_of(path, None).name == "geoparquet"
    with pytest.raises(OutputError, match=r"does not hold what was written: \d+ of 100 features"):
        write_vectors(path, [squares(100)], crs=UTM)
    assert list(tmp_path.iterdir()) == []
