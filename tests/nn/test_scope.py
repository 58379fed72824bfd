"""What a model is for, and the resolution at which a raster is read for it."""

from __future__ import annotations

import pytest

from geothresh.errors import ModelError, UsageError
from geothresh.nn.scope import UNKNOWN, GroundSampleDistance, ModelScope, Range

ROADS = ModelScope(
    theme="roads and streets",
    pixels=GroundSampleDistance(least=0.2, greatest=2.0),
    widths=Range(least=4, greatest=32),
)


@pytest.mark.parametrize(
    ("asked", "metres", "width", "ratio"),
    [
        ("native", 30.0, 200.0, 1.0),
        ("auto", 0.5, None, 1.0),
        ("auto", 0.1, None, 0.5),
        ("auto", 6.0, None, 3.0),
        ("auto", 0.001, None, 0.125),  # at most eight times
        ("auto", 1.0, 64.0, 1.0),  # the ground decides where it is known
        ("auto", None, 10.0, 1.0),
        ("auto", None, 64.0, 0.5),  # twice too wide: its pixels are twice too small
        ("auto", None, 2.0, 2.0),
        ("auto", None, None, 1.0),
        (0.5, 0.25, None, 0.5),
        (1.0, 8.0, None, 8.0),
    ],
)
def test_the_ratio_of_pixels(
    asked: float | str, metres: float | None, width: float | None, ratio: float
) -> None:
    assert ROADS.raster_ratio(asked, metres=metres, width=width) == pytest.approx(ratio)


def test_a_model_that_tells_nothing_reads_everything_as_it_is() -> None:
    assert UNKNOWN.raster_ratio("auto", metres=30.0, width=99.0) == 1


def test_metres_need_a_raster_that_knows_its_own() -> None:
    with pytest.raises(UsageError, match="`resolution` 0.5: .* not known"):
        ROADS.raster_ratio(0.5, metres=None)


def test_the_card_tells_the_scope() -> None:
    card = {
        "theme": "roads and streets",
        "ground_sample_distance": [0.2, 2.0],
        "widths": [4, 32],
        "keep": 0.2,
        "strength": 0.5,
    }
    scope = ModelScope.of_card(card)
    assert scope == ModelScope(
        theme=ROADS.theme, pixels=ROADS.pixels, widths=ROADS.widths, keep=0.2, strength=0.5
    )
    assert scope.text() == "roads and streets, pixels of 0.2 to 2 m"
    assert ModelScope.of_card({}) == UNKNOWN
    assert UNKNOWN.text() == ""


@pytest.mark.parametrize(
    "card",
    [
        {"keep": 2},
        {"keep": "x"},
        {"keep": 10**400},
        {"strength": 0},
        {"strength": 1.5},
        {"strength": []},
        {"widths": [3]},
        {"widths": [4, 2]},
        {"widths": 5},
        {"widths": {}},
        {"widths": [1, 10**400]},
    ],
)
def test_a_card_that_makes_no_sense_is_refused(card: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="makes no sense"):
        ModelScope.of_card(card)


def test_zoom_widens_what_training_has_shown() -> None:
    seen = GroundSampleDistance(least=0.3, greatest=1.2).widened(4.0)
    assert (seen.least, seen.greatest) == pytest.approx((0.15, 2.4))
    assert GroundSampleDistance(least=1, greatest=1).widened(1.0).text == "1 m"
