"""Plan a run over many files: decide how each surface is refined, and cut surfaces into units.

Everything that can be checked is checked before the first tile. Files are opened, some at a time,
and closed again. Time and memory do not grow with the number of pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
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
from geothresh.mosaic.blending import AxisWeights
from geothresh.mosaic.readers import window_read
from geothresh.options import Blend
from geothresh.raster.grids import Surface, pieces_of
from geothresh.raster.paths import RasterSource, version_of
from geothresh.raster.scene import SceneSpec
from geothresh.raster.surface import OpenScenes, PlacedScene, SurfacePart
from geothresh.run.jobs import Method, RunOptions
from geothresh.run.outputs import installed
from geothresh.windows import PixelWindow

# Most requests to a store at once.
_AT_ONCE = 16
# Units of at most this many tiles share many tiles with their neighbours. A cached tile takes 1 MB.
_FEW_TILES = 64
# Rows of tiles in a strip of units, see `PlannedUnit.turn`.
_STRIP_TILES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSurface:
    """A surface, and how it is refined."""

    surface: Surface
    specs: tuple[SceneSpec, ...]
    """How each member of the surface is read, in order."""
    method: Method
    """How the surface is refined."""
    shared: Mapping[str, object]
    """Everything that the outputs of all units depend on, by name."""
    common: str
    """Digest of `shared`."""
    identities: tuple[list[Any], ...]
    """What identifies each member; part of the digests of units."""

    def tiles_over(self, window: PixelWindow) -> list[Any]:
        """What a window's pixels depend on besides files: tiles, their weights, surface borders."""
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
    """Decide once, for all files of a surface, how it is refined; raises like `refine`."""
    specs = tuple(files.specs[index] for index in surface.members)
    with OpenScenes() as scenes:
        whole = WholeSurface(surface, specs, scenes)
        method = Method.of(whole, options)
    shared = _shared(method, many)
    return PlannedSurface(
        surface=surface, specs=specs, method=method, shared=shared,
        common=_digest(shared), identities=_identities(specs),
    )  # fmt: skip


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """A planned unit; the files that it reads are determined when it is made."""

    name: str
    """Stem of the names of its outputs."""
    home: PlannedSurface
    """The surface that it belongs to."""
    member: int
    """Index of its file in the surface."""
    window: PixelWindow
    """Its pixels, counted from the first pixel of the surface."""

    @property
    def source(self) -> str:
        """Name of its file, as the user gave it."""
        return self.home.specs[self.member].source.name

    @property
    def tiles(self) -> int:
        """Most tiles that are refined for it."""
        rows, cols = self.home.method.grid.over(self.window)
        return len(rows) * len(cols)

    @property
    def shares_tiles(self) -> bool:
        """Whether it is so small that its neighbours need many of its tiles, too."""
        return self.tiles <= _FEW_TILES and self.window.size != self.home.method.grid.size

    def turn(self) -> tuple[int, ...]:
        """Sort key of units that share tiles, so that shared tiles are still in the cache.

        Units are sorted by strip, and within it by column. A column is one tile stride wide. A
        strip has as many rows of tiles as let the tiles of two columns fit in the cache.
        """
        stride = self.home.method.grid.stride
        row, col = self.window.row, self.window.col
        return row // (_STRIP_TILES * stride), col // stride, row, col

    def part(self) -> SurfacePart:
        """The part of the surface with the files to read: its own, and those in its tiles."""
        home = self.home
        own, *others = (
            PlacedScene(spec=home.specs[index], window=home.surface.placement.window(index))
            for index in self._members_read()
        )
        size = home.method.grid.size
        return SurfacePart(size=size, window=self.window, own=own, others=tuple(others))

    def _members_read(self) -> list[int]:
        """Indices of the members that are read for it, its own first."""
        grid = self.home.method.grid
        seen = window_read(grid.covering(self.window), grid.size)
        near = self.home.surface.placement.touching(seen)
        return [self.member, *(index for index in near if index != self.member)]

    def digest(self) -> str:
        """Digest of everything that its outputs depend on; equal in every run over the same files.

        Of the rest of the surface, only what matters for the unit is included: positions and
        weights of tiles, the borders of the surface, and the other files that the tiles touch.
        """
        window, home = self.window, self.home
        members = self._members_read()
        ranges = home.surface.placement.ranges(members, window)
        read = [[home.identities[i], lies] for i, lies in zip(members, ranges, strict=True)]
        return _digest([home.common, home.tiles_over(window), read])


def _identities(specs: Sequence[SceneSpec]) -> tuple[list[Any], ...]:
    """What identifies each file and how it is read; requests to stores run at the same time."""
    if not any(spec.source.remote for spec in specs):
        return tuple(map(_identity, specs))
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="geothresh-objects") as pool:
        return tuple(pool.map(_identity, specs))


def _identity(spec: SceneSpec) -> list[Any]:
    """What identifies a file and how it is read."""
    source = spec.source
    name = identity(source.location) if source.remote else source.location.rpartition("/")[2]
    return [
        name, version_of(source) if source.remote else source.file_size, source.modified_ns,
        spec.bidx, spec.mask_band, spec.has_mask, spec.nodata,
        spec.scaling.text, spec.scaling.divisor, spec.scaling.offset,
    ]  # fmt: skip


def _stem(source: RasterSource) -> str:
    """Stem of the names of the outputs of a raster: its file name without extension and query."""
    name = source.name.partition("?")[0] if source.remote else source.name
    return Path(name.rstrip("/")).stem


def plan_units(surfaces: Sequence[PlannedSurface], many: Many) -> list[PlannedUnit]:
    """Cut all surfaces into units, sorted so that neighbours follow one another.

    Raises:
        UsageError: two files would have the same outputs.
    """
    units = []
    owners: dict[str, str] = {}
    for home in surfaces:
        for member in home.surface.placement.in_order():
            file = home.surface.placement.window(member)
            source = home.specs[member].source.name
            stem = _stem(home.specs[member].source)
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
    """Sort planned units in the order in which they are made, see `PlannedUnit.turn`."""
    ordered = []
    for _, of_surface in groupby(units, key=lambda unit: id(unit.home)):
        same = list(of_surface)
        ordered += sorted(same, key=PlannedUnit.turn) if _share_tiles(same) else same
    return ordered


def _share_tiles(units: Sequence[PlannedUnit]) -> bool:
    return all(unit.shares_tiles for unit in units)


def require_apart(directory: Path, names: Iterable[str], inputs: Iterable[str]) -> None:
    """Refuse outputs that are inputs, by name, through a link or by ``..``.

    Args:
        directory: where the outputs go.
        names: names of the outputs.
        inputs: local files.

    Raises:
        UsageError: an output is an input.
    """
    near = _names_in(directory, set(inputs))
    name = next((name for name in names if name in near), None) if near else None
    if name is not None:
        raise UsageError(
            f"{directory / name}: is an input and would be an output; name another `output_dir`"
        )


def _names_in(directory: Path, files: Iterable[str]) -> set[str]:
    """Names of the files that lie in a directory, and of those there that others are links to."""
    whole = os.path.realpath(directory)
    real = lru_cache(maxsize=None)(os.path.realpath)  # few folders hold a hundred thousand files
    names = set()
    for file in files:
        folder, name = os.path.split(file)
        if real(folder) == whole:
            names.add(name)
        if os.path.islink(file):  # noqa: PTH114
            folder, name = os.path.split(os.path.realpath(file))
            if folder == whole:
                names.add(name)
    return names
