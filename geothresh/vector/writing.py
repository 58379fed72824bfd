"""Writing vectors that are complete or not there at all: the checks before, and GeoPackages.

The other formats are in `geothresh.vector.exchange`.

A GeoPackage whose writer was killed may open with no features, or refuse to open because of the
journal beside it. So the file is built under another name, read back and counted, and takes its
own name last.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np
from pyogrio import raw

from geothresh.durability.locking import only_run
from geothresh.errors import OutputError
from geothresh.files import replacing
from geothresh.vector.exchange import write_file
from geothresh.vector.formats import GEOPACKAGE, check_layer_name, format_of, ogr_path
from geothresh.vector.layers import Layer, Mismatch
from geothresh.vector.ogr import OGR_ERRORS, write_layer
from geothresh.vector.outputs import Existing, check_vector_output, connect, sqlite_files
from geothresh.vector.spill import Shapes, of_one_type, parts_of, wkb_of
from geothresh.vector.styles import styles_there, write_styles


def write_vectors(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    *,
    crs: str | None,
    existing: Existing = Existing.REFUSE,
    form: str | None = None,
    style: bool = True,
) -> list[str]:
    """Write layers in any format; `path` is replaced only by a checked file.

    Args:
        path: the file.
        layers: one, or several in a GeoPackage, of different names.
        crs: as WKT, None where it is not known.
        existing: what becomes of a file that exists.
        form: name of the format; by default that of the ending.
        style: whether styles for QGIS go with it.

    Returns:
        The geometry type of each layer: its kind, or that of several parts.

    Raises:
        UsageError, OutputError: as `check_vector_output`; OutputError also where the file cannot
            be written, or does not hold what was written when it is read back.
    """
    kind = format_of(Path(os.fspath(path)), form)
    if kind is GEOPACKAGE:
        return write_geopackage(path, layers, crs=crs, existing=existing, style=style)
    names = [layer.name for layer in layers]
    target = check_vector_output(path, existing=existing, form=form, layers=names)
    return [write_file(target, layer, form=kind, crs=crs, style=style) for layer in layers]


def write_geopackage(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    *,
    crs: str | None,
    existing: Existing = Existing.REFUSE,
    style: bool = True,
) -> list[str]:
    """Write layers with spatial indices; `path` is replaced only by a checked file.

    Layers are added to a copy of what is there, which then takes its place: other programs see the
    old file or the new one.

    Args:
        path: the ``.gpkg`` file.
        layers: one or more, of different names.
        crs: as WKT, None where it is not known.
        existing: what becomes of a file that exists.
        style: whether the layers have styles for QGIS. Those that the user saved there stay.

    Returns:
        The geometry type of each layer: its kind, or that of several parts.

    Raises:
        UsageError, OutputError: as `check_vector_output`; OutputError also where the file cannot
            be written, or does not hold what was written when it is read back.
    """
    for layer in layers:
        check_layer_name(layer.name)
    names = [layer.name for layer in layers]
    with ExitStack() as stack:
        if existing.keeps:
            # Of two runs that each add to a copy, one would lose what the other has added.
            stack.enter_context(only_run(Path(os.path.realpath(path))))
        target = check_vector_output(path, existing=existing, layers=names)
        return _write_database(target, layers, crs=crs, existing=existing, style=style)


def _write_database(
    target: Path, layers: Sequence[Layer], *, crs: str | None, existing: Existing, style: bool
) -> list[str]:
    types = []
    with replacing(target) as temporary, _without_sqlite_files(temporary), _known_warnings():
        before = _state(target)
        # GDAL drops those of a layer that it replaces.
        users = styles_there(target, [layer.name for layer in layers])
        mode = stat.S_IMODE(temporary.stat().st_mode)
        try:
            if existing.keeps and target.exists():
                with closing(connect(target)) as old, closing(sqlite3.connect(temporary)) as new:
                    old.backup(new)
            for layer in layers:
                kind, geometry = of_one_type(layer.geometry, layer.kind)
                write_layer(
                    temporary, layer, kind, geometry, crs, driver="GPKG", SPATIAL_INDEX="YES"
                )
                # SQLite gives files 0644 whatever the umask would allow.
                temporary.chmod(mode)
                _check_database(temporary, layer.name, len(geometry))
                _check_geometry(temporary, layer.name, geometry)
                types.append(kind)
            with closing(sqlite3.connect(temporary)) as file:
                write_styles(file, layers, users, style=style)
            if existing.keeps and _state(target) != before:
                raise OutputError(
                    f"{target}: another program has written to it meanwhile; it is as that program "
                    "left it, run again"
                )
        except (*OGR_ERRORS, OSError, sqlite3.Error) as error:
            text = " ".join(str(error).replace(str(temporary), target.name).split())
            raise OutputError(
                f"{target}: the GeoPackage could not be written ({text}); "
                "is the disk full? nothing was left behind"
            ) from error
        except Mismatch as error:
            raise OutputError(
                f"{target}: the GeoPackage does not hold what was written: {error}; "
                "is the disk full? nothing was left behind"
            ) from error
    return types


def _state(target: Path) -> tuple[int, ...] | None:
    """What changes with the content of a database; None where there is none."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    log = target.with_name(f"{target.name}-wal")
    logged = log.stat().st_size if log.exists() else 0
    return found.st_ino, found.st_mtime_ns, found.st_size, logged


def _check_database(path: Path, layer: str, count: int) -> None:
    """Ask SQLite itself, which shares nothing with the writer, whether the file is whole."""
    with closing(connect(path)) as file:
        (verdict,) = file.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise Mismatch(f"SQLite's integrity check says {verdict!r}")
        # A name of a table cannot be bound. `check_layer_name` let letters, digits and underscores
        # through: it needs no quotes, and has none.
        for table in (layer, f"rtree_{layer}_geom_rowid"):
            (found,) = file.execute(f'SELECT count(*) FROM "{table}"').fetchone()  # nosec B608
            if found != count:
                raise Mismatch(f"{found} of {count} features in {table}")


def _check_geometry(path: Path, layer: str, geometry: Shapes) -> None:
    """Read the geometries back, to the last bit: valid as they were, they are valid now."""
    with closing(connect(path)) as file:
        # Names as in `_check_database`.
        (first,) = file.execute(f'SELECT min(fid) FROM "{layer}"').fetchone()  # nosec B608
    for part in parts_of(geometry) if len(geometry) else ():
        if part.start:
            # pyogrio's arrays are part of a circle of references, and the collector, which counts
            # objects and not their bytes, would leave a hundred megabytes of them.
            found = None
            gc.collect()
        # By number: features that are skipped are read too, which takes ever longer.
        _, _, found, _ = raw.read(
            ogr_path(path),
            layer=layer,
            columns=[],
            where=f"fid >= {first + part.start} AND fid < {first + part.stop}",
        )
        expected = wkb_of(geometry, part)
        if len(found) != len(expected):
            raise Mismatch(f"{len(found)} of {len(expected)} features from {part.start + 1} on")
        differs = np.flatnonzero(found != expected)
        if differs.size:
            number = part.start + differs[0] + 1
            raise Mismatch(f"feature {number} of {len(geometry)} has other corners")


@contextmanager
def _without_sqlite_files(path: Path) -> Iterator[None]:
    """Leave none of SQLite's files beside `path`, however the block ends."""
    try:
        yield
        for side in sqlite_files(path):
            if side.exists():
                raise OutputError(f"{path}: SQLite left {side.name}: the file is not complete")
    finally:
        for side in sqlite_files(path):
            with suppress(OSError):
                side.unlink(missing_ok=True)


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Silence pyogrio on the temporary file's extension, and on masks without a CRS."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*filename extension should be", RuntimeWarning)
        warnings.filterwarnings("ignore", ".*non conformant file extension", RuntimeWarning)
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        yield
