"""Plan a run over many files: which surfaces they make up, into which units these are cut.

All that can be checked is checked here, before the first tile: files are opened, some at a time,
and closed again. Nothing here grows with their pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from geothresh._version import __version__
from geothresh.addresses import identity
from geothresh.errors import UsageError
from geothresh.many.examining import Examination, WholeSurface
from geothresh.many.options import Many
from geothresh.many.units import output_path
from geothresh.mosaic.blending import AxisWeights
from geothresh.mosaic.readers import window_read
from geothresh.options import Blend
from geothresh.raster.grids import Surface, pieces_of
from geothresh.raster.paths import version_of
from geothresh.raster.scene import SceneSpec
from geothresh.raster.surface import OpenScenes, PlacedScene, SurfacePart
from geothresh.run.jobs import Method, RunOptions
from geothresh.run.outputs import installed
from geothresh.windows import PixelWindow

# Objects that a store is asked for at once.
_AT_ONCE = 16
# Of a larger unit most tiles are its own. A remembered tile takes 1 MB.
_FEW_TILES = 64
_STRIP_TILES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSurface:
    """A surface, and how it is refined."""

    surface: Surface
    specs: tuple[SceneSpec, ...]
    """Of its members, in their order."""
    method: Method
    shared: Mapping[str, object]
    """What the outputs of all units depend on, by name."""
    common: str
    """Digest of it."""
    identities: tuple[list[Any], ...]
    """What tells each member from others: the digests of several units ask for it."""

    def tiles_over(self, window: PixelWindow) -> list[Any]:
        """Where tiles lie over a window, how they are weighted, and where the surface ends."""
        grid, blend = self.method.grid, self.method.tiling.blend
        covering = grid.covering(window)
        seen = covering.intersection(grid.size.window())
        axes = []
        for tiles, count in zip(grid.over(window), (grid.n_rows, grid.n_cols), strict=True):
            weights = _weights(blend, grid.tile, grid.overlap, count)
            axes.append([len(weights.table), [weights.case(index) for index in tiles]])
        return [
            grid.tile, grid.overlap, covering.seen_from(window).ranges,
            None if seen is None else seen.seen_from(window).ranges, axes,
        ]  # fmt: skip


@lru_cache(maxsize=16)
def _weights(blend: Blend, tile: int, overlap: int, count: int) -> AxisWeights:
    return AxisWeights.build(blend, tile=tile, overlap=overlap, count=count)


def _shared(method: Method, many: Many) -> dict[str, object]:
    return {
        "geothresh": __version__,
        "torch": installed("torch"),
        **method.described(),
        "layers": many.written,
        **method.writing.bytes_depend_on,
    }


def plan_surface(
    surface: Surface, files: Examination, many: Many, options: RunOptions
) -> PlannedSurface:
    """Decide once, for all files of a surface, how it is refined; errors as `refine`."""
    specs = tuple(files.specs[index] for index in surface.members)
    with OpenScenes() as scenes:
        whole = WholeSurface(surface, specs, scenes)
        method = Method.of(whole, options)
    shared = _shared(method, many)
    return PlannedSurface(
        surface=surface, specs=specs, method=method, shared=shared,
        common=_digest(shared), identities=_identities(specs),
    )  # fmt: skip


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """A unit as it is planned; what is read for it is found when its turn comes."""

    name: str
    home: PlannedSurface
    member: int
    """The file, as the surface counts them."""
    window: PixelWindow
    """In the surface."""

    @property
    def source(self) -> str:
        """The file, as it was given."""
        return self.home.specs[self.member].source.name

    @property
    def tiles(self) -> int:
        """Tiles that are refined for it, at most."""
        rows, cols = self.home.method.grid.over(self.window)
        return len(rows) * len(cols)

    @property
    def shares_tiles(self) -> bool:
        """Whether it is so small that many of its tiles are those of its neighbours too."""
        return self.tiles <= _FEW_TILES and self.window.size != self.home.method.grid.size

    def turn(self) -> tuple[int, ...]:
        """By what units are sorted that share tiles, so that these are remembered until then.

        Columns as wide as the way from tile to tile, in strips of so many rows of tiles that those
        over a column and the next one fit into the memory, and few lie on two strips.
        """
        stride = self.home.method.grid.stride
        row, col = self.window.row, self.window.col
        return row // (_STRIP_TILES * stride), col // stride, row, col

    def part(self) -> SurfacePart:
        """What is read for it: its file, and those that lie in the tiles that it needs."""
        home = self.home
        own, *others = (
            PlacedScene(spec=home.specs[index], window=home.surface.placement.window(index))
            for index in self._seen()
        )
        size = home.method.grid.size
        return SurfacePart(size=size, window=self.window, own=own, others=tuple(others))

    def _seen(self) -> list[int]:
        """The members that are read for it, its own first."""
        grid = self.home.method.grid
        seen = window_read(grid.covering(self.window), grid.size)
        near = self.home.surface.placement.touching(seen)
        return [self.member, *(index for index in near if index != self.member)]

    def digest(self) -> str:
        """Of all that its outputs depend on: equal for whoever plans the same files.

        The rest of the surface is in it only as far as it is seen: where the tiles lie over the
        unit and how they are weighted, where the surface ends, which other files they touch.
        """
        window, home = self.window, self.home
        seen = self._seen()
        places = home.surface.placement.ranges(seen, window)
        read = [[home.identities[i], place] for i, place in zip(seen, places, strict=True)]
        return _digest([home.common, home.tiles_over(window), read])


def _identities(specs: Sequence[SceneSpec]) -> tuple[list[Any], ...]:
    """What tells each file, and how it is read, from others; stores are asked at once."""
    if not any(spec.source.remote for spec in specs):
        return tuple(map(_identity, specs))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="geothresh-objects") as pool:
        return tuple(pool.map(_identity, specs))


def _identity(spec: SceneSpec) -> list[Any]:
    """Of one file."""
    source = spec.source
    name = identity(source.location) if source.remote else source.location.rpartition("/")[2]
    return [
        name, version_of(source) if source.remote else source.file_size, source.modified_ns,
        spec.bidx, spec.mask_band, spec.has_mask, spec.nodata,
        spec.scaling.text, spec.scaling.divisor, spec.scaling.offset,
    ]  # fmt: skip


def plan_units(surfaces: Sequence[PlannedSurface], many: Many) -> list[PlannedUnit]:
    """Cut all surfaces into units, neighbours after one another.

    Raises:
        UsageError: two would have the same outputs.
    """
    units = []
    owners: dict[str, str] = {}
    for home in surfaces:
        for member in home.surface.placement.in_order():
            file = home.surface.placement.window(member)
            source = home.specs[member].source.name
            stem = Path(source.rstrip("/")).stem
            for suffix, piece in pieces_of(file.size, many.piece):
                name = stem + suffix
                other = owners.setdefault(name, source)
                if other != source:
                    raise UsageError(
                        f"{other} and {source}: the outputs of both would be called "
                        f"{name}_mask.tif; rename one, or refine them into two directories"
                    )
                units.append(PlannedUnit(name, home, member, piece.shifted(file.row, file.col)))
    return units


def in_turn(units: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    """Planned units in the order in which they are made: those that share tiles in succession."""
    ordered = []
    for _, of_surface in groupby(units, key=lambda unit: id(unit.home)):
        same = list(of_surface)
        ordered += sorted(same, key=PlannedUnit.turn) if _share_tiles(same) else same
    return ordered


def _share_tiles(units: Sequence[PlannedUnit]) -> bool:
    return all(unit.shares_tiles for unit in units)


def require_apart(units: Sequence[PlannedUnit], many: Many, directory: Path) -> None:
    """Refuse outputs that are inputs.

    Raises:
        UsageError: one is.
    """
    inputs: set[str] = set()
    for home in {id(unit.home): unit.home for unit in units}.values():
        inputs |= {spec.source.location for spec in home.specs}
    whole, layers = directory.absolute(), many.written
    near = {location for location in inputs if location.startswith(f"{whole}/")}
    if not near:
        return
    for unit in units:
        for layer in layers:
            if str(output_path(whole, unit.name, layer)) in near:
                path = output_path(directory, unit.name, layer)
                raise UsageError(
                    f"{path}: is an input and would be an output; name another `output_dir`"
                )
