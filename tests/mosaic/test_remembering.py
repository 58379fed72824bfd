"""Tiles that are asked for again: the same values, without another call of the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.errors import ModelError
from geothresh.mosaic import TileMemory
from geothresh.types import Float32Array
from tests.support.fakes import FakeSource, NanRefiner, UnevenRefiner

SIDE = 32
TILE_BYTES = SIDE * SIDE * 4
TILES = np.random.default_rng(3).random((7, SIDE, SIDE), np.float32)
batches = st.lists(st.lists(st.integers(0, len(TILES) - 1), min_size=1, max_size=5), max_size=12)


def asked(batch: list[int]) -> Float32Array:
    """A batch of some of the tiles."""
    return TILES[batch]


@given(batches, st.integers(0, 8))
def test_what_is_remembered_is_what_the_refiner_gives(asks: list[list[int]], room: int) -> None:
    """However few tiles the memory holds."""
    refiner = UnevenRefiner()
    remembering = TileMemory(room * TILE_BYTES).of(refiner)
    for batch in asks:
        expected = UnevenRefiner()(asked(batch))
        np.testing.assert_array_equal(remembering(asked(batch)), expected)
    different = len({place for batch in asks for place in batch})
    assert refiner.tiles >= different
    if room >= len(TILES):
        assert refiner.tiles == different


def test_what_was_not_asked_for_the_longest_is_forgotten() -> None:
    refiner = UnevenRefiner()
    remembering = TileMemory(2 * TILE_BYTES).of(refiner)
    for place in (0, 1, 0, 2, 0):
        remembering(asked([place]))
    assert refiner.tiles == 3
    remembering(asked([1]))
    assert refiner.tiles == 4


def test_another_refiner_has_no_part_in_it() -> None:
    memory = TileMemory()
    first, second = UnevenRefiner(), UnevenRefiner()
    memory.of(first)(asked([0]))
    assert memory.of(first) is memory.of(first)
    memory.of(second)(asked([0]))
    assert (first.tiles, second.tiles) == (1, 1)
    memory.of(first)(asked([0]))
    assert first.tiles == 2


def test_a_refiner_is_loaded_from_its_source() -> None:
    source = FakeSource(kind="uneven")
    np.testing.assert_array_equal(TileMemory().of(source)(asked([4])), UnevenRefiner()(asked([4])))


def test_nothing_unsound_is_remembered() -> None:
    refiner = NanRefiner()
    remembering = TileMemory().of(refiner)
    for calls in (1, 2):
        with pytest.raises(ModelError, match="values from nan"):
            remembering(asked([0, 1]))
        assert len(refiner.batches) == calls
