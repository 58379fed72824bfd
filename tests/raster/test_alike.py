"""Of files that are like one that GDAL has examined is told what GDAL would find of each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from geothresh.errors import InputError
from geothresh.options import Reading
from geothresh.raster import alike
from geothresh.raster.alike import examine_each
from geothresh.raster.checks import MOST_PIXELS
from geothresh.raster.dataset import open_raster
from geothresh.raster.paths import find_raster
from geothresh.raster.scene import Examined
from tests.support.rasters import NORTH_UP, write_raster

VALUES = np.random.default_rng(1).integers(0, 255, (70, 90), np.uint8)
MANY = 10**6


def told(one: Examined | InputError) -> tuple[Any, ...]:
    if isinstance(one, InputError):
        return (str(one),)
    blocks = one.inventory
    shown = None if blocks is None else (blocks.examined.tolist(), blocks.ends.tolist())
    # Ground control points of rasterio are equal to themselves alone.
    return one.spec, repr(one.box), one.kind, shown


def look(files: Sequence[Path], few: int, **options: Any) -> tuple[list[Any], list[str]]:
    """What is told of files, and of what is warned."""
    sources = [find_raster(path) for path in files]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [
            told(one) for one in examine_each(sources, Reading(**options), MOST_PIXELS, few=few)
        ]
    return found, sorted(str(one.message) for one in caught)


def require_same(files: Sequence[Path], **options: Any) -> None:
    assert look(files, 0, **options) == look(files, MANY, **options)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that GDAL opens."""
    names: list[str] = []

    def counting(source: Any, make: Any) -> Any:
        names.append(Path(source.name).name)
        return open_raster(source, make)

    monkeypatch.setattr(alike, "open_raster", counting)
    return names


def row_of_files(folder: Path, count: int = 5, **options: Any) -> list[Path]:
    values = options.pop("values", VALUES)
    return [
        write_raster(
            folder / f"t{number}.tif",
            np.roll(values, number, -1),
            transform=NORTH_UP @ Affine.translation(number * 90.25, -number * 3),
            **options,
        )
        for number in range(count)
    ]


WRITERS: dict[str, dict[str, Any]] = {
    "strips": {},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    "bigtiff": {"bigtiff": "YES", "compress": "lzw"},
    "big endian": {"endianness": "BIG", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "floats": {"values": (VALUES / 255).astype(np.float32), "nodata": -9999.0},
    "nodata 0": {"nodata": 0},
    "scaled": {"scale": (0.004, 0.1)},
    "bits": {"values": VALUES & 1, "nbits": 1},
    "mask": {"mask": VALUES > 40},
    "alpha": {
        "values": np.stack([VALUES, VALUES | 3]),
        "photometric": "minisblack",
        "alpha": "yes",
    },
    "point": {"tags": {"AREA_OR_POINT": "Point"}},
    "no crs": {"crs": None},
    "geographic": {"crs": "EPSG:4326"},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_one_of_a_kind_is_opened_and_the_others_are_as_they_would_be_found(
    tmp_path: Path, opened: list[str], writer: str
) -> None:
    files = row_of_files(tmp_path, **WRITERS[writer])
    found = look(files, 0)
    assert opened == ["t0.tif"]
    assert found == look(files, MANY)
    assert len(opened) == 1 + len(files)


def test_sparse_files_are_told_as_each_is(tmp_path: Path, opened: list[str]) -> None:
    files = row_of_files(tmp_path, tiled=True, blockxsize=16, blockysize=16, sparse_ok=True)
    values = VALUES.copy()
    values[:40] = 0
    files.append(
        write_raster(
            tmp_path / "u.tif", values, tiled=True, blockxsize=16, blockysize=16, sparse_ok=True
        )
    )
    assert any("blocks are missing" in text for text in look(files, 0)[1])
    assert opened == ["t0.tif"]
    require_same(files)


def test_statistics_and_tags_of_the_writer_make_no_kind(tmp_path: Path, opened: list[str]) -> None:
    files = row_of_files(tmp_path)
    for number, path in enumerate(files):
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(MADE_OF=f"scene {number}")
            dataset.update_tags(1, STATISTICS_MEAN=number)
            dataset.update_tags(TIFFTAG_DATETIME=f"2026:01:01 00:00:0{number}")
    found = look(files, 0)
    assert opened == ["t0.tif"]
    assert found == look(files, MANY)


def test_files_of_several_kinds_are_told_apart(tmp_path: Path, opened: list[str]) -> None:
    files = []
    for number, writer in enumerate(WRITERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for path in row_of_files(folder, 2, **WRITERS[writer]):
            files.append(path.rename(tmp_path / f"{number}_{path.name}"))
        folder.rmdir()
    require_same(files)
    require_same(files, nodata=7.0)


@pytest.mark.parametrize(
    "transform",
    [None, Affine(2, 0.1, 500_000, 0.1, -2, 5_000_000), Affine(2, 0, 500_000, 0, 2, 5_000_000)],
)
def test_files_that_are_tied_to_the_ground_otherwise_are_opened(
    tmp_path: Path, opened: list[str], transform: Affine | None
) -> None:
    files = [write_raster(tmp_path / f"{name}.tif", VALUES, transform=transform) for name in "abc"]
    found = look(files, 0)
    assert len(opened) == 3
    assert found == look(files, MANY)


@pytest.mark.parametrize("beside", ["t2.tfw", "t2.tif.aux.xml", "T2.TFW"])
def test_what_lies_beside_a_file_is_looked_at(
    tmp_path: Path, opened: list[str], beside: str
) -> None:
    files = row_of_files(tmp_path)
    world = "3\n0\n0\n-3\n1000\n2000\n"
    band = "<PAMRasterBand band='1'><NoDataValue>3</NoDataValue></PAMRasterBand>"
    aux = f"<PAMDataset>{band}</PAMDataset>"
    (tmp_path / beside).write_text(world if beside.lower().endswith("w") else aux)
    found = look(files, 0)
    assert opened == ["t0.tif", "t2.tif"]
    assert found == look(files, MANY)


def test_with_other_files_in_the_folder_all_are_opened(tmp_path: Path, opened: list[str]) -> None:
    files = row_of_files(tmp_path)
    (tmp_path / "MTL.txt").write_text("")
    look(files, 0)
    assert len(opened) == len(files)


def test_a_file_that_was_cut_short_is_told_as_gdal_tells_it(tmp_path: Path) -> None:
    files = row_of_files(tmp_path, tiled=True, blockxsize=16, blockysize=16)
    content = files[3].read_bytes()
    files[3].write_bytes(content[: len(content) - 100])
    files[4].write_bytes(content[:200])
    (_, _, _, cut, short), _ = look(files, 0)
    assert "lies beyond the end of the file" in cut[0]
    assert len(short) == 1
    require_same(files)


@settings(max_examples=10)
@given(st.data())
def test_a_damaged_file_is_told_as_gdal_tells_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    writer = data.draw(st.sampled_from(["strips", "tiles", "bigtiff", "big endian", "scaled"]))
    files = row_of_files(folder, 2, **WRITERS[writer])
    content = bytearray(files[1].read_bytes())
    blocks = min(place for place in look(files, MANY)[0][1][3][1])
    header = min(blocks, 600)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    files[1].write_bytes(content)
    try:
        find_raster(files[1])
    except InputError:
        return
    require_same(files)
