"""Geometries that are kept in a file are read back as they were, in any order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geothresh import Polygons, VectorWriting, vectorize
from geothresh.errors import OutputError
from geothresh.vector import spill as module
from geothresh.vector.spill import (
    Spill,
    StoredGeometries,
    bounds_of,
    changed,
    joined,
    of_one_type,
    parts_of,
    spilling,
    taken,
    wkb_of,
)
from geothresh.vector.units import Geometries
from tests.support.polygons import random_mask, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spill")


def some_shapes(count: int, seed: int, *, several: bool = False) -> Geometries:
    """Polygons of random places and numbers of corners."""
    rng = np.random.default_rng(seed)
    centres = shapely.points(rng.random((count, 2)) * 1e6)
    discs = shapely.buffer(centres, 5.0, quad_segs=1)
    rough = rng.random(count) < 0.5
    discs[rough] = shapely.buffer(centres[rough], 3.0, quad_segs=40)
    if several:
        discs[-1] = shapely.multipolygons([discs[-1], shapely.box(-9, -9, -8, -8)])
    return discs


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    seed=st.integers(0, 2**20),
    gap=st.sampled_from([0, 100, 1 << 16]),
    several=st.booleans(),
)
def test_they_are_as_in_memory(
    folder: Path, counts: list[int], seed: int, gap: int, several: bool
) -> None:
    batches = [some_shapes(count, seed + k) for k, count in enumerate(counts)]
    batches.append(some_shapes(3, seed, several=several))
    memory = np.concatenate(batches)
    order = np.random.default_rng(seed).permutation(len(memory))
    with pytest.MonkeyPatch.context() as patch, spilling(folder / "a.gpkg") as spill:
        patch.setattr(module, "_GAP", gap)
        patch.setattr(module, "_POINTS", 100)
        stored = joined([spill.add(batch) for batch in batches])
        assert isinstance(stored, StoredGeometries)
        pairs = [(taken(stored, order), memory[order])]
        pairs.append((changed(pairs[0][0], shapely.reverse), shapely.reverse(memory[order])))
        for ours, theirs in pairs:
            assert len(ours) == len(theirs)
            assert parts_of(ours) == parts_of(theirs)
            np.testing.assert_array_equal(bounds_of(ours), bounds_of(theirs))
            kind, one = of_one_type(ours, "Polygon")
            twin, other = of_one_type(theirs, "Polygon")
            assert kind == twin == ("MultiPolygon" if several else "Polygon")
            for some in (slice(None), slice(1, 3), order[:5], order[:0]):
                np.testing.assert_array_equal(shapely.to_wkb(one[some]), wkb_of(other, some))
                np.testing.assert_array_equal(wkb_of(one, some), wkb_of(other, some))
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_said() -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full:
        spill = Spill(full, Path("roads.gpkg"))
        with pytest.raises(OutputError, match=r"roads\.gpkg: 3 geometries .*No space left.*full"):
            spill.add(some_shapes(3, 0))


def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w+b", buffering=0) as file:
        stored = Spill(file, Path("roads.gpkg")).add(some_shapes(3, 0))
        file.truncate(100)
        with pytest.raises(OutputError, match=r"cannot be read again \(\d+ bytes are missing\)"):
            stored[:]


_LIMITED = """
import resource, signal, sys
from geothresh import OutputError, vectorize
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 1, 5000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        vectorize(*sys.argv[1:])
    except OutputError as error:
        print(error)
"""


def test_a_disk_that_fills_up_while_polygons_are_kept_leaves_nothing(tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.tif", random_mask(1, 60, 60, 0.5))
    here = [sys.executable, "-c", _LIMITED, str(mask), str(tmp_path / "v.gpkg")]
    done = subprocess.run(here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3
    assert all("cannot be kept in a file beside it (File too large)" in line for line in said)
    assert [file.name for file in tmp_path.iterdir()] == ["mask.tif"]


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "geojson", "parquet", "shp"])
def test_files_are_the_same_from_a_file_and_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A tolerance of nothing keeps them in memory, and every corner."""
    mask = write(tmp_path / "mask.tif", random_mask(1, 60, 60, 0.5))
    monkeypatch.setattr(module, "_POINTS", 300)
    frames = []
    for name, draw in (("a", Polygons()), ("b", Polygons(simplify=1e-9))):
        file = tmp_path / f"{name}.{ending}"
        vectorize(mask, file, draw=draw, writing=VectorWriting(dst_crs="EPSG:4326"))
        read = geopandas.read_parquet if ending == "parquet" else geopandas.read_file
        frames.append(read(file))
    assert len(frames[0]) == len(frames[1]) > 200
    assert shapely.equals(frames[0].geometry, frames[1].geometry).all()
