"""The files that somebody names: one by one, in a directory, in a list, in a tile index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geothresh.addresses import OBJECT_STORES, Address, is_remote
from geothresh.errors import InputError, UsageError
from geothresh.options import PathLike
from geothresh.raster.paths import RasterSource, find_raster, local_files

TILE_INDEX = ".gti.gpkg"
"""What names of GDAL's raster tile indexes end in."""
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadFile:
    """A file that cannot be used, and why."""

    name: str
    reason: str
    """One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Rasters that were found."""

    sources: tuple[RasterSource, ...]
    """In the order in which they were named; those of a directory by name."""
    bad: tuple[BadFile, ...]
    """Those that are not there, or are no rasters; empty unless they are to be skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rasters:
    """One raster, or several that are read as one."""

    name: str
    """What to call it."""
    sources: tuple[RasterSource, ...]
    """One or more."""
    several: bool
    """Whether a directory, list, index or several files were named, perhaps with one raster."""

    @property
    def local(self) -> list[str]:
        """The files that are on this machine."""
        return local_files(self.sources)


def find_rasters(named: Any, *, allow_vrt: bool) -> Rasters:
    """Find what is named as one raster.

    Args:
        named: what `find_raster` takes, or what `find_inputs` takes, one of them or a sequence.
        allow_vrt: whether a VRT is accepted.

    Raises:
        UsageError, InputError: as `find_inputs`.
    """
    several: list[Any] = list(named) if isinstance(named, list | tuple) else [named]
    if len(several) == 1 and not names_several(several[0]):
        source = find_raster(several[0], allow_vrt=allow_vrt)
        return Rasters(name=source.name, sources=(source,), several=False)
    found = find_inputs(several, allow_vrt=allow_vrt).sources
    name = os.fspath(several[0]) if len(several) == 1 else f"{len(found)} files"
    return Rasters(name=name, sources=found, several=True)


def names_several(one: Any) -> bool:
    """Whether a name stands for several rasters: a directory, a list or an index."""
    if not isinstance(one, str | os.PathLike):
        return False
    text = os.fsdecode(one)
    if text.startswith("@") or text.endswith(TILE_INDEX):
        return True
    return _is_store_directory(text) or Path(text).is_dir()


def _is_store_directory(text: str) -> bool:
    """Whether a name is that of a directory in a store: a bucket, or it ends in a slash."""
    location = Address.in_store(text)
    store = next((one for one in OBJECT_STORES.values() if location.startswith(one)), None)
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
        named: files, URLs, directories of GeoTIFFs, also of stores (a bucket, or a name that ends
            in a slash), ``@list.txt`` with one name a line, and tile indexes (.gti.gpkg); names in
            lists and indexes count from where these lie.
        output_dir: where outputs go, if it is a directory: none of those that are named.
        allow_vrt: whether a VRT is accepted, as a single scene.
        skip_bad: list bad files instead of raising for the first.

    Raises:
        UsageError: nothing is named, a file is named twice, or the output directory is an input.
        InputError: a file is missing or no raster, or a directory or list holds none.
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
    """As `find_inputs`, but perhaps no raster is left beside the bad ones."""
    sources: list[RasterSource] = []
    bad: list[BadFile] = []
    seen: set[str] = set()
    for name, place in _expanded(named, output_dir):
        try:
            source = find_raster(name, allow_vrt=allow_vrt)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{error}{place}") from error
            bad.append(BadFile(name=str(name), reason=str(error)))
            continue
        if source.location in seen:
            raise UsageError(f"{source.name}: is given twice{place}; name it once")
        seen.add(source.location)
        sources.append(source)
    return Inputs(sources=tuple(sources), bad=tuple(bad))


def _expanded(
    named: Sequence[PathLike], output_dir: Path | Address | None
) -> Iterator[tuple[str, str]]:
    """Each name, and where it stands, for a message."""
    if not named:
        raise UsageError("no scene is named; give files, directories, @list.txt or an index")
    for one in named:
        text = os.fspath(one)
        if text.startswith("@"):
            yield from _of_list(Path(text[1:]))
        elif _is_store_directory(text):
            yield from _of_store(text, output_dir)
        elif text.endswith(TILE_INDEX) and Address.of(text) is not None:
            yield from _of_index_in_store(text)
        elif text.endswith(TILE_INDEX) and Path(text).is_file():
            # With it comes geopandas, which others do without.
            from geothresh.vector.tile_index import indexed_files

            index = Path(text)
            names = indexed_files(index)
            _refuse_remote(index, names)
            yield from _beside(index, names, f" (named in {index})")
        elif Path(text).is_dir():
            yield from _of_directory(Path(text), output_dir)
        else:
            yield text, ""


def _of_directory(directory: Path, output_dir: Path | Address | None) -> Iterator[tuple[str, str]]:
    if isinstance(output_dir, Path) and output_dir.exists() and directory.samefile(output_dir):
        raise _is_input(output_dir, directory)
    try:
        found = sorted(
            entry.path
            for entry in os.scandir(directory)
            if entry.name.lower().endswith(_TIFF) and not entry.name.startswith(".")
        )
    except OSError as error:
        raise InputError(f"{directory}: cannot be read ({error.strerror})") from error
    if not found:
        raise InputError(f"{directory}: holds no .tif file; name a directory with GeoTIFFs")
    yield from ((path, "") for path in found)


def _is_input(output_dir: Path | Address, directory: Path | str) -> UsageError:
    return UsageError(
        f"{output_dir}: the output directory is the input {directory}; name another with "
        "`output_dir`"
    )


def _of_store(text: str, output_dir: Path | Address | None) -> Iterator[tuple[str, str]]:
    from geothresh.raster.uploading import names_in  # rasterio, which no help waits for

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
    """Of an index that somebody else may have written, only names of what lies beside it."""
    from geothresh.raster.uploading import fetch_file
    from geothresh.vector.tile_index import indexed_files

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
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise InputError(f"{path}: the list cannot be read ({reason})") from error
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
    """A table that nobody reads must not send the reader out on the network."""
    remote = next((name for name in names if is_remote(name)), None)
    if remote is not None:
        raise InputError(
            f"{index}: names {remote}, which is not a local file, and indexes may name local files "
            "only; name what you trust yourself, or in a list: @list.txt"
        )


def _beside(file: Path, names: Iterable[str], place: str) -> Iterator[tuple[str, str]]:
    """Names that count from where a file lies; URLs and absolute ones stay."""
    for name in names:
        plain = is_remote(name) or Path(name).is_absolute()
        yield (name if plain else str(file.parent / name)), place
