"""The grid covers every pixel; chunks and groups share out the work without gap or overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.errors import UsageError
from geothresh.tiling import ChunkPlan, TileGrid, TileGroup
from geothresh.windows import RasterSize

sides = st.integers(1, 300)


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    patch = draw(st.sampled_from([4, 16]))
    patches = draw(st.integers(1, 5))
    shared = draw(st.integers(0, patches - 1))
    return TileGrid(
        size=RasterSize(height=draw(sides), width=draw(sides)),
        tile=patches * patch,
        overlap=shared * patch,
        patch=patch,
    )


@st.composite
def plans(draw: st.DrawFn) -> ChunkPlan:
    return ChunkPlan(
        grid=draw(grids()),
        chunk_height=draw(st.integers(8, 200)),
        chunk_width=draw(st.integers(8, 200)),
        group_tiles=draw(st.integers(1, 9)),
    )


def all_groups(plan: ChunkPlan) -> list[TileGroup]:
    """In the order in which chunks need them."""
    return [group for chunk in range(plan.n_chunks) for group in plan.groups_from(chunk)]


@given(grids())
def test_tiles_cover_every_pixel_and_none_is_superfluous(grid: TileGrid) -> None:
    covered = np.zeros((grid.size.height, grid.size.width), int)
    tiles = list(grid.tiles())
    assert len(tiles) == grid.n_tiles
    for tile in tiles:
        assert (tile.height, tile.width) == (grid.tile, grid.tile)
        assert tile.row % grid.stride == tile.col % grid.stride == 0
        part = covered[tile.slices()]
        # New pixels in each: a tile fewer would leave a gap.
        assert (part == 0).any()
        part += 1
    assert covered.min() >= 1
    assert covered.max() <= (-(-grid.tile // grid.stride)) ** 2


@given(plans())
def test_chunks_partition_the_raster_in_raster_order(plan: ChunkPlan) -> None:
    counts = np.zeros((plan.grid.size.height, plan.grid.size.width), int)
    chunks = list(plan.chunks())
    assert [chunk.index for chunk in chunks] == list(range(plan.n_chunks))
    corners = [(chunk.window.row, chunk.window.col) for chunk in chunks]
    assert corners == sorted(corners)
    for chunk in chunks:
        assert chunk.window.row % plan.chunk_height == chunk.window.col % plan.chunk_width == 0
        counts[chunk.window.slices()] += 1
    assert (counts == 1).all()


@given(plans())
def test_groups_hold_each_tile_once_and_own_each_pixel_once(plan: ChunkPlan) -> None:
    tiles = np.zeros((plan.grid.n_rows, plan.grid.n_cols), int)
    owned = np.zeros((plan.grid.size.height, plan.grid.size.width), int)
    for group in all_groups(plan):
        assert 1 <= group.n_tiles <= plan.group_tiles
        tiles[group.row, group.col_start : group.col_stop] += 1
        owned[group.owned.slices()] += 1
        assert group.owned.intersection(group.window) == group.owned
    assert (tiles == 1).all()
    assert (owned == 1).all()


@given(plans())
def test_groups_name_exactly_the_chunks_they_touch(plan: ChunkPlan) -> None:
    chunks = list(plan.chunks())
    firsts = []
    for group in all_groups(plan):
        touched = [c.index for c in chunks if c.window.intersection(group.window) is not None]
        assert sorted(group.chunks) == touched
        assert group.chunks[0] == touched[0]
        firsts.append(touched[0])
    assert firsts == sorted(firsts)


@given(plans(), st.integers(0, 3))
def test_a_chunk_knows_the_groups_that_touch_it_and_which_of_them_are_new(
    plan: ChunkPlan, first_strip: int
) -> None:
    groups = all_groups(plan)
    first = min(first_strip, plan.n_strips - 1) * plan.chunks_per_strip
    new: dict[TileGroup, int] = {}
    for chunk in range(first, plan.n_chunks):
        touching = plan.groups_of(chunk)
        assert set(touching) == {group for group in groups if chunk in group.chunks}
        begun = plan.groups_from(chunk, first=first)
        assert [group for group in touching if group not in new] == begun
        new |= dict.fromkeys(begun, chunk)
    assert set(new) == {group for group in groups if group.chunks[-1] >= first}


def test_number_of_tiles_at_the_default() -> None:
    counts = [
        TileGrid(size=RasterSize(height=side, width=1)).n_rows
        for side in (1, 511, 512, 513, 896, 897, 4000)
    ]
    assert counts == [1, 1, 1, 2, 2, 3, 11]


@pytest.mark.parametrize(
    ("tile", "overlap", "patch", "named"),
    [
        (500, 128, 64, "tile size 500"),
        (0, 0, 64, "tile size 0"),
        (512, 512, 64, "overlap 512"),
        (512, 100, 64, "overlap 100"),
        (512, -64, 64, "overlap -64"),
        (512, 128, 0, "patch 0"),
    ],
)
def test_a_grid_that_breaks_the_patches_is_refused(
    tile: int, overlap: int, patch: int, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        TileGrid(size=RasterSize(height=9, width=9), tile=tile, overlap=overlap, patch=patch)


def test_a_plan_without_chunk_height_is_refused() -> None:
    with pytest.raises(UsageError, match="chunk height 0"):
        ChunkPlan(grid=TileGrid(size=RasterSize(height=9, width=9)), chunk_height=0)
