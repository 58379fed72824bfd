"""Progress of a command on stderr: a bar, lines, or JSON.

The library reports to a callback, which draws a bar on a terminal and prints a line a minute
elsewhere. With ``--progress json`` it prints lines of JSON for programs. Each is an object with

- ``kind``: the job, such as refine, train, predict;
- ``event``: ``progress``, at most five times a second; ``epoch`` with its scores; at last ``end``,
  unless the run fails or is stopped;
- ``done``, ``total``, ``unit``: of the whole job, in tiles, parts, maps or steps;
- ``seconds`` since the job began, and ``eta``, the seconds left, null where unknown;
- for trainings, ``loss`` and ``stage``, such as "epoch 3/10".

Errors and warnings remain plain lines that begin with Error or Warning.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geothresh.cli.faults import print_line, require_not_stopped
from geothresh.cli.options import verbosity
from geothresh.options import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

# Seconds between two lines: in a log, and for a program.
_LINE_EVERY = 60.0
_JSON_EVERY = 0.2
# Size of a terminal that does not tell its own, as some pseudo-terminals do not.
_COLUMNS, _ROWS = 80, 24
# Last steps of a training whose mean loss is printed at its end.
_RECENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The progress of a job."""

    kind: str
    """Name of the job, such as refine."""
    stage: str
    """Label of the bar: the kind, or the stage of it, such as "epoch 3/10"."""
    unit: str
    """Word for what is counted, in the singular."""
    done: int
    total: int
    seconds: float
    """Seconds since the job began."""
    eta: float | None
    """Seconds left; None before the second report."""
    loss: float | None = None
    """Loss of the last step of a training."""


class Display(ABC):
    """Shows the progress of a job."""

    @abstractmethod
    def show(self, update: Update) -> None:
        """Show an update, or skip it if the last one was shown a moment ago."""

    def tell_epoch(self, kind: str, row: Mapping[str, Any]) -> None:
        """Print a line with the losses and scores of an epoch."""
        print_line(_epoch_line(row))

    def end(self, last: Update | None) -> None:  # noqa: B027 (nothing to do is the usual case)
        """End the display after a job; `last` is the last report, shown or not."""

    def close(self) -> None:  # noqa: B027 (as `end`)
        """Close the display after a job that is done or has failed."""


@dataclass(slots=True, kw_only=True)
class Pace:
    """Measures the time that a job has taken, and estimates the time left."""

    clock: Callable[[], float] = time.monotonic
    _begin: float = field(init=False)
    # The first report of a pass, which counts what an earlier run has done.
    _first: tuple[float, int] | None = field(init=False, default=None)
    _last: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._begin = self.clock()

    def at(self, done: int, total: int) -> tuple[float, float | None]:
        """Seconds since the job began, and those left, None where that is unknown."""
        now = self.clock()
        if self._first is None or done < self._last:
            self._first = now, done
        self._last = done
        since, before = self._first
        if done >= total:
            return now - self._begin, 0.0
        if done == before:
            return now - self._begin, None
        return now - self._begin, (total - done) * (now - since) / (done - before)


class Bar(Display):
    """A bar on a terminal, shown from the first report on, as the total is unknown before."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def show(self, update: Update) -> None:
        """See `Display`."""
        if self._bar is None:
            from tqdm import tqdm

            sized = bool(_columns())
            self._bar = tqdm(
                unit=update.unit, file=sys.stderr, initial=update.done, total=update.total,
                dynamic_ncols=sized, ncols=None if sized else _COLUMNS,
                nrows=None if sized else _ROWS,
            )  # fmt: skip
        self._bar.total = update.total
        self._bar.set_description(update.stage, refresh=False)
        if update.loss is not None:
            self._bar.set_postfix_str(f"loss {update.loss:.4f}", refresh=False)
        if update.done < self._bar.n:
            # Another job of the same kind.
            self._bar.reset(total=update.total)
        self._bar.update(update.done - self._bar.n)
        if update.done == update.total:
            self._bar.refresh()

    def close(self) -> None:
        """See `Display`."""
        if self._bar is not None:
            self._bar.close()


class Lines(Display):
    """A line a minute, for logs; nothing for shorter jobs."""

    def __init__(self, every: float = _LINE_EVERY) -> None:
        """Take the seconds from one line to the next."""
        self._every = every
        self._next = every

    def show(self, update: Update) -> None:
        """See `Display`."""
        if update.seconds < self._next:
            return
        self._next = update.seconds + self._every
        share = 100 * update.done / max(update.total, 1)
        parts = [f"{update.done:,} of {update.total:,} {update.unit}s ({share:.0f} %)"]
        if update.loss is not None:
            parts.append(f"loss {update.loss:.4f}")
        parts.append(f"{duration(update.seconds)} so far")
        if update.eta is not None:
            parts.append(f"{duration(update.eta)} left")
        stage = "" if update.stage == update.kind else f", {update.stage}"
        print_line(f"{update.kind}{stage}: {', '.join(parts)}")


class Json(Display):
    """Lines of JSON, for programs."""

    def __init__(self, every: float = _JSON_EVERY) -> None:
        """Take the least number of seconds from one line to the next."""
        self._every = every
        self._next = 0.0

    def show(self, update: Update) -> None:
        """See `Display`; the last one of all is never left out."""
        if update.seconds < self._next and update.done < update.total:
            return
        self._next = update.seconds + self._every
        self._print("progress", update)

    def tell_epoch(self, kind: str, row: Mapping[str, Any]) -> None:
        """See `Display`."""
        _print_json({"kind": kind, "event": "epoch", **row})

    def end(self, last: Update | None) -> None:
        """See `Display`."""
        if last is not None:
            self._print("end", last)

    def _print(self, event: str, update: Update) -> None:
        facts: dict[str, Any] = {
            "kind": update.kind,
            "event": event,
            "done": update.done,
            "total": update.total,
            "unit": update.unit,
            "seconds": round(update.seconds, 1),
            "eta": None if update.eta is None else round(update.eta, 1),
        }
        if update.stage != update.kind:
            facts["stage"] = update.stage
        if update.loss is not None:
            facts["loss"] = update.loss
        _print_json(facts)


def _print_json(facts: Mapping[str, Any]) -> None:
    """Print an object in a line; NaN and infinities are null."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in facts.items()
    }
    print_line(json.dumps(plain, allow_nan=False, default=float))


def duration(seconds: float) -> str:
    """A duration as text: "40 s", "3 min 20 s", "5 h 10 min"."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def display_of(how: str) -> Display | None:
    """The display that ``--progress`` names; None shows nothing.

    ``auto`` is a bar on a terminal and lines elsewhere, and nothing with ``-q``.
    """
    if how == "auto":
        how = "none" if verbosity() < 0 else "bar" if sys.stderr.isatty() else "lines"
    displays: dict[str, Callable[[], Display]] = {"bar": Bar, "lines": Lines, "json": Json}
    return displays[how]() if how in displays else None


class Counter:
    """The callback ``(done, total)`` of a job."""

    def __init__(self, display: Display, kind: str, unit: str, *, until_full: bool = False) -> None:
        """Make a counter.

        Args:
            display: shows it; ended and closed by the counter.
            kind: name of the job, such as refine.
            unit: word for what is counted, in the singular.
            until_full: whether the job ends when everything is counted.
        """
        self._display: Display | None = display
        self._kind, self._unit, self._until_full = kind, unit, until_full
        self._pace = Pace()
        self._last: Update | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show the number of units done."""
        if self._display is None:
            return
        seconds, eta = self._pace.at(done, total)
        self._last = Update(
            kind=self._kind, stage=self._kind, unit=self._unit, done=done, total=total,
            seconds=seconds, eta=eta,
        )  # fmt: skip
        self._display.show(self._last)
        if done == total and self._until_full:
            self.end()

    def end(self) -> None:
        """End the display: the job is done."""
        if self._display is not None:
            self._display.end(self._last)
            self.close()

    def close(self) -> None:
        """Close the display: the job is done or has failed."""
        if self._display is not None:
            self._display.close()
            self._display = None


@contextmanager
def reporting(
    how: str, kind: str, unit: str = "tile", *, until_full: bool = False
) -> Iterator[Progress | None]:
    """Give a callback ``(done, total)`` that shows progress, or None.

    Args:
        how: the value of ``--progress``.
        kind: name of the job, such as refine.
        unit: word for what is counted, in the singular.
        until_full: see `Counter`.
    """
    display = display_of(how)
    if display is None:
        yield None
        return
    counter = Counter(display, kind, unit, until_full=until_full)
    try:
        yield counter
        counter.end()
    finally:
        counter.close()


def checking(how: str) -> AbstractContextManager[Progress | None]:
    """`reporting` for the check of the data, which ends before the training starts."""
    return reporting(how, "check data", "map", until_full=True)


class Steps:
    """The callback of training steps: shows them, and ends the run if a signal asked for it."""

    def __init__(self, display: Display | None, *, clock: Callable[[], float] = time.monotonic):
        """Take the display; None = steps are not shown."""
        self._display = display
        self._clock = clock
        self._pace = Pace(clock=clock)
        self._losses: deque[float] = deque(maxlen=_RECENT)
        self._scores: dict[int, str] = {}
        self.last: Update | None = None

    def __call__(self, stage: str, done: int, total: int, loss: float) -> None:
        """Show a step.

        Args:
            stage: stage of the training, such as "epoch 3/10".
            done, total: steps of the whole training; fewer than before = another training began.
            loss: loss of the step.

        Raises:
            KeyboardInterrupt, Terminated: a signal asked for the end.
        """
        require_not_stopped()
        self._losses.append(loss)
        if self.last is not None and done < self.last.done:
            self._pace = Pace(clock=self._clock)
        seconds, eta = self._pace.at(done, total)
        self.last = Update(
            kind="train", stage=stage, unit="step", done=done, total=total, seconds=seconds,
            eta=eta, loss=loss,
        )  # fmt: skip
        if self._display is not None:
            self._display.show(self.last)

    def tell_epoch(self, row: Mapping[str, Any]) -> None:
        """Show the losses and scores of an epoch."""
        if "miou" in row and "fold" not in row:
            self._scores[row["epoch"]] = _scores(row)
        if self._display is not None:
            self._display.tell_epoch("train", row)

    def scores(self, epoch: int) -> str | None:
        """The scores of an epoch in words; None if an earlier run trained it."""
        return self._scores.get(epoch)

    def recent_loss(self) -> str | None:
        """The mean loss of the last steps of this run, in words; None without a step."""
        n = len(self._losses)
        if not n:
            return None
        last = "the last step" if n == 1 else f"the last {n} steps"
        return f"loss {sum(self._losses) / n:.4f} over {last}"


@contextmanager
def training_steps(how: str) -> Iterator[Steps]:
    """Give the callbacks of a training's steps and epochs; `how` is the value of ``--progress``."""
    display = display_of(how)
    steps = Steps(display)
    try:
        yield steps
        if display is not None:
            display.end(steps.last)
    finally:
        if display is not None:
            display.close()


def _columns() -> int:
    """Columns of the terminal on stderr; 0 if there is none or its size is unknown."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


def _epoch_line(row: Mapping[str, Any]) -> str:
    """The row of an epoch as text; some have no loss (epoch 0) or no scores (folds)."""
    fold = ""
    if "fold" in row:
        fold = " (all maps)" if row["fold"] == "all" else f" (fold {row['fold']})"
    parts = [f"loss {row['train_total']:.4f}"] if "train_total" in row else ["before training"]
    if "miou" in row:
        parts.append(_scores(row))
    if "learning_rate" in row:
        parts.append(f"rate {row['learning_rate']:.1e}")
    return f"epoch {row['epoch']}{fold}: {', '.join(parts)}, {row['seconds']:.0f} s"


def _scores(row: Mapping[str, Any]) -> str:
    return f"validation miou {100 * row['miou']:.2f}, Boundary IoU {100 * row['boundary_iou']:.2f}"
