"""Check a vector output before any work, and again before it is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from geothresh.errors import OutputError, UsageError
from geothresh.files import check_output
from geothresh.vector.formats import GEOPACKAGE, format_of, ogr_path, require_library

# Suffixes of SQLite's files, which follow the name of a database.
_SQLITE_ENDINGS = ("-journal", "-wal", "-shm")

# Seconds to wait for a program that is writing to a database.
_PATIENCE = 10.0


class Existing(Enum):
    """What happens to an existing file at the output."""

    REFUSE = "refuse"
    """An existing file is an error."""
    REPLACE = "replace"
    """The whole file is replaced."""
    ADD = "add"
    """Layers are added to the file, a GeoPackage; an existing layer of the same name is an
    error."""
    REPLACE_LAYER = "replace layer"
    """Layers are added to the file, a GeoPackage, or replace those of the same name. All other
    layers stay."""

    @property
    def keeps(self) -> bool:
        """Whether other layers of the file stay."""
        return self in (Existing.ADD, Existing.REPLACE_LAYER)


def check_vector_output(
    path: str | os.PathLike[str],
    *,
    existing: Existing,
    form: str | None = None,
    layers: Sequence[str] = (),
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Check that vectors may be written to a path; called before any work.

    Args:
        path: the file.
        existing: what happens to an existing file.
        form: name of the format; by default that of the file name extension.
        layers: names of the layers that will be written.
        inputs: files that must not be overwritten.

    Returns:
        The path as a Path.

    Raises:
        UsageError: the extension belongs to no format, or to another one than `form`; the format
            cannot hold the layers, or needs a library that is not installed; or the path is one of
            `inputs`, or OGR would take it for another file.
        OutputError: no file can be written at the path; a file exists and must not be replaced;
            another program has it open, or died while writing it; or layers cannot be added, as the
            file is not a sound GeoPackage, or has one of the layers.
    """
    target = Path(os.fspath(path))
    kind = format_of(target, form)
    ogr_path(target)
    if kind is not GEOPACKAGE:
        require_library(kind)
        if existing.keeps:
            raise UsageError(
                f"{target}: layers can be added to a GeoPackage, not to a {kind.title}; leave "
                "`append` and `overwrite_layer` out, or write a .gpkg"
            )
        if len(layers) > 1:
            raise UsageError(
                f"{target}: a {kind.title} holds one layer, and {layers[1]} is a second; leave "
                "`nodes` out, or write a .gpkg"
            )
    replaces = existing is not Existing.REFUSE
    for ending in kind.part_endings:
        check_output(target.with_suffix(ending), overwrite=replaces, inputs=inputs)
    target = check_output(target, overwrite=replaces, inputs=inputs)
    if kind is not GEOPACKAGE:
        return target
    for side in sqlite_files(target):
        # SQLite would apply the changes in such a file to the new database.
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
        with closing(connect(target)) as file:
            (verdict,) = file.execute("PRAGMA integrity_check(1)").fetchone()
            rows = file.execute("SELECT table_name FROM gpkg_contents").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # A damaged database may have names that cannot be decoded.
        raise OutputError(
            f"{target}: no layer can be added to it ({error}); close the program that has it open, "
            "or choose another name"
        ) from error
    if verdict != "ok":
        raise OutputError(
            f"{target}: is damaged ({' '.join(str(verdict).split())}); choose another name"
        )
    # SQLite ignores case in names of tables.
    there = {str(name).lower() for (name,) in rows}
    taken = [name for name in layers if name.lower() in there]
    if taken and existing is Existing.ADD:
        raise OutputError(
            f"{target}: has a layer {taken[0]} already; choose another `layer`, or add "
            "`overwrite_layer`"
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open a database for reading; it waits some seconds while another program writes to it."""
    place = quote(str(path.absolute()))
    return sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=_PATIENCE)


def sqlite_files(path: Path) -> list[Path]:
    """Paths of the files that SQLite may leave beside a database."""
    return [path.with_name(path.name + ending) for ending in _SQLITE_ENDINGS]
