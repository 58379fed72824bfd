"""Styles, names of classes and statistics: read back with GDAL, and as QGIS looks for them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geothresh import colours
from geothresh.raster.creation import (
    CHANGES,
    CONFIDENCE,
    CONFIDENCE_FLOAT,
    THRESHOLD,
    BandFormat,
    mask_band,
)
from geothresh.raster.styles import class_description, raster_style
from geothresh.raster.writing import BandStatistics
from geothresh.sidecars import is_ours

ALL = [
    mask_band(),
    mask_band("roads & <streets>"),
    CHANGES,
    THRESHOLD,
    CONFIDENCE,
    CONFIDENCE_FLOAT,
]


def entries(style: str) -> list[dict[str, str]]:
    """Attributes of the classes, or of the stops of a ramp."""
    root = ElementTree.fromstring(style)
    return [dict(one.attrib) for tag in ("paletteEntry", "item") for one in root.iter(tag)]


@pytest.mark.parametrize("band", ALL)
def test_a_style_names_every_class_and_lets_the_map_through(band: BandFormat) -> None:
    style = raster_style(band)
    assert is_ours(style, "raster") and not is_ours(style, "vector")
    found = entries(style)
    assert len(found) == len(band.classes or band.ramp)
    if band.classes:
        assert [one["label"] for one in found] == [one.label for one in band.classes]
        assert found[0]["alpha"] == "0" and {one["alpha"] for one in found[1:]} == {"255"}
    elif band is not THRESHOLD:
        assert found[0]["alpha"] == "0" and found[-1]["alpha"] == "255"


def test_each_thing_has_one_colour() -> None:
    added, removed = entries(raster_style(CHANGES))[1:]
    assert added["color"] == colours.hexadecimal(colours.ADDED) and added["label"] == "added"
    assert removed["color"] == colours.hexadecimal(colours.REMOVED)
    assert CHANGES.colours[1] == colours.ADDED and CHANGES.colours[2] == colours.REMOVED
    assert mask_band().colours[1] == colours.FOREGROUND


@pytest.mark.parametrize("band", [one for one in ALL if one.classes])
def test_gdal_reads_the_description(tmp_path: Path, band: BandFormat) -> None:
    path = tmp_path / "m.tif"
    with rasterio.open(path, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8"):
        pass
    description = class_description(band)
    assert description is not None and is_ours(description, "raster")
    (tmp_path / "m.tif.aux.xml").write_text(description, "utf-8")
    with rasterio.open(path) as dataset:
        assert str(tmp_path / "m.tif.aux.xml") in dataset.files
        copy = tmp_path / "m.vrt"
        rasterio.shutil.copy(dataset, copy, driver="VRT")  # writes out what GDAL knows
    root = ElementTree.parse(copy).getroot()
    assert [one.text for one in root.iter("Category")] == [one.label for one in band.classes]
    rows = [[cell.text for cell in row.iter("F")] for row in root.iter("Row")]
    assert [row[:2] for row in rows] == [[str(one.value), one.label] for one in band.classes]


@given(
    values=st.sampled_from([(0, 1), (0, 1, 255), tuple(range(256))]).flatmap(
        lambda found: hnp.arrays(
            np.uint8,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
            elements=st.sampled_from(found),
        )
    ),
    cut=st.integers(1, 8),
)
def test_statistics_are_those_of_the_valid_values(values: np.ndarray, cut: int) -> None:
    seen = BandStatistics()
    for part in (values[:cut], values[cut:]):
        if part.size:
            seen.add(part)
    check(seen, values[values != 255].astype(float), values.size)


@given(
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.one_of(st.floats(0, 1, width=32), st.just(float("nan"))),
    ),
    cut=st.integers(1, 8),
)
def test_those_of_floats_do_not_depend_on_the_windows(values: np.ndarray, cut: int) -> None:
    parts, whole = BandStatistics(), BandStatistics()
    for part in (values[cut:], values[:cut]):
        if part.size:
            parts.add(part)
    whole.add(values)
    assert parts.tags() == whole.tags()
    check(whole, values[~np.isnan(values)].astype(float), values.size, 2e-5)


def check(seen: BandStatistics, valid: np.ndarray, size: int, tolerance: float = 1e-9) -> None:
    tags = {name.removeprefix("STATISTICS_"): float(v) for name, v in seen.tags().items()}
    if not valid.size:
        assert tags == {}
        return
    assert (tags["MINIMUM"], tags["MAXIMUM"]) == (valid.min(), valid.max())
    assert tags["MEAN"] == pytest.approx(valid.mean(), abs=tolerance)
    assert tags["STDDEV"] == pytest.approx(valid.std(), abs=max(tolerance, 1e-6))
    assert tags["VALID_PERCENT"] == pytest.approx(100 * valid.size / size)
