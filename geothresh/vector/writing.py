"""Writing vectors that are complete or not there at all: the checks before, and GeoPackages; the
other formats are in `geothresh.vector.exchange`.

A GeoPackage whose writer was killed may open with no features, or refuse to open because of the
journal beside it. So the file is built under another name, read back and counted, and takes its
own name last.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from enum import Enum
from pathlib import Path
from urllib.parse import quote

import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio import raw

from geothresh.errors import OutputError, UsageError
from geothresh.files import check_output, replacing
from geothresh.vector.exchange import require_library, write_file
from geothresh.vector.formats import GEOPACKAGE, format_of
from geothresh.vector.layers import OGR_ERRORS, Layer, Mismatch, of_one_type, write_layer
from geothresh.vector.names import check_layer_name
from geothresh.vector.styles import write_styles

_SIDE_FILES = ("-journal", "-wal", "-shm")

# Seconds to wait for a program that is writing in a database.
_PATIENCE = 10.0

# Features that are read back at once.
_BATCH = 2_000


class Existing(Enum):
    """What becomes of a GeoPackage that exists at the output."""

    REFUSE = "refuse"
    """It is an error."""
    REPLACE = "replace"
    """The whole file is replaced."""
    ADD = "add"
    """Layers are added to it; one of the same name is an error."""
    REPLACE_LAYER = "replace layer"
    """Layers are added to it, or replaced; all others stay."""

    @property
    def keeps(self) -> bool:
        """Whether what is in the file stays."""
        return self in (Existing.ADD, Existing.REPLACE_LAYER)


def check_vector_output(
    path: str | os.PathLike[str],
    *,
    existing: Existing,
    form: str | None = None,
    layers: Sequence[str] = (),
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Return `path` as a Path if vectors may be written there; called before any work.

    Args:
        path: the file.
        form: name of its format; by default that of its ending.
        existing: what becomes of one that is there.
        layers: names of those that will be written.
        inputs: files that it must not be.

    Raises:
        UsageError: the ending tells no format or not the named one, the format cannot hold the
            layers or needs a library that is not there, or the path is one of `inputs`.
        OutputError: no file can be written there, one exists and must not, another program holds
            it open, it is no GeoPackage that layers could be added to, or has one of the layers.
    """
    target = Path(os.fspath(path))
    kind = format_of(target, form)
    if kind is not GEOPACKAGE:
        require_library(kind)
        if existing.keeps:
            raise UsageError(
                f"{target}: layers can be added to a GeoPackage, not to a {kind.title}; leave "
                "--append and --overwrite-layer out, or write a .gpkg"
            )
        if len(layers) > 1:
            raise UsageError(
                f"{target}: a {kind.title} holds one layer, and {layers[1]} is a second; leave "
                "--nodes out, or write a .gpkg"
            )
    replaces = existing is not Existing.REFUSE
    for ending in kind.side_endings:
        check_output(target.with_suffix(ending), overwrite=replaces, inputs=inputs)
    target = check_output(target, overwrite=replaces, inputs=inputs)
    if kind is not GEOPACKAGE:
        return target
    for side in _side_files(target):
        # SQLite would apply what it finds there to the new file.
        if side.exists():
            raise OutputError(
                f"{target}: {side.name} beside it says that a program has it open or died while "
                "writing it; close that program, or delete both files"
            )
    if existing.keeps and target.exists():
        _check_addition(target, existing, layers)
    return target


def _check_addition(target: Path, existing: Existing, layers: Sequence[str]) -> None:
    try:
        with closing(_connect(target)) as file:
            (verdict,) = file.execute("PRAGMA integrity_check(1)").fetchone()
            rows = file.execute("SELECT table_name FROM gpkg_contents").fetchall()
    except sqlite3.Error as error:
        raise OutputError(
            f"{target}: no layer can be added to it ({error}); close the program that has it open, "
            "or choose another name"
        ) from error
    if verdict != "ok":
        raise OutputError(
            f"{target}: is damaged ({' '.join(str(verdict).split())}); choose another name"
        )
    # SQLite does not tell case apart.
    there = {str(name).lower() for (name,) in rows}
    taken = [name for name in layers if name.lower() in there]
    if taken and existing is Existing.ADD:
        raise OutputError(
            f"{target}: has a layer {taken[0]} already; choose another --layer, or add "
            "--overwrite-layer"
        )


def _connect(path: Path) -> sqlite3.Connection:
    """Open a database to read; it waits for whoever is writing in it."""
    place = quote(str(path.absolute()))
    return sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=_PATIENCE)


def write_vectors(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    *,
    crs: str | None,
    existing: Existing = Existing.REFUSE,
    form: str | None = None,
) -> list[str]:
    """Write layers in any format; `path` is replaced only by a checked file.

    Args:
        path: the file.
        layers: one, or several in a GeoPackage, of different names.
        crs: as WKT, None where it is not known.
        existing: what becomes of a file that exists.
        form: name of the format; by default that of the ending.

    Returns:
        The geometry type of each layer: its kind, or ``MultiPolygon``.

    Raises:
        UsageError, OutputError: as `check_vector_output`; OutputError also where the file cannot
            be written, or does not hold what was written when it is read back.
    """
    kind = format_of(Path(os.fspath(path)), form)
    if kind is GEOPACKAGE:
        return write_geopackage(path, layers, crs=crs, existing=existing)
    names = [layer.name for layer in layers]
    target = check_vector_output(path, existing=existing, form=form, layers=names)
    return [write_file(target, layer, form=kind, crs=crs) for layer in layers]


def write_geopackage(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    *,
    crs: str | None,
    existing: Existing = Existing.REFUSE,
) -> list[str]:
    """Write layers with spatial indices; `path` is replaced only by a checked file.

    Layers are added to a copy of what is there, which then takes its place: other programs see the
    old file or the new one.

    Args:
        path: the ``.gpkg`` file.
        layers: one or more, of different names.
        crs: as WKT, None where it is not known.
        existing: what becomes of a file that exists.

    Returns:
        The geometry type of each layer: its kind, or ``MultiPolygon``.

    Raises:
        UsageError, OutputError: as `check_vector_output`; OutputError also where the file cannot
            be written, or does not hold what was written when it is read back.
    """
    for layer in layers:
        check_layer_name(layer.name)
    target = check_vector_output(path, existing=existing, layers=[layer.name for layer in layers])
    types = []
    with replacing(target) as temporary, _without_side_files(temporary), _known_warnings():
        mode = stat.S_IMODE(temporary.stat().st_mode)
        try:
            if existing.keeps and target.exists():
                with closing(_connect(target)) as old, closing(sqlite3.connect(temporary)) as new:
                    old.backup(new)
            for layer in layers:
                kind, geometry = of_one_type(layer)
                wkb = shapely.to_wkb(geometry)
                write_layer(
                    temporary, layer, kind, geometry, crs, driver="GPKG", SPATIAL_INDEX="YES"
                )
                # SQLite gives files 0644 whatever the umask would allow.
                os.chmod(temporary, mode)
                _check_database(temporary, layer.name, len(wkb))
                _check_geometry(temporary, layer.name, wkb)
                types.append(kind)
            with closing(sqlite3.connect(temporary)) as file:
                write_styles(file, layers)
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


def _check_database(path: Path, layer: str, count: int) -> None:
    """Ask SQLite itself, which shares nothing with the writer, whether the file is whole."""
    with closing(_connect(path)) as file:
        (verdict,) = file.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise Mismatch(f"SQLite's integrity check says {verdict!r}")
        # The name was checked: it needs no quotes, and has none.
        for table in (layer, f"rtree_{layer}_geom_rowid"):
            (found,) = file.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            if found != count:
                raise Mismatch(f"{found} of {count} features in {table}")


def _check_geometry(path: Path, layer: str, wkb: NDArray[np.object_]) -> None:
    """Read the geometries back, to the last bit: valid as they were, they are valid now."""
    for start in range(0, len(wkb), _BATCH):
        _, _, found, _ = raw.read(
            str(path), layer=layer, columns=[], skip_features=start, max_features=_BATCH
        )
        differs = np.flatnonzero(found != wkb[start : start + _BATCH])
        if differs.size:
            raise Mismatch(f"feature {start + differs[0] + 1} of {len(wkb)} has other corners")


def _side_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in _SIDE_FILES]


@contextmanager
def _without_side_files(path: Path) -> Iterator[None]:
    """Leave none of SQLite's files beside `path`, however the block ends."""
    try:
        yield
        for side in _side_files(path):
            if side.exists():
                raise OutputError(f"{path}: SQLite left {side.name}: the file is not complete")
    finally:
        for side in _side_files(path):
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
