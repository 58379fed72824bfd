"""The progress bar: the library reports (done, total) to a callback, this draws it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from geothresh.cli.options import verbosity

Progress = Callable[[int, int], None]


def bar_wanted(wanted: bool | None) -> bool:
    """What ``--progress/--no-progress`` comes to: by default a bar on a terminal, unless ``-q``."""
    if wanted is None:
        return sys.stderr.isatty() and verbosity() >= 0
    return wanted


@contextmanager
def progress_bar(wanted: bool | None, label: str, unit: str = "tile") -> Iterator[Progress | None]:
    """Give a callback ``(done, total)`` that draws a bar, or None where none is wanted.

    `wanted` is the value of ``--progress/--no-progress``, see `bar_wanted`.
    """
    if not bar_wanted(wanted):
        yield None
        return

    from tqdm import tqdm

    # Shown at the first report: until then the total is not known.
    with tqdm(desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True, delay=1e-9) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


@contextmanager
def checking_bar(wanted: bool | None) -> Iterator[Progress | None]:
    """A bar for the look at the data, which ends with it, hours before the training does."""
    with ExitStack() as bar:
        report = bar.enter_context(progress_bar(wanted, "check data", unit="map"))
        if report is None:
            yield None
            return

        def on_check(done: int, total: int) -> None:
            report(done, total)
            if done == total:
                bar.close()

        yield on_check
