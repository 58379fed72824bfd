"""Destinations of the outputs of many files: a directory on this machine, or an object store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from geothresh.addresses import Address
from geothresh.durability import finished_outputs
from geothresh.durability.record import RECORD, FinishedUnit
from geothresh.errors import OutputError, UsageError
from geothresh.files import file_digest, is_file
from geothresh.many.units import output_name, output_path
from geothresh.options import PathLike
from geothresh.raster.provenance import unit_of
from geothresh.raster.uploading import digest_of, fetch_file, remove, send, unit_there
from geothresh.run.staging import work_directory_of
from geothresh.sidecars import put_style, sidecars_of

# Most requests to a store at once: each takes tens of milliseconds.
_AT_ONCE = 16
# Seconds between two uploads of the record.
_RECORD_SECONDS = 60.0


class Destination(Protocol):
    """Where outputs go, and which of them exist. Names of outputs are those in its directory."""

    @property
    def directory(self) -> Path:
        """The local directory of the record, in which outputs are made."""

    @property
    def address(self) -> Address | None:
        """Where finished outputs are uploaded to; None if they stay in the directory."""

    def output(self, unit: str, layer: str) -> Path | str:
        """Path or URL of an output, for the user."""

    def existing(self, names: Iterable[str]) -> set[str]:
        """Those of these outputs that exist, made by any program; may contain further names."""

    def is_as_made(self, name: str, entry: FinishedUnit) -> bool:
        """Whether an output is unchanged since its unit was recorded as finished."""

    def is_of(self, name: str, unit: str, digest: str) -> bool:
        """Whether an output that is not in the record was made by a unit with the same digest."""

    def remove(self, name: str) -> None:
        """Remove an output if it exists."""

    def digest(self, name: str) -> str | None:
        """The sha256 of a file beside the outputs.

        Returns:
            None if nothing of that name exists; empty if it is not a regular file.
        """

    def fetch(self, name: str, folder: Path) -> Path | None:
        """A regular file beside the outputs, or its copy in a folder; None if it does not exist."""

    def fetch_record(self) -> None:
        """Download the record of a run on another machine, if there is none on this one."""

    def keep_record(self, *, now: bool) -> None:
        """Upload the record for other machines: now, or if the last upload was some time ago."""

    def keep(self, made: Path) -> Path | str:
        """Put a finished file beside the outputs; gives its path or URL, for the user."""


def destination_of(output_dir: PathLike) -> Destination:
    """The destination of a directory of outputs.

    Raises:
        UsageError: it is neither a local directory nor in an object store.
    """
    if "\0" in os.fspath(output_dir):
        raise UsageError(
            f"{os.fspath(output_dir)!r} is not the name of a directory; name another `output_dir`"
        )
    address = Address.of(output_dir, several=True)
    if address is None:
        return Directory(Path(os.fspath(output_dir)))
    return Store(work_directory_of(address), address)


def is_whole(destination: Destination, entry: FinishedUnit) -> bool:
    """Whether all outputs of a unit exist unchanged."""
    return all(destination.is_as_made(name, entry) for name in entry.files)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory on this machine."""

    directory: Path
    address: None = None

    def output(self, unit: str, layer: str) -> Path:
        """See `Destination`."""
        return output_path(self.directory, unit, layer)

    def existing(self, names: Iterable[str]) -> set[str]:
        """See `Destination`."""
        return set(os.listdir(self.directory))

    def is_as_made(self, name: str, entry: FinishedUnit) -> bool:
        """See `Destination`."""
        made = entry.files.get(name)
        return made is not None and made.is_at(self.directory / name)

    def is_of(self, name: str, unit: str, digest: str) -> bool:
        """See `Destination`."""
        path = self.directory / name
        finished = finished_outputs(output_path(self.directory, unit, "mask"))
        return path.absolute() in finished or unit_of(path) == digest

    def remove(self, name: str) -> None:
        """See `Destination`; sidecar files are removed, too."""
        output = self.directory / name
        try:
            for path in (*sidecars_of(output), output):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{output}: cannot be removed ({error.strerror}); check its permissions"
            ) from error
        put_style(output, None, "raster")

    def digest(self, name: str) -> str | None:
        """See `Destination`.

        Raises:
            OutputError: the file cannot be read.
        """
        path = self.directory / name
        if not is_file(path):
            return "" if os.path.lexists(path) else None
        try:
            return file_digest(path)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be read ({error.strerror}); check its permissions"
            ) from error

    def fetch(self, name: str, folder: Path) -> Path | None:
        """See `Destination`."""
        path = self.directory / name
        return path if is_file(path) else None

    def fetch_record(self) -> None:
        """See `Destination`: it is in the directory already."""

    def keep_record(self, *, now: bool) -> None:
        """See `Destination`: it is in the directory already."""

    def keep(self, made: Path) -> Path:
        """See `Destination`: it is in the directory already."""
        return made


@dataclass(slots=True)
class Store:
    """A directory of an object store, and a local directory in which its objects are made.

    An object either is complete or does not exist, and its tags identify its unit. So objects are
    recognised without reading them.
    """

    directory: Path
    address: Address
    _units: dict[str, str | None] = field(default_factory=dict)
    """The digest of its unit in the tags of each object, by name; empty without one, None if the
    object does not exist."""
    _kept: float = field(default_factory=time.monotonic)
    """Time when the record was last uploaded, or the run began."""

    def output(self, unit: str, layer: str) -> str:
        """See `Destination`."""
        return self._at(output_name(unit, layer)).name

    def _at(self, name: str) -> Address:
        return self.address / name

    def existing(self, names: Iterable[str]) -> set[str]:
        """See `Destination`.

        Raises:
            OutputError: a request failed.
        """
        unknown = [name for name in names if name not in self._units]
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="geothresh-objects")
        try:
            units = pool.map(unit_there, map(self._at, unknown))
            self._units.update(zip(unknown, units, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
        return {name for name, unit in self._units.items() if unit is not None}

    def is_as_made(self, name: str, entry: FinishedUnit) -> bool:
        """See `Destination`."""
        return self.is_of(name, "", entry.digest)

    def is_of(self, name: str, unit: str, digest: str) -> bool:
        """See `Destination`."""
        return name in self.existing([name]) and self._units[name] == digest

    def remove(self, name: str) -> None:
        """See `Destination`."""
        remove(self._at(name))
        self._units.pop(name, None)

    def digest(self, name: str) -> str | None:
        """See `Destination`.

        Raises:
            OutputError: the object cannot be read.
        """
        return digest_of(self._at(name))

    def fetch(self, name: str, folder: Path) -> Path | None:
        """See `Destination`.

        Raises:
            OutputError: the object cannot be read.
        """
        file = folder / name
        return file if fetch_file(self._at(name), file) else None

    def fetch_record(self) -> None:
        """See `Destination`.

        Raises:
            OutputError: the request failed, or the record cannot be written.
        """
        record = self.directory / RECORD
        if not record.exists():
            fetch_file(self._at(RECORD), record)

    def keep_record(self, *, now: bool) -> None:
        """See `Destination`; another machine would repeat units that are finished in between.

        Raises:
            OutputError: the upload failed.
        """
        if now or time.monotonic() - self._kept > _RECORD_SECONDS:
            send(self.directory / RECORD, self._at(RECORD), replace=True)
            self._kept = time.monotonic()

    def keep(self, made: Path) -> str:
        """See `Destination`.

        Raises:
            OutputError: the upload failed.
        """
        address = self._at(made.name)
        send(made, address, replace=True)
        made.unlink()
        return address.name


def require_other_objects(
    destination: Destination, names: Sequence[str], inputs: Iterable[str]
) -> None:
    """Refuse outputs in an object store that are inputs.

    Args:
        destination: where the outputs go.
        names: names of the outputs.
        inputs: URLs and GDAL's paths of the inputs.

    Raises:
        UsageError: an output is an input.
    """
    if destination.address is None:
        return
    outputs = {(destination.address / name).location: name for name in names}
    for location in inputs:
        name = outputs.get(Address.in_store(location))
        if name is not None:
            raise UsageError(
                f"{destination.address / name}: is an input and would be an output; name another "
                "`output_dir`"
            )
