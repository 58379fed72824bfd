"""Decimals of attributes: two for metres, three for shares, more where pixels are tiny."""

from __future__ import annotations

import numpy as np
import pytest

from geothresh.vector.layers import rounded

VALUE = 12.3456789


@pytest.mark.parametrize(
    ("name", "pixel", "expected"),
    [
        ("length_m", 1.0, 12.35),
        ("perimeter_m", 30.0, 12.35),
        ("rect_width_m", 0.05, 12.346),
        ("area_m2", 0.3, 12.35),
        ("area_m2", 0.05, 12.3457),
        ("area_m2", 1e-5, VALUE),
        ("confidence_p10", 1e-5, 12.346),
        ("compactness", 1.0, 12.346),
        ("orientation_deg", 1e-5, 12.35),
        ("width_m", 0.0, VALUE),
    ],
)
def test_decimals(name: str, pixel: float, expected: float) -> None:
    assert rounded({name: np.array([VALUE])}, pixel=pixel)[name].tolist() == [expected]


def test_directions_stay_below_180_degrees() -> None:
    found = rounded({"orientation_deg": np.array([179.9965, 179.99, 0.0])}, pixel=1.0)
    assert found["orientation_deg"].tolist() == [0.0, 179.99, 0.0]


def test_what_is_no_fraction_stays() -> None:
    given = {"degree": np.array([3]), "bridged": np.array([True]), "width_m": np.array([np.nan])}
    found = rounded(given, pixel=1.0)
    assert found["degree"].dtype == given["degree"].dtype and found["bridged"].dtype == np.bool_
    assert np.isnan(found["width_m"][0])
    single = rounded({"confidence_min": np.array([0.1], np.float32)}, pixel=1.0)
    assert single["confidence_min"].tolist() == [0.1]
