"""Write vector layers atomically: an output is complete, or does not exist.

This module writes GeoPackages; `geothresh.vector.exchange` writes the other formats.

If a program is killed while it writes a GeoPackage, the file may open without any features, or not
at all because of the journal beside it. So the file is written under a temporary name, read back
and compared, and renamed last.
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
    """Write layers in any format; an existing file is replaced only after the check.

    Args:
        path: the file.
        layers: one layer; a GeoPackage may have several, with different names.
        crs: the CRS of the layers as WKT, None if it is not known.
        existing: what happens to an existing file.
        form: name of the format; by default that of the file name extension.
        style: whether to write styles for QGIS.

    Returns:
        The geometry type of each layer: its kind, or the Multi type of that kind.

    Raises:
        UsageError: see `check_vector_output`; or the name of a layer is not valid.
        OutputError: see `check_vector_output`; or the file cannot be written, or other geometries
            are read back from it.
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
    """Write a GeoPackage with spatial indices; an existing file is replaced only after the check.

    Layers are added to a copy of the existing file, which then replaces it. So other programs see
    either the old file or the new one.

    Args:
        path: the ``.gpkg`` file.
        layers: one layer or more, with different names.
        crs: the CRS of the layers as WKT, None if it is not known.
        existing: what happens to an existing file.
        style: whether to write styles for QGIS. Styles that the user saved in the existing file are
            kept.

    Returns:
        The geometry type of each layer: its kind, or the Multi type of that kind.

    Raises:
        UsageError: see `check_vector_output`; or the name of a layer is not valid.
        OutputError: see `check_vector_output`; or the file cannot be written, or other features are
            read back from it.
    """
    for layer in layers:
        check_layer_name(layer.name)
    names = [layer.name for layer in layers]
    with ExitStack() as stack:
        if existing.keeps:
            # If two runs added layers to copies of the same file, one would overwrite the layers of
            # the other.
            stack.enter_context(only_run(Path(os.path.realpath(path))))
        target = check_vector_output(path, existing=existing, layers=names)
        return _write_database(target, layers, crs=crs, existing=existing, style=style)


def _write_database(
    target: Path, layers: Sequence[Layer], *, crs: str | None, existing: Existing, style: bool
) -> list[str]:
    types = []
    with replacing(target) as temporary, _without_sqlite_files(temporary), _known_warnings():
        before = _state(target)
        # They are read first, as GDAL deletes the styles of a layer that it replaces.
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
                # SQLite sets the mode 0644, whatever the umask is.
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
    """Numbers that change when a database is written to; None if the file does not exist."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    log = target.with_name(f"{target.name}-wal")
    logged = log.stat().st_size if log.exists() else 0
    return found.st_ino, found.st_mtime_ns, found.st_size, logged


def _check_database(path: Path, layer: str, count: int) -> None:
    """Check a GeoPackage with SQLite instead of GDAL: its integrity, and the number of features.

    Raises:
        Mismatch: the database is damaged, or table and spatial index do not have `count` features.
    """
    with closing(connect(path)) as file:
        (verdict,) = file.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise Mismatch(f"SQLite's integrity check says {verdict!r}")
        # The name of a table cannot be bound. It is safe to format it: `check_layer_name` allows
        # letters, digits and underscores only.
        for table in (layer, f"rtree_{layer}_geom_rowid"):
            (found,) = file.execute(f'SELECT count(*) FROM "{table}"').fetchone()  # nosec B608
            if found != count:
                raise Mismatch(f"{found} of {count} features in {table}")


def _check_geometry(path: Path, layer: str, geometry: Shapes) -> None:
    """Read the geometries back, and compare all bits: if they were valid before, they still are.

    Raises:
        Mismatch: a geometry is missing or differs.
    """
    with closing(connect(path)) as file:
        # It is safe to format the name, see `_check_database`.
        (first,) = file.execute(f'SELECT min(fid) FROM "{layer}"').fetchone()  # nosec B608
    for part in parts_of(geometry) if len(geometry) else ():
        if part.start:
            # pyogrio's arrays are part of reference cycles. The garbage collector counts objects
            # and not their bytes, so that it would leave a hundred megabytes of them.
            found = None
            gc.collect()
        # Features are selected by fid: skipping features would read them, too, and take longer from
        # part to part.
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
    """Leave none of SQLite's files beside `path` when the block ends.

    Raises:
        OutputError: the block ended without an error, but there are such files.
    """
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
    """Suppress warnings of pyogrio about the temporary file's extension and a missing CRS."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*filename extension should be", RuntimeWarning)
        warnings.filterwarnings("ignore", ".*non conformant file extension", RuntimeWarning)
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        yield
