"""The command line: a click group that imports each command when it is used.

It runs as ``geothresh`` and, as a plugin of rasterio, as ``rio geothresh``; in the second case and
under click's test runner only the group's ``invoke`` is called, so that exceptions become messages
and exit codes there.

Exit codes: 0 done; 1 internal fault; 2 wrong usage; 3 input; 4 output; 5 model; 128 + n for a
signal n (130 interrupt, 143 termination, 141 when the reader of stdout went away).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from geothresh._version import __version__
from geothresh.cli import options
from geothresh.cli.faults import reported, usage_escaped
from geothresh.cli.lazy import LazyGroup

# A command's module holds its click command under its own name and imports nothing heavy.
COMMANDS = {
    "base": "geothresh.cli.base",
    "calibrate": "geothresh.cli.calibrate",
    "compare": "geothresh.cli.compare",
    "demo": "geothresh.cli.demo",
    "evaluate": "geothresh.cli.evaluate",
    "info": "geothresh.cli.info",
    "model": "geothresh.cli.model",
    "qgis": "geothresh.cli.qgis",
    "refine": "geothresh.cli.refine",
    "train": "geothresh.cli.train",
    "vectorize": "geothresh.cli.vectorize",
}


class Frame(LazyGroup):
    """The outermost group: it turns exceptions into messages and exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, but escape control characters in messages that quote arguments."""
        with usage_escaped():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an exception becomes a one-line message and an exit code."""
        with reported(ctx):
            return super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run as click does, with standard streams that exist and can print any file name."""
        _fill_missing_streams()
        # A UTF-8 file name must be printable in the C locale too.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return super().main(args, *rest, **extra)


def _fill_missing_streams() -> None:
    """Open closed standard streams on the null device.

    Otherwise the next file to be opened gets the descriptor, and with it what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Gets the lowest free descriptor: this one.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Not closed: it stays open as long as the process lives.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115


@click.group(
    name="geothresh",
    cls=Frame,
    homes=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@options.common
@click.version_option(__version__, prog_name="geothresh")
def main() -> None:
    """Correct the confidence raster of any binary segmentation network.

    `geothresh refine scene.tif` reads a raster of probabilities, refines it with ThreshNet and
    writes a georeferenced mask beside it. `geothresh vectorize` turns masks into polygons.
    """
