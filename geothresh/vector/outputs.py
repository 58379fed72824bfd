"""Checks of a vector output: before any work, and again before it is written."""

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

_SQLITE_ENDINGS = ("-journal", "-wal", "-shm")

# Seconds to wait for a program that is writing in a database.
_PATIENCE = 10.0


class Existing(Enum):
    """What happens to a GeoPackage that exists at the output."""

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
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Return `path` as a Path if vectors may be written there; called before any work.

    Args:
        path: the file.
        form: name of its format; by default that of its ending.
        existing: what happens to a file that exists.
        layers: names of the layers that will be written.
        inputs: files that must not be overwritten.

    Raises:
        UsageError: the ending tells no format or not the named one, the format cannot hold the
            layers or needs a library that is not there, or the path is one of `inputs` or would
            be taken for another.
        OutputError: no file can be written there, one exists and must not, another program holds
            it open, it is no GeoPackage that layers could be added to, or has one of the layers.
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
        with closing(connect(target)) as file:
            (verdict,) = file.execute("PRAGMA integrity_check(1)").fetchone()
            rows = file.execute("SELECT table_name FROM gpkg_contents").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # Names in a damaged database may not be text.
        raise OutputError(
            f"{target}: no layer can be added to it ({error}); close the program that has it open, "
            "or choose another name"
        ) from error
    if verdict != "ok":
        raise OutputError(
            f"{target}: is damaged ({' '.join(str(verdict).split())}); choose another name"
        )
    # SQLite ignores case.
    there = {str(name).lower() for (name,) in rows}
    taken = [name for name in layers if name.lower() in there]
    if taken and existing is Existing.ADD:
        raise OutputError(
            f"{target}: has a layer {taken[0]} already; choose another `layer`, or add "
            "`overwrite_layer`"
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open a database for reading; waits while another program writes to it."""
    place = quote(str(path.absolute()))
    return sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=_PATIENCE)


def sqlite_files(path: Path) -> list[Path]:
    """What SQLite may leave beside a database."""
    return [path.with_name(path.name + ending) for ending in _SQLITE_ENDINGS]
