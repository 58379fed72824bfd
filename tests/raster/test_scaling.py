"""How stored values become confidences."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.errors import GeothreshWarning, InputError, UsageError
from geothresh.raster.scaling import BandFacts, Contradiction, Scaling, decide_scaling, logistic


def facts(dtype: str, *values: float, **more: Any) -> BandFacts:
    return BandFacts(name="x.tif", dtype=np.dtype(dtype), sample=np.array(values, dtype), **more)


def confidences(band: BandFacts, option: Any = "auto") -> list[float]:
    scaling = decide_scaling(band, option)
    values = band.sample[np.newaxis]
    return scaling.apply(values, np.ones(values.shape, bool))[0].tolist()


@pytest.mark.parametrize(
    ("band", "option", "expected"),
    [
        (facts("uint8", 0, 51, 255), "auto", [0, 0.2, 1]),
        (facts("uint8", 0, 0), "auto", [0, 0]),
        (facts("uint8", 0, 50, 100), 100.0, [0, 0.5, 1]),
        (facts("uint8", 0, 127, 254, scale=1 / 254), "auto", [0, 0.5, 1]),
        (facts("uint8", 0, 1, bits=1), "auto", [0, 1]),
        (facts("uint16", 0, 5000, 10000), 10000.0, [0, 0.5, 1]),
        (facts("uint16", 0, 5000, 10000, scale=1e-4), "auto", [0, 0.5, 1]),
        (facts("int16", -100, 0, 100, scale=0.005, offset=0.5), "auto", [0, 0.5, 1]),
        (facts("float32", 0, 0.25, 1), "auto", [0, 0.25, 1]),
        (facts("float64", 0, 0.25, 1), "auto", [0, 0.25, 1]),
        (facts("float32", 0, 1), "auto", [0, 1]),
        (facts("float32", 0, 50, 100), 100.0, [0, 0.5, 1]),
        (facts("float32", -1e30, 0, 1e30), "logit", [0, 0.5, 1]),
        (facts("int8", -127, 0, 127), "logit", [0, 0.5, 1]),
    ],
)
def test_values_become_confidences(band: BandFacts, option: Any, expected: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert confidences(band, option) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("band", "option", "hint"),
    [
        (facts("uint16", 0, 8000), "auto", "`scale=10000`"),
        (facts("uint16", 0, 65535), "auto", "`scale=65535`"),
        (facts("int16", 0, 32640), "auto", "`scale=32767`"),
        (facts("uint16"), "auto", "`scale=N`"),
        (facts("int16", 0, 1), "auto", "`scale=1` "),
        (facts("int16", -7, 9), "auto", "`scale=logit`"),
        (facts("int8", 0, 100), "auto", "`scale=100`"),
        (facts("uint32", 0, 255), "auto", "`scale=255`"),
        (facts("uint16", 0, 8000, scale=0.1), "auto", "`scale"),
        (facts("uint8", 0, 255, scale=1 / 100), "auto", "`scale=255`"),
        (facts("float32", -4.5, 3.5), "auto", "`scale=logit`"),
        (facts("float32", 0, 99.5), "auto", "`scale=100`"),
        (facts("float32", 0, 255), "auto", "`scale=255`"),
        (facts("float32", -9999, 0, 0.9), "auto", "`nodata=-9999`"),
        (facts("float32", -3.4e38, 0, 0.9), "auto", "`nodata=-3.39999995e+38`"),
        (facts("uint8", 0, 255), 100.0, "`scale=255`"),
    ],
)
def test_what_cannot_be_decided_names_the_option(band: BandFacts, option: Any, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        decide_scaling(band, option)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="complex64"):
        decide_scaling(facts("complex64", 1))


@pytest.mark.parametrize("option", [0.0, -1.0, float("nan"), float("inf"), 1e-46, 1e39, "percent"])
def test_other_options_are_refused(option: Any) -> None:
    with pytest.raises(UsageError):
        decide_scaling(facts("uint8", 3), option)


@pytest.mark.parametrize(
    ("band", "text", "expected"),
    [
        (facts("uint8", 0, 1), "only 0 and 1", [0, 1]),
        (facts("uint8", 0, 100), "`scale=100`", [0, 100 / 255]),
        (facts("uint8", 0, 255), "looks like a mask", [0, 1]),
        (facts("float32", -0.005, 1.005), "clipped", [0, 1]),
    ],
)
def test_the_doubtful_is_told(band: BandFacts, text: str, expected: list[float]) -> None:
    with pytest.warns(GeothreshWarning, match=text):
        assert confidences(band) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("dtype", "scaling", "value"),
    [
        ("uint8", Scaling(text=""), 7),
        ("uint8", Scaling(text="", divisor=100), 200),
        ("float32", Scaling(text=""), 1.5),
        ("uint16", Scaling(text="", divisor=1e4), 20000),
    ],
)
def test_a_later_contradiction_is_found_unless_it_is_no_data(
    dtype: str, scaling: Scaling, value: float
) -> None:
    values = np.zeros((3, 4), dtype)
    values[1, 2] = value
    valid = np.ones((3, 4), bool)
    with pytest.raises(Contradiction) as caught:
        scaling.apply(values, valid)
    assert (caught.value.row, caught.value.column, caught.value.value) == (1, 2, value)
    valid[1, 2] = False
    assert not scaling.apply(values, valid).any()


def test_tags_of_one_over_a_whole_number_are_exact() -> None:
    (half,) = confidences(facts("uint8", 127, scale=1 / 254))
    assert half == 0.5


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), 5e-324, 1e-50, 1e46])
def test_scale_tags_without_meaning(scale: float) -> None:
    with pytest.raises(InputError, match="tags"):
        decide_scaling(facts("uint8", 3, 200, scale=scale))


@given(
    st.lists(st.floats(-700, 700, width=32), min_size=1, max_size=20),
)
def test_the_logistic_function_is_exact_and_never_overflows(values: list[float]) -> None:
    logits = np.array([values], np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = logistic(logits.copy(), np.ones(logits.shape, bool))
    with np.errstate(over="ignore"):
        expected = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("filler", [np.nan, np.inf, -np.inf, 1e300, -9999.0])
@pytest.mark.parametrize("logit", [False, True])
def test_what_stands_in_a_hole_never_shows(filler: float, logit: bool) -> None:
    values = np.array([[0.25, filler]])
    valid = np.array([[True, False]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Scaling(text="", logit=logit).apply(values, valid)
    assert found[0, 1] == 0.0
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-0.25)) if logit else 0.25)
