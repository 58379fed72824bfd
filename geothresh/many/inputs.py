"""Find the input files: named one by one, in a directory, in a list or in a tile index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geothresh.addresses import OBJECT_STORES, Address, is_remote, without_secrets
from geothresh.errors import InputError, UsageError
from geothresh.files import is_directory, is_file
from geothresh.options import PathLike
from geothresh.raster.paths import RasterSource, find_raster, local_files, name_of

TILE_INDEX = ".gti.gpkg"
"""File name extension of GDAL's raster tile indexes."""
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadFile:
    """A file that cannot be used, and why."""

    name: str
    """The file as it was named."""
    reason: str
    """Why it cannot be used, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The input rasters that were found."""

    sources: tuple[RasterSource, ...]
    """The rasters, in the order in which they were named; those of a directory sorted by name."""
    bad: tuple[BadFile, ...]
    """Files that do not exist or are not rasters; empty unless bad files are skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rasters:
    """One raster, or several that are read as one."""

    name: str
    """Name in messages."""
    sources: tuple[RasterSource, ...]
    """The rasters, one or more."""
    several: bool
    """Whether a directory, list, index or several files were named, even with only one raster."""

    @property
    def local(self) -> list[str]:
        """The files that are on this machine."""
        return local_files(self.sources)


def find_rasters(named: Any, *, allow_vrt: bool) -> Rasters:
    """Find the rasters that are read as one.

    Args:
        named: an argument of `find_raster` or of `find_inputs`, or a sequence of these.
        allow_vrt: whether a VRT is accepted.

    Raises:
        UsageError, InputError: see `find_inputs`.
    """
    several: list[Any] = list(named) if isinstance(named, list | tuple) else [named]
    if len(several) == 1 and not names_several(several[0]):
        source = find_raster(several[0], allow_vrt=allow_vrt)
        return Rasters(name=source.name, sources=(source,), several=False)
    found = find_inputs(several, allow_vrt=allow_vrt).sources
    name = os.fspath(several[0]) if len(several) == 1 else f"{len(found)} files"
    return Rasters(name=name, sources=found, several=True)


def each_of(named: Any) -> list[Any]:
    """The names in a sequence; a single name, or an open dataset, is a sequence of one.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(named, str | os.PathLike) or hasattr(named, "read"):
        return [named]
    if not isinstance(named, Iterable):
        raise UsageError(f"{type(named).__name__} is no scene; give paths, or a list of them")
    return list(named)


def names_several(name: Any) -> bool:
    """Whether a name stands for several rasters: a directory, a list or an index."""
    if not isinstance(name, str | os.PathLike):
        return False
    text = os.fsdecode(name)
    if text.startswith("@") or text.endswith(TILE_INDEX):
        return True
    return _is_store_directory(text) or is_directory(text)


def _is_store_directory(text: str) -> bool:
    """Whether a name is that of a directory in a store: a bucket, or it ends in a slash."""
    location = Address.in_store(text)
    store = next((root for root in OBJECT_STORES.values() if location.startswith(root)), None)
    if store is None:
        return False
    return location.endswith("/") or "/" not in location.removeprefix(store)


def find_inputs(
    named: Sequence[PathLike],
    output_dir: Path | Address | None = None,
    *,
    allow_vrt: bool,
    skip_bad: bool = False,
) -> Inputs:
    """Find all rasters that are named.

    Args:
        named: files, URLs, open rasterio datasets, directories of GeoTIFFs, also in stores (a
            bucket, or a name that ends in a slash), ``@list.txt`` with one name per line, and tile
            indexes (.gti.gpkg). Names in lists and indexes are relative to these.
        output_dir: the directory of the outputs, which must not be an input; None = no check.
        allow_vrt: whether a VRT is accepted, as a single scene.
        skip_bad: list bad files instead of raising an error for the first.

    Raises:
        UsageError: nothing is named, a file is named twice, or the output directory is an input.
        InputError: a file is missing or not a raster, or a directory or list is empty.
    """
    inputs = list_inputs(named, output_dir, allow_vrt=allow_vrt, skip_bad=skip_bad)
    if not inputs.sources:
        detail = f"; {inputs.bad[0].reason}" if inputs.bad else ""
        raise InputError(f"no raster is left{detail}")
    return inputs


def list_inputs(
    named: Sequence[PathLike],
    output_dir: Path | Address | None = None,
    *,
    allow_vrt: bool,
    skip_bad: bool = True,
) -> Inputs:
    """Find all rasters like `find_inputs`; the result may hold bad files only."""
    sources: list[RasterSource] = []
    bad: list[BadFile] = []
    seen: set[str] = set()
    for name, origin in _expanded(named, output_dir):
        try:
            source = find_raster(name, allow_vrt=allow_vrt)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{error}{origin}") from error
            bad.append(BadFile(name=str(name), reason=str(error)))
            continue
        if source.location in seen:
            raise UsageError(f"{source.name}: is given twice{origin}; name it once")
        seen.add(source.location)
        sources.append(source)
    return Inputs(sources=tuple(sources), bad=tuple(bad))


def _expanded(
    named: Sequence[PathLike], output_dir: Path | Address | None
) -> Iterator[tuple[str, str]]:
    """Expand directories, lists and indexes: (name, where it is named, for messages)."""
    if not named:
        raise UsageError("no scene is named; give files, directories, @list.txt or an index")
    for name in named:
        text = name_of(name)
        if text.startswith("@"):
            yield from _of_list(Path(text[1:]))
        elif _is_store_directory(text):
            yield from _of_store(text, output_dir)
        elif text.endswith(TILE_INDEX) and is_remote(text):
            yield from _of_index_in_store(text)
        elif text.endswith(TILE_INDEX) and is_file(text):
            # Imported here because it loads geopandas, which other inputs do not need.
            from geothresh.vector.tile_index import indexed_files

            index = Path(text)
            names = indexed_files(index)
            _refuse_remote(index, names)
            yield from _beside(index, names, f" (named in {index})")
        elif is_directory(text):
            yield from _of_directory(Path(text), output_dir)
        else:
            yield text, ""


def _of_directory(directory: Path, output_dir: Path | Address | None) -> Iterator[tuple[str, str]]:
    if isinstance(output_dir, Path) and is_directory(output_dir) and directory.samefile(output_dir):
        raise _is_input(output_dir, directory)
    try:
        found = sorted(
            entry.path
            for entry in os.scandir(directory)
            if entry.name.lower().endswith(_TIFF) and not entry.name.startswith(".")
        )
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not found:
        raise InputError(f"{directory}: holds no .tif file; name a directory with GeoTIFFs")
    yield from ((path, "") for path in found)


def _is_input(output_dir: Path | Address, directory: Path | str) -> UsageError:
    return UsageError(
        f"{output_dir}: the output directory is the input {directory}; name another with "
        "`output_dir`"
    )


def _of_store(text: str, output_dir: Path | Address | None) -> Iterator[tuple[str, str]]:
    from geothresh.raster.uploading import names_in  # slow: loads rasterio

    address = Address.of(text, several=True)
    if address is None:
        raise UsageError(f"{text}: is no directory of an object store")
    if isinstance(output_dir, Address) and output_dir.location == address.location:
        raise _is_input(output_dir, text)
    found = [
        leaf
        for leaf in names_in(address)
        if leaf.lower().endswith(_TIFF) and not leaf.startswith(".")
    ]
    if not found:
        raise InputError(f"{text}: holds no .tif object; name a directory with GeoTIFFs")
    yield from ((f"{address.name}/{leaf}", "") for leaf in found)


def _of_index_in_store(text: str) -> Iterator[tuple[str, str]]:
    """The rasters of an index in a store; only objects beside it are accepted.

    Another person may have written the index.
    """
    from geothresh.raster.uploading import fetch_file
    from geothresh.vector.tile_index import indexed_files

    if not Address.in_store(text).startswith(tuple(OBJECT_STORES.values())):
        raise UsageError(
            f"{without_secrets(text)}: an index is read from a local file, s3://, gs:// or az://; "
            "copy it to one of them, with its rasters"
        )
    address = Address.of(text)
    if address is None:
        raise UsageError(f"{text}: is no object of a store")
    with TemporaryDirectory(prefix="geothresh-") as folder:
        file = Path(folder) / "index.gpkg"
        if not fetch_file(address, file):
            raise InputError(f"{text}: is not there; name an index that is")
        try:
            names = indexed_files(file)
        except InputError as error:
            raise InputError(str(error).replace(str(file), text)) from error
    for name in names:
        if "/" in name or is_remote(name):
            raise InputError(
                f"{text}: names {name}, which does not lie beside it; name what you trust "
                "yourself, or in a list: @list.txt"
            )
        yield address.beside(name).name, f" (named in {text})"


def _of_list(path: Path) -> Iterator[tuple[str, str]]:
    try:
        # Editors on Windows write a byte order mark.
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the list is not text in UTF-8; write it anew") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: the list cannot be read ({reason}); check its path") from error
    wanted = [
        (number, line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not wanted:
        raise InputError(f"{path}: the list names no file; write one a line")
    for number, line in wanted:
        yield from _beside(path, [line], f" (line {number} of {path})")


def _refuse_remote(index: Path, names: Iterable[str]) -> None:
    """Refuse remote names in an index: it must not cause network access unseen by the user."""
    remote = next((name for name in names if is_remote(name)), None)
    if remote is not None:
        raise InputError(
            f"{index}: names {remote}, which is not a local file, and indexes may name local files "
            "only; name what you trust yourself, or in a list: @list.txt"
        )


def _beside(file: Path, names: Iterable[str], origin: str) -> Iterator[tuple[str, str]]:
    """Make names relative to a file's directory absolute; URLs and absolute paths are kept."""
    for name in names:
        fixed = is_remote(name) or Path(name).is_absolute()
        yield (name if fixed else str(file.parent / name)), origin
