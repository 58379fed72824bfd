"""The journal of a run: what it is, what is done of it, and what of its output is in place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from geothresh.errors import GeothreshError, InputError, OutputError, UsageError
from geothresh.files import file_digest, write_bytes
from geothresh.journal.lines import ProvenLines, read_lines
from geothresh.journal.strips import StoredChunk, StripFile, is_sound, read_strip
from geothresh.journal.workdir import LockedDirectory, work_directory
from geothresh.layers import PackedLayer
from geothresh.windows import PixelWindow

_RUN, _LINES = "run.json", "journal.jsonl"
_FORMAT = 1

Fingerprint = Mapping[str, str | int | float | None]
"""All that the bytes of the output depend on, by the name by which people know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A finished strip."""

    index: int
    """Place from the top, from 0."""
    facts: dict[str, int]
    """What was counted while it was made."""


class Journal:
    """A run that can be killed at any moment and goes on when it is started again.

    A context manager. Leaving it by an exception keeps the work, and says so in a note on the
    exception, if there is some and it is worth keeping: an error in the input is not mended by
    starting again. Leaving it otherwise keeps nothing; `finish` was called by then.
    """

    def __init__(
        self,
        target: Path,
        fingerprint: Fingerprint,
        *,
        restart: bool = False,
        keep: bool = True,
    ) -> None:
        """Lock the work directory of `target`, and take up what an earlier run left in it.

        Args:
            target: the main output.
            fingerprint: of this run.
            restart: throw away what an earlier run left.
            keep: keep strips; otherwise an interrupted run starts from nothing.

        Raises:
            OutputError: another run is at work on the target, or the directory is unusable.
            InputError: the input changed since the earlier run, and `restart` is false.
            UsageError: the earlier run had other parameters, likewise.
        """
        self.target = target
        self._keep = keep
        self._strip: StripFile | None = None
        self._finished = False
        self._directory = LockedDirectory(target)
        try:
            self._take_up(dict(fingerprint), restart)
        except BaseException:
            self._directory.release(remove=not (self._directory.path / _RUN).exists())
            raise

    def _take_up(self, fingerprint: dict[str, Any], restart: bool) -> None:
        path = self._directory.path / _RUN
        self.strips: list[Strip] = []
        try:
            found = _read_run(path)
            if found is None and path.exists() and not restart:
                raise UsageError(
                    f"{self.target}: {path} is not of this version of geothresh; "
                    "add --restart to start afresh"
                )
            if found is None or restart or not self._keep:
                self._start(fingerprint)
            else:
                _require_same(found["fingerprint"], fingerprint, self.target)
                self._lines = ProvenLines(self._directory.path / _LINES)
                self.strips = self._sound_strips()
        except OSError as error:
            raise self._failure("the journal", error) from error
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise self._failure("the journal", error.__cause__) from error
            raise

    def _start(self, fingerprint: dict[str, Any]) -> None:
        # The description goes first: a directory without it is a dead one.
        (self._directory.path / _RUN).unlink(missing_ok=True)
        self._directory.clear()
        described = {"format": _FORMAT, "fingerprint": fingerprint}
        write_bytes(self._directory.path / _RUN, json.dumps(described, indent=1).encode())
        self._lines = ProvenLines(self._directory.path / _LINES)

    def _sound_strips(self) -> list[Strip]:
        """The strips from the top on that are as the journal says; the lines after them go."""
        strips: list[Strip] = []
        for place, entry in enumerate(self._lines.entries):
            if "strip" not in entry:
                continue
            index = int(entry["strip"])
            path = self._strip_path(index)
            sound = is_sound(path, size=int(entry["size"]), crc=int(entry["crc"]))
            if index != len(strips) or not sound:
                self._lines.truncate(place)
                break
            strips.append(Strip(index=index, facts=dict(entry["facts"])))
        return strips

    def _strip_path(self, index: int) -> Path:
        return self._directory.path / f"s{index:06d}.bin"

    @property
    def resumed(self) -> bool:
        """Whether an earlier run left something that counts."""
        return bool(self.strips) or bool(self._lines.entries)

    def stored(self) -> Iterator[StoredChunk]:
        """The chunks of all finished strips, in raster order.

        Raises:
            OutputError: the disk fails.
        """
        for strip in self.strips:
            try:
                yield from read_strip(self._strip_path(strip.index))
            except OSError as error:
                raise self._failure(f"strip {strip.index}", error) from error

    @property
    def keeps_strips(self) -> bool:
        """Whether what is added is stored."""
        return self._keep

    def add(self, window: PixelWindow, layers: Sequence[PackedLayer]) -> None:
        """Store the next chunk of the strip in work.

        Raises:
            OutputError: the disk is full or fails.
        """
        if not self._keep:
            return
        index = len(self.strips)
        try:
            if self._strip is None:
                self._strip = StripFile(self._strip_path(index))
            self._strip.add(window, layers)
        except OSError as error:
            raise self._failure(f"strip {index}", error) from error

    def commit(self, facts: Mapping[str, int]) -> None:
        """End the strip in work: when this returns, no interruption takes it away again.

        Raises:
            OutputError: the disk is full or fails.
        """
        index = len(self.strips)
        entry: dict[str, Any] = {"strip": index, "facts": dict(facts)}
        if self._keep:
            strip, self._strip = self._strip, None
            if strip is None:
                raise ValueError(f"strip {index}: nothing was added to it")
            try:
                strip.commit()
                self._directory.flush()
                self._lines.append(entry | {"size": strip.size, "crc": strip.crc})
            except OSError as error:
                strip.discard()
                raise self._failure(f"strip {index}", error) from error
        self.strips.append(Strip(index=index, facts=dict(facts)))

    def total(self, fact: str) -> int:
        """The sum of a fact over all finished strips."""
        return sum(strip.facts[fact] for strip in self.strips)

    def record_made(self, made: Mapping[Path, Path], **facts: int) -> None:
        """Note down what is about to be put in place.

        Args:
            made: by the path where it is to be, the finished temporary file.
            facts: for `noted`.

        Raises:
            OutputError: the disk is full or fails.
        """
        try:
            digests = {str(path.absolute()): file_digest(file) for path, file in made.items()}
            self._lines.append({"made": digests, "facts": facts})
        except OSError as error:
            raise self._failure("the journal", error) from error

    def is_made(self, outputs: Iterable[Path]) -> bool:
        """Whether all these are in place as an earlier run of this journal made them."""
        made = _made(self._lines.entries)
        return all(_is_as_made(path, made) for path in outputs)

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of all that was made, by its absolute path."""
        return _made(self._lines.entries)

    def noted(self, fact: str) -> int | None:
        """A fact that was noted with what was made; None if it was not."""
        for entry in self._lines.entries:
            if "made" in entry and fact in entry["facts"]:
                return int(entry["facts"][fact])
        return None

    def finish(self) -> None:
        """All outputs are in place: nothing needs to be kept."""
        self._finished = True

    def _failure(self, what: str, error: OSError) -> OutputError:
        return OutputError(
            f"{self.target}: {what} cannot be written or read in {self._directory.path.name} "
            f"beside it ({error.strerror}); make room and run again"
        )

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kept = error is not None and self._keep and self.resumed and not self._finished
        kept = kept and (not isinstance(error, GeothreshError) or error.resumable)
        try:
            if self._strip is not None:
                self._strip.discard()
            self._lines.close()
        finally:
            self._directory.release(remove=not kept)
        if kept and error is not None:
            error.add_note(
                f"{len(self.strips)} finished strips are kept in {self._directory.path.name}: "
                "the same command again goes on from there"
            )


def finished_outputs(target: Path) -> frozenset[Path]:
    """The outputs that a run of `target` put in place before it was interrupted, as they are now.

    They exist, and are nobody's but that run's: its resumption need not fear for them.

    Raises:
        OutputError: what the run left cannot be read.
    """
    directory = work_directory(target)
    if not (directory / _RUN).is_file():
        return frozenset()
    try:
        entries = read_lines(directory / _LINES)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise OutputError(
            f"{target}: {directory.name} beside it, which an interrupted run left, cannot be read "
            f"({error.strerror})"
        ) from error
    made = _made(entries)
    return frozenset(Path(name) for name in made if _is_as_made(Path(name), made))


def _made(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    made: dict[str, str] = {}
    for entry in entries:
        made |= entry.get("made", {})
    return made


def _is_as_made(path: Path, made: Mapping[str, str]) -> bool:
    digest = made.get(str(path.absolute()))
    return digest is not None and path.is_file() and file_digest(path) == digest


def _read_run(path: Path) -> dict[str, Any] | None:
    """What ``run.json`` says; None where there is none, or one that this version cannot read."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if (
        not isinstance(found, dict)
        or found.get("format") != _FORMAT
        or not isinstance(found.get("fingerprint"), dict)
    ):
        return None
    return found


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], target: Path) -> None:
    differing = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if not differing:
        return
    changes = ", ".join(
        f"{name} was {found.get(name)} and is {wanted.get(name)}" for name in differing[:3]
    )
    if any(name.startswith("input") for name in differing):
        raise InputError(
            f"{target}: an interrupted run is there, and its input is another one or has changed "
            f"since ({changes}); add --restart to start afresh"
        )
    raise UsageError(
        f"{target}: an interrupted run of other parameters is there ({changes}); "
        "repeat its command to go on, or add --restart to start afresh"
    )
