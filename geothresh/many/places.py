"""Where the outputs of many files go: a directory on this machine, or an object store."""

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
from geothresh.many.options import LAYERS
from geothresh.many.units import output_name, output_path
from geothresh.options import PathLike
from geothresh.raster.provenance import unit_of
from geothresh.raster.uploading import fetch_file, remove, send, unit_there
from geothresh.run.staging import work_place
from geothresh.sidecars import put_style, sidecars_of

# Objects that are asked for at once: a store answers in tens of milliseconds, whatever it is asked.
_AT_ONCE = 16
# Between two copies of the record in the store.
_RECORD_SECONDS = 60.0


class Place(Protocol):
    """Where outputs go, and what is there of them; they are named as in its directory."""

    @property
    def directory(self) -> Path:
        """On this machine: of the record, and in which outputs are made."""

    @property
    def address(self) -> Address | None:
        """To which finished outputs are sent; None if they stay in the directory."""

    def output(self, unit: str, layer: str) -> Path | str:
        """An output, as the user calls it."""

    def existing(self, names: Iterable[str]) -> set[str]:
        """Which of these are there, made by whomever, perhaps with more."""

    def is_as_made(self, name: str, entry: FinishedUnit) -> bool:
        """Whether an output is as a unit was noted down to have left it."""

    def is_of(self, name: str, unit: str, digest: str) -> bool:
        """Whether an output that no record knows is that of a unit of the same digest."""

    def remove(self, unit: str, entry: FinishedUnit) -> None:
        """Remove the outputs of a unit."""

    def fetch_record(self) -> None:
        """Have the record of a run on another machine, if there is none on this one."""

    def keep_record(self, *, now: bool) -> None:
        """Let other machines have the record: now, or if that was some time ago."""

    def keep(self, made: Path) -> Path | str:
        """Have a finished file beside the outputs; gives it as the user calls it."""


def place_of(output_dir: PathLike) -> Place:
    """Where outputs go.

    Raises:
        UsageError: it is neither a local directory nor in an object store.
    """
    address = Address.of(output_dir, several=True)
    if address is None:
        return Directory(Path(os.fspath(output_dir)))
    return Store(work_place(address), address)


def is_whole(place: Place, entry: FinishedUnit) -> bool:
    """Whether all outputs of a unit exist unchanged."""
    return all(place.is_as_made(name, entry) for name in entry.files)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory on this machine."""

    directory: Path
    address: None = None

    def output(self, unit: str, layer: str) -> Path:
        """See `Place`."""
        return output_path(self.directory, unit, layer)

    def existing(self, names: Iterable[str]) -> set[str]:
        """See `Place`."""
        return set(os.listdir(self.directory))

    def is_as_made(self, name: str, entry: FinishedUnit) -> bool:
        """See `Place`."""
        made = entry.files.get(name)
        return made is not None and made.is_at(self.directory / name)

    def is_of(self, name: str, unit: str, digest: str) -> bool:
        """See `Place`."""
        path = self.directory / name
        finished = finished_outputs(output_path(self.directory, unit, "mask"))
        return path.absolute() in finished or unit_of(path) == digest

    def remove(self, unit: str, entry: FinishedUnit) -> None:
        """See `Place`; what describes them goes too."""
        for layer in LAYERS:
            output = output_path(self.directory, unit, layer)
            try:
                for path in (*sidecars_of(output), output):
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{output}: cannot be removed ({error.strerror})") from error
            put_style(output, None, "raster")

    def fetch_record(self) -> None:
        """See `Place`: it is here."""

    def keep_record(self, *, now: bool) -> None:
        """See `Place`: it is here."""

    def keep(self, made: Path) -> Path:
        """See `Place`: it is here."""
        return made


@dataclass(slots=True)
class Store:
    """Objects whose names begin alike, and a directory on this machine in which they are made.

    An object is whole or not there, and its tags say of which unit it is: so it need not be read
    to be known.
    """

    directory: Path
    address: Address
    _units: dict[str, str | None] = field(default_factory=dict)
    """What is known of objects: the digest in their tags, empty without one, None if not there."""
    _kept: float = field(default_factory=time.monotonic)
    """When the record was last sent, or the run began."""

    def output(self, unit: str, layer: str) -> str:
        """See `Place`."""
        return self._at(output_name(unit, layer)).name

    def _at(self, name: str) -> Address:
        return self.address / name

    def existing(self, names: Iterable[str]) -> set[str]:
        """See `Place`.

        Raises:
            OutputError: the store does not tell.
        """
        asked = [name for name in names if name not in self._units]
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="geothresh-objects")
        try:
            found = pool.map(unit_there, map(self._at, asked))
            self._units.update(zip(asked, found, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
        return {name for name, unit in self._units.items() if unit is not None}

    def is_as_made(self, name: str, entry: FinishedUnit) -> bool:
        """See `Place`."""
        return self.is_of(name, "", entry.digest)

    def is_of(self, name: str, unit: str, digest: str) -> bool:
        """See `Place`."""
        return name in self.existing([name]) and self._units[name] == digest

    def remove(self, unit: str, entry: FinishedUnit) -> None:
        """See `Place`."""
        for name in entry.files:
            remove(self._at(name))

    def fetch_record(self) -> None:
        """See `Place`.

        Raises:
            OutputError: the store does not tell, or it cannot be written here.
        """
        here = self.directory / RECORD
        if not here.exists():
            fetch_file(self._at(RECORD), here)

    def keep_record(self, *, now: bool) -> None:
        """See `Place`: what is done meanwhile, another machine would do anew.

        Raises:
            OutputError: the store did not take it.
        """
        if now or time.monotonic() - self._kept > _RECORD_SECONDS:
            send(self.directory / RECORD, self._at(RECORD), replace=True)
            self._kept = time.monotonic()

    def keep(self, made: Path) -> str:
        """See `Place`.

        Raises:
            OutputError: the store did not take it.
        """
        address = self._at(made.name)
        send(made, address, replace=True)
        made.unlink()
        return address.name


def require_other_objects(place: Place, names: Sequence[str], inputs: Iterable[str]) -> None:
    """Refuse outputs in an object store that are inputs.

    Args:
        place: of the outputs.
        names: of the outputs.
        inputs: URLs and paths of GDAL's.

    Raises:
        UsageError: one is.
    """
    if place.address is None:
        return
    outputs = {(place.address / name).location: name for name in names}
    for location in inputs:
        name = outputs.get(Address.in_store(location))
        if name is not None:
            raise UsageError(
                f"{place.address / name}: is an input and would be an output; name another "
                "`output_dir`"
            )
