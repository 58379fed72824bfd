"""Indexes of the outputs of many files: each layer as one raster, for GDAL and QGIS.

An index is logged in the record before it is put in place. So a later run knows its own indexes,
and replaces or removes no others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from geothresh.durability.record import Record
from geothresh.errors import OutputError, warn
from geothresh.files import check_output, file_digest, replacing, write_text
from geothresh.many.inputs import TILE_INDEX
from geothresh.many.options import LAYERS, Many
from geothresh.many.places import Destination
from geothresh.many.planning import PlannedSurface, PlannedUnit
from geothresh.many.units import output_name
from geothresh.raster.creation import BandFormat
from geothresh.raster.virtual import VirtualSource, files_of, virtual_raster
from geothresh.run.outputs import describe

_ENDINGS = (".vrt", TILE_INDEX)


def index_names(number_of_surfaces: int, many: Many) -> list[str]:
    """Names of the indexes that a run may write: ``mask.vrt`` and so on; see `Indexes.write`."""
    if many.separately:
        return []
    return [
        f"{layer}{_end(number, number_of_surfaces)}{ending}"
        for number in range(1, number_of_surfaces + 1)
        for layer in many.written
        for ending in _ENDINGS
    ]


def _end(number: int, of: int) -> str:
    return "" if of == 1 else f"_{number}"


@dataclass(frozen=True, slots=True)
class Indexes:
    """The indexes of a run."""

    destination: Destination
    """Where the outputs are; paths in the indexes are relative to it."""
    record: Record
    """The record of the run, which is open."""
    surfaces: Sequence[PlannedSurface]
    """The surfaces."""
    many: Many
    """Says which layers are written."""
    units: Sequence[PlannedUnit]
    """All units of the run."""

    @property
    def names(self) -> list[str]:
        """Names of the indexes that the run may write."""
        return index_names(len(self.surfaces), self.many)

    def check(self, *, overwrite: bool) -> None:
        """Refuse to replace files that no such run has made; called before any work.

        Raises:
            OutputError: there is such a file, and `overwrite` is False, or it is no regular file.
        """
        self._adopt()
        for name in self.names:
            digest = self.destination.digest(name)
            ours = digest is None or self.record.has_indexed(name, digest)
            if not ours and not overwrite:
                raise OutputError(
                    f"{self.destination.address or self.destination.directory}/{name}: exists "
                    "already, and is not an index as a run like this has left it; choose another "
                    "directory or add `overwrite=True`"
                )
            if self.destination.address is None:
                check_output(self.destination.directory / name, overwrite=True, cleared=True)

    def remove_others(self, names: Collection[str]) -> None:
        """Remove recorded indexes with other names than these, unless somebody has changed them.

        Raises:
            OutputError: one cannot be removed.
        """
        for name in [name for name in self.record.indexes if name not in names]:
            digest = self.destination.digest(name)
            if self.record.has_indexed(name, digest):
                self.destination.remove(name)
            elif digest is not None:
                warn(
                    f"{name}: is an index of outputs that are not there any more, and was changed "
                    "since, so that it is kept; remove it yourself if it is of no use"
                )
            self.record.drop_index(name)

    def write(self, units: Collection[PlannedUnit]) -> tuple[Path | str, ...]:
        """Write ``mask.vrt`` and ``mask.gti.gpkg``, and indexes of the other layers.

        If there are several surfaces, each has indexes of its own: ``mask_1.vrt`` and so on. A tile
        index needs a CRS and north-up pixels, and is not written without them. Those of earlier
        runs that are not written any more are removed.

        Args:
            units: the finished units.

        Raises:
            OutputError: an index cannot be written, uploaded or removed.
        """
        by_home: dict[int, list[PlannedUnit]] = {}
        for unit in () if self.many.separately else units:
            by_home.setdefault(id(unit.home), []).append(unit)
        every: list[Path] = []
        for number, home in enumerate(self.surfaces, 1):
            mine = by_home.get(id(home))
            if mine is None:
                continue
            for layer in self.many.written:
                band = home.method.bands[layer]
                end = _end(number, len(self.surfaces))
                made = self._write(f"{layer}{end}", layer, home, mine, band)
                if self.destination.address is None:  # objects have no sidecar files
                    describe(dict.fromkeys(made, band), style=home.method.writing.style)
                every += made
        # Before the objects: else another machine would not know them as indexes of its run.
        self.destination.keep_record(now=True)
        written = tuple(map(self.destination.keep, every))
        self.remove_others({path.name for path in every})
        return written

    def _write(
        self,
        name: str,
        layer: str,
        home: PlannedSurface,
        units: Sequence[PlannedUnit],
        band: BandFormat,
    ) -> list[Path]:
        whole = home.surface.box
        files = [output_name(unit.name, layer) for unit in units]
        vrt = self.destination.directory / f"{name}.vrt"
        sources = [
            VirtualSource(location=file, window=unit.window)
            for file, unit in zip(files, units, strict=True)
        ]
        with self._logged(vrt) as temporary:
            write_text(temporary, virtual_raster(whole, band, sources))
        a, b, _, d, e, _ = whole.transform
        if not whole.has_transform or whole.crs is None or b or d or a < 0 or e > 0:
            return [vrt]
        # Imported here because it loads geopandas.
        from geothresh.vector.tile_index import IndexedRaster, write_tile_index

        index = self.destination.directory / f"{name}{TILE_INDEX}"
        boxes = [
            replace(
                whole, size=unit.window.size,
                transform=whole.transform_at(unit.window.col, unit.window.row),
            )
            for unit in units
        ]  # fmt: skip
        with self._logged(index) as temporary:
            write_tile_index(
                temporary,
                [IndexedRaster(location=f, box=box) for f, box in zip(files, boxes, strict=True)],
                whole=whole, dtype=band.dtype, nodata=band.nodata,
            )  # fmt: skip
        return [vrt, index]

    @contextmanager
    def _logged(self, target: Path) -> Iterator[Path]:
        """Give a path for a new index of the same name; it is logged, then put in place."""
        with replacing(target) as temporary:
            made = temporary.with_name(target.name)
            try:
                yield made
            except OutputError as error:
                raise OutputError(str(error).replace(str(made), str(target))) from error
            self.record.add_index(target.name, file_digest(made))
            made.replace(temporary)

    def _adopt(self) -> None:
        """Log indexes that are not in the record, but name only outputs of it or of this run.

        Records of earlier versions have no indexes, and a record may be lost.
        """
        candidates = [name for name in self.names if name not in self.record.indexes]
        if not self.record.indexes:
            candidates += [name for name in self._earlier() if name not in candidates]
        with TemporaryDirectory(prefix="geothresh-") as folder:
            for name in candidates:
                file = self.destination.fetch(name, Path(folder))
                if file is not None and self._is_ours(file):
                    self.record.add_index(name, file_digest(file))

    def _earlier(self) -> Iterator[str]:
        """Names of indexes of the last run that exist, if its record says which layers it had."""
        layers = (self.record.method or {}).get("layers", ()) if self.record.finished else ()
        for layer in layers:
            for number in count(0):
                end = f"_{number}" if number else ""
                names = [f"{layer}{end}{ending}" for ending in _ENDINGS]
                existing = [name for name in names if self.destination.digest(name) is not None]
                yield from existing
                if number and not existing:
                    break

    def _is_ours(self, file: Path) -> bool:
        """Whether a file is an index as `write` makes them, of outputs of the record or the run."""
        from geothresh.vector.tile_index import plain_files

        if file.name.endswith(TILE_INDEX):
            named = plain_files(file)
        else:
            named = files_of(file.read_bytes().decode(errors="replace"))
        outputs = {name for entry in self.record.finished.values() for name in entry.files}
        outputs |= {output_name(unit.name, layer) for unit in self.units for layer in LAYERS}
        return bool(named) and outputs.issuperset(named)
