"""Record of a run over many files: which units are finished, from which inputs, with which files.

The record is a log that stays beside the outputs. The same command resumes from it, and a later one
finds what has changed since. A unit has a digest of everything that its outputs depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geothresh.durability.locking import only_run
from geothresh.durability.strips import Log
from geothresh.errors import OutputError
from geothresh.files import file_digest

RECORD = ".geothresh.jsonl"
"""Name of the record in the directory of the outputs."""


@dataclass(frozen=True, slots=True)
class MadeFile:
    """Size, time of change and digest of an output when it was finished."""

    size: int
    """Size in bytes."""
    modified_ns: int
    """Time of last change, in nanoseconds."""
    sha256: str

    @classmethod
    def of(cls, path: Path, sha256: str) -> MadeFile:
        """Describe a finished file.

        Raises:
            OSError: the file does not exist.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, sha256)

    def is_at(self, path: Path) -> bool:
        """Whether the file is unchanged; if only its time differs, its content is compared."""
        try:
            status = path.stat()
        except OSError:
            return False
        if status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.modified_ns or file_digest(path) == self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedUnit:
    """A finished unit and its outputs."""

    digest: str
    """Digest of everything that its outputs depend on."""
    files: Mapping[str, MadeFile]
    """The outputs, by name in the directory of the record."""
    facts: Mapping[str, int]
    """Counts, such as of tiles, by name."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vector file that was made from all units together."""

    of: str = ""
    """Digest of the units that it was made from."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file by absolute path, and of each object by GDAL's path."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """Counts, such as of features, by name."""


class Record:
    """The record of a directory of outputs; one run at a time may open it."""

    def __init__(self, directory: Path, log: Log) -> None:
        """Read the entries of a log; use `opened` instead."""
        self._directory = directory
        self._log = log
        self.finished: dict[str, FinishedUnit] = {}
        """Finished units by name."""
        self.method: Mapping[str, Any] | None = None
        """Parameters by name that all units of the last run share; None without an earlier run."""
        self._vectors = Vectors()
        self._drawn: set[tuple[str, str]] = set()
        self.indexes: dict[str, str] = {}
        """sha256 of the newest index of each name; it may not be in place yet."""
        self._indexed: set[tuple[str, str | None]] = set()
        self.complete = False
        """Whether the last run was complete."""
        for entry in log.entries:
            self._take(entry)
        log.entries.clear()

    def _take(self, entry: Mapping[str, Any]) -> None:
        """Update the state by one entry of the log."""
        if "indexed" in entry:
            self.indexes.update(entry["indexed"])
            self._indexed.update(entry["indexed"].items())
            return
        if "unindexed" in entry:
            self.indexes.pop(entry["unindexed"], None)
            return
        self.complete = bool(entry.get("complete"))
        if "method" in entry:
            self.method = entry["method"]
        if "dropped" in entry:
            self.finished.pop(entry["dropped"], None)
        if "made" in entry:
            self._vectors = Vectors(entry["of"], entry["made"], entry["facts"])
            self._drawn.update(self._vectors.files.items())
        if "unit" in entry:
            files = {name: MadeFile(*made) for name, made in entry["files"].items()}
            self.finished[entry["unit"]] = FinishedUnit(
                digest=entry["digest"], files=files, facts=entry["facts"]
            )

    def _note(self, entry: Mapping[str, Any]) -> None:
        """Append an entry to the log."""
        try:
            self._log.append(entry)
        except OSError as error:
            raise OutputError(
                f"{self._directory}: its record {RECORD} cannot be written ({error.strerror}); "
                "make room and run again"
            ) from error
        self._log.entries.clear()
        self._take(entry)

    def begin(self, method: Mapping[str, object]) -> None:
        """Log the parameters that all units of a run share."""
        self._note({"method": method})

    def add(self, unit: str, finished: FinishedUnit) -> None:
        """Log a finished unit; when this returns, the entry is on the disk."""
        files = {n: [m.size, m.modified_ns, m.sha256] for n, m in finished.files.items()}
        facts = dict(finished.facts)
        self._note({"unit": unit, "digest": finished.digest, "files": files, "facts": facts})

    def drop(self, unit: str) -> None:
        """Log that a unit is no longer part of the outputs."""
        self._note({"dropped": unit})

    def add_index(self, name: str, sha256: str) -> None:
        """Log an index of the outputs before it is put in place."""
        self._note({"indexed": {name: sha256}})

    def drop_index(self, name: str) -> None:
        """Log that there is no index of this name any more."""
        self._note({"unindexed": name})

    def has_indexed(self, name: str, sha256: str | None) -> bool:
        """Whether any run made an index of this name and digest."""
        return (name, sha256) in self._indexed

    def record_made(self, made: Mapping[Path, Path], **facts: int) -> None:
        """Log vector files of all finished units before they are renamed into place.

        Args:
            made: the finished temporary files, by final path.
            facts: counts, such as of features.
        """
        self.record_vectors(
            {str(path.absolute()): file_digest(file) for path, file in made.items()}, **facts
        )

    def record_vectors(self, digests: Mapping[str, str], **facts: int) -> None:
        """Log vector files by name and digest; objects are logged before they are uploaded."""
        self._note({"made": dict(digests), "facts": facts, "of": self._state})

    @property
    def vectors(self) -> dict[str, int] | None:
        """Counts of the vector file; None if it was made from other units."""
        return dict(self._vectors.facts) if self._vectors.of == self._state else None

    def is_drawn(self, name: str, sha256: str | None) -> bool:
        """Whether a vector file was made from the finished units, and still has the logged digest.

        Args:
            name: its path, as in `Vectors.files`.
            sha256: its present digest; None if it does not exist.
        """
        made = self._vectors.files.get(name)
        return self.vectors is not None and made is not None and made == sha256

    def has_drawn(self, name: str, sha256: str | None) -> bool:
        """Whether any run made a vector file of this name and digest, from any units."""
        return (name, sha256) in self._drawn

    def vector_files(self) -> frozenset[Path]:
        """Vector files that are unchanged since the last run made them, from any units."""
        made = ((Path(name), digest) for name, digest in self._vectors.files.items())
        return frozenset(
            path for path, digest in made if path.is_file() and file_digest(path) == digest
        )

    @property
    def _state(self) -> str:
        """Digest of all finished units."""
        units = sorted((name, unit.digest) for name, unit in self.finished.items())
        return hashlib.sha256(json.dumps(units).encode()).hexdigest()

    def end(self) -> None:
        """Log that the run is complete."""
        self._note({"complete": True})


@contextmanager
def opened(directory: Path) -> Iterator[Record]:
    """Open the record of a directory, and lock it against other runs.

    Raises:
        OutputError: another run is using the directory, or the record cannot be read or written.
    """
    path = directory / RECORD
    with only_run(path):
        try:
            log = Log(path)
        except OSError as error:
            raise OutputError(
                f"{directory}: its record {RECORD} cannot be read and written ({error.strerror}); "
                "choose another directory"
            ) from error
        try:
            yield Record(directory, log)
        finally:
            log.close()
