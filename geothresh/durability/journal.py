"""Journal of a run that makes rasters: fingerprint, finished strips and finished files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from geothresh.durability.locking import WorkDirectory, work_directory
from geothresh.durability.resuming import add_note, is_resumable, require_same_run
from geothresh.durability.strips import Log, StoredChunk, StripFile, is_sound, read_log, read_strip
from geothresh.errors import InputError, OutputError, UsageError, number_of
from geothresh.files import file_digest, write_bytes
from geothresh.packed import PackedLayer
from geothresh.windows import PixelWindow

_RUN, _LOG = "run.json", "journal.jsonl"
_FORMAT = 3

Fingerprint = Mapping[str, str | int | float | None]
"""Everything that the bytes of the output depend on, by name, in the form shown in messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A finished strip."""

    index: int
    """Number of the strip, from 0 at the top."""
    facts: dict[str, int]
    """Counts over the strip, by name."""


class Journal:
    """Journal of a run that can be killed at any moment and resumed.

    It is a context manager. If the block raises, finished work is kept, and a note is added to the
    exception. After an error in the input, which would come again, nothing is kept, nor if `finish`
    was called.
    """

    def __init__(
        self,
        target: Path,
        fingerprint: Fingerprint,
        *,
        restart: bool = False,
        keep: bool = True,
    ) -> None:
        """Lock the work directory of `target`, and load the work of an earlier run.

        Args:
            target: the main output.
            fingerprint: the fingerprint of this run.
            restart: delete the work of an earlier run.
            keep: keep strips; otherwise an interrupted run cannot be resumed.

        Raises:
            OutputError: another run is making the target, or the directory is unusable.
            InputError: the input has changed since the earlier run, and `restart` is False.
            UsageError: the earlier run had other parameters, and `restart` is False.
        """
        self.target = target
        self._keep = keep
        self._strip: StripFile | None = None
        self._finished = False
        self._directory = WorkDirectory(target)
        try:
            self._load_or_start(dict(fingerprint), restart)
        except BaseException:
            self._directory.release(remove=not (self._directory.path / _RUN).exists())
            raise

    def _load_or_start(self, fingerprint: dict[str, Any], restart: bool) -> None:
        path = self._directory.path / _RUN
        self.strips: list[Strip] = []
        with self._failing("the journal"):
            earlier = _read_run(path)
            if earlier is None and path.exists() and not restart:
                raise UsageError(
                    f"{self.target}: {path} is not of this version of geothresh; "
                    "add `restart=True` to start afresh"
                )
            if earlier is None or restart or not self._keep:
                self._start(fingerprint)
            else:
                _require_same(earlier["fingerprint"], fingerprint, self.target)
                self._log = Log(self._directory.path / _LOG)
                self.strips = self._sound_strips()

    def _start(self, fingerprint: dict[str, Any]) -> None:
        # The description is removed first: a directory without it counts as empty.
        (self._directory.path / _RUN).unlink(missing_ok=True)
        self._directory.clear()
        described = {"format": _FORMAT, "fingerprint": fingerprint}
        write_bytes(self._directory.path / _RUN, json.dumps(described, indent=1).encode())
        self._log = Log(self._directory.path / _LOG)

    def _sound_strips(self) -> list[Strip]:
        """Load the strips from the top that match the journal, and truncate it after them."""
        strips: list[Strip] = []
        for position, entry in enumerate(self._log.entries):
            if "strip" not in entry:
                continue
            index = int(entry["strip"])
            path = self._strip_path(index)
            sound = is_sound(path, size=int(entry["size"]), crc=int(entry["crc"]))
            if index != len(strips) or not sound:
                self._log.truncate(position)
                break
            strips.append(Strip(index=index, facts=dict(entry["facts"])))
        return strips

    def _strip_path(self, index: int) -> Path:
        return self._directory.path / f"s{index:06d}.bin"

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left finished work."""
        return bool(self.strips) or bool(self._log.entries)

    def stored(self) -> Iterator[StoredChunk]:
        """The chunks of all finished strips, in raster order.

        Raises:
            OutputError: the disk fails.
        """
        for strip in self.strips:
            with self._failing(f"strip {strip.index}"):
                yield from read_strip(self._strip_path(strip.index))

    @property
    def keeps_strips(self) -> bool:
        """Whether added chunks are stored."""
        return self._keep

    def add(self, window: PixelWindow, layers: Sequence[PackedLayer]) -> None:
        """Store the next chunk of the current strip.

        Raises:
            OutputError: the disk is full or fails.
        """
        if not self._keep:
            return
        index = len(self.strips)
        with self._failing(f"strip {index}"):
            if self._strip is None:
                self._strip = StripFile(self._strip_path(index))
            self._strip.add(window, layers)

    def commit(self, facts: Mapping[str, int]) -> None:
        """Finish the current strip; when this returns, it survives any interruption.

        Raises:
            OutputError: the disk is full or fails.
        """
        index = len(self.strips)
        entry: dict[str, Any] = {"strip": index, "facts": dict(facts)}
        if self._keep:
            strip, self._strip = self._strip, None
            if strip is None:
                raise ValueError(f"strip {index}: nothing was added to it")
            with self._failing(f"strip {index}"):
                try:
                    strip.commit()
                    self._directory.flush()
                    self._log.append(entry | {"size": strip.size, "crc": strip.crc})
                except OSError:
                    strip.discard()
                    raise
        self.strips.append(Strip(index=index, facts=dict(facts)))

    def total(self, fact: str) -> int:
        """The sum of a fact over all finished strips."""
        return sum(strip.facts[fact] for strip in self.strips)

    def record_made(self, made: Mapping[Path, Path], **facts: int) -> None:
        """Log the digests of finished files before they are renamed into place.

        Args:
            made: the finished temporary files, by final path.
            facts: numbers that `noted` gives back.

        Raises:
            OutputError: the disk is full or fails.
        """
        with self._failing("the journal"):
            digests = {str(path.absolute()): file_digest(file) for path, file in made.items()}
            self._log.append({"made": digests, "facts": facts})

    def is_made(self, outputs: Iterable[Path]) -> bool:
        """Whether all these outputs exist and are unchanged since they were logged."""
        made = _made(self._log.entries)
        return all(_is_as_made(path, made) for path in outputs)

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of all files that were logged, by absolute path."""
        return _made(self._log.entries)

    def noted(self, fact: str) -> int | None:
        """A fact that was logged by `record_made`; None if there is none of that name."""
        for entry in self._log.entries:
            if "made" in entry and fact in entry["facts"]:
                return int(entry["facts"][fact])
        return None

    def finish(self) -> None:
        """Mark the run as complete, so that nothing is kept: all outputs are in place."""
        self._finished = True

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Turn disk errors into an OutputError that names the work directory."""
        try:
            yield
        except (OSError, OutputError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            raise OutputError(
                f"{self.target}: {what} cannot be written or read in {self._directory.path.name} "
                f"beside it ({cause.strerror}); make room and run again"
            ) from cause

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unfinished = self._keep and self.resumed and not self._finished
        kept = error is not None and unfinished and is_resumable(error)
        try:
            if self._strip is not None:
                self._strip.discard()
            self._log.close()
        finally:
            self._directory.release(remove=not kept)
        if kept and error is not None:
            add_note(
                error,
                f"from {number_of(len(self.strips), 'finished strip')}, kept in "
                f"{self._directory.path.name}",
            )


def finished_outputs(target: Path) -> frozenset[Path]:
    """The complete outputs of an interrupted run of `target` that are unchanged since.

    They may be overwritten when the run is resumed.

    Raises:
        OutputError: the journal of the run cannot be read.
    """
    directory = work_directory(target)
    if not (directory / _RUN).is_file():
        return frozenset()
    try:
        entries = read_log(directory / _LOG)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise OutputError(
            f"{target}: {directory.name} beside it, which an interrupted run left, cannot be read "
            f"({error.strerror}); check its permissions, or remove it"
        ) from error
    made = _made(entries)
    return frozenset(Path(name) for name in made if _is_as_made(Path(name), made))


def left_by_another(target: Path, fingerprint: Fingerprint) -> bool:
    """Whether an interrupted run of `target` had other inputs or options."""
    path = work_directory(target) / _RUN
    earlier = _read_run(path)
    if earlier is None:
        return path.exists()
    return bool(earlier["fingerprint"] != json.loads(json.dumps(dict(fingerprint))))


def _made(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    made: dict[str, str] = {}
    for entry in entries:
        made |= entry.get("made", {})
    return made


def _is_as_made(path: Path, made: Mapping[str, str]) -> bool:
    digest = made.get(str(path.absolute()))
    return digest is not None and path.is_file() and file_digest(path) == digest


def _read_run(path: Path) -> dict[str, Any] | None:
    """Read ``run.json``; None if it does not exist or this version cannot read it."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        content = None
    if (
        not isinstance(content, dict)
        or content.get("format") != _FORMAT
        or not isinstance(content.get("fingerprint"), dict)
    ):
        return None
    return content


def _require_same(earlier: Mapping[str, Any], wanted: Mapping[str, Any], target: Path) -> None:
    inputs = [
        {name: value for name, value in run.items() if name.startswith("input")}
        for run in (earlier, wanted)
    ]
    require_same_run(target, *inputs, error=InputError, anew="`restart`")
    require_same_run(target, earlier, wanted, error=UsageError, anew="`restart`")
