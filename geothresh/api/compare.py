"""Compare two masks on one grid: count the changes and write a raster of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geothresh._version import __version__
from geothresh.fields import checked, plain, require_only
from geothresh.metrics import Counts
from geothresh.options import WRITE_IN_ONE_GO, PathLike, Progress, Writing
from geothresh.raster.creation import BLOCK, CHANGES
from geothresh.raster.mask import Mask, open_labels
from geothresh.raster.paths import find_raster
from geothresh.raster.writing import RasterWriter, mask_values
from geothresh.run.changes import change_values
from geothresh.run.directories import with_directories
from geothresh.run.outputs import check_raster, describe
from geothresh.windows import PixelWindow, RegularGrid

# Columns of a part: many blocks, so that few calls read and write them, and little memory.
_PART_WIDTH = 8 * BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The raster of changes, and counts of pixels."""

    output: Path
    """GeoTIFF: 0 unchanged, 1 became foreground, 2 became background, 255 nodata in either mask."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""
    valid_pixels: int
    """Pixels with data in both masks; the counts below are of these."""
    foreground_before: int
    """Foreground pixels of the first mask."""
    foreground_after: int
    """Foreground pixels of the second mask."""
    added: int
    """Pixels that became foreground."""
    removed: int
    """Pixels that became background."""
    iou: float
    """Intersection over union of the two foregrounds, 0 to 1; 1 where both are empty."""
    seconds: float
    """Wall time."""

    @property
    def changed_share(self) -> float:
        """Share of the valid pixels that changed, 0 to 1; 0 where none is valid."""
        return (self.added + self.removed) / max(self.valid_pixels, 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {**plain(self), "changed_share": self.changed_share}


@checked()
@with_directories
def compare(
    before: PathLike,
    after: PathLike,
    output: PathLike | None = None,
    *,
    writing: Writing = Writing(),
    progress: Progress | None = None,
) -> Comparison:
    """Compare two masks on one grid, and write a raster of the changes.

    Foreground is 1, or 255 where only 0 and 255 occur; 255 beside 1 is nodata. 0 is background,
    also where it is tagged as nodata.

    Args:
        before: path or URL of the first mask.
        after: path or URL of the second mask, on the same grid.
        output: the raster of the changes; None = the name of `after` with _changes.tif.
        writing: creation options, overviews and style of the output, and whether it may exist.
        progress: called with (parts done, parts in all).

    Returns:
        The path of the changes and the counts.

    Raises:
        UsageError: the output is an input, or cannot be named after one that is remote.
        InputError: a raster cannot be read or is no mask, or the grids differ.
        OutputError: the output exists, or cannot be written.

    Example:
        >>> compare("old_mask.tif", "new_mask.tif").changed_share  # doctest: +SKIP
        0.0123
    """
    started = time.perf_counter()
    require_only(writing, *WRITE_IN_ONE_GO, why="is for `geothresh refine`")
    sources = find_raster(before), find_raster(after)
    named = sources[1].beside("_changes.tif", "changes") if output is None else output
    target = check_raster(named, sources, overwrite=writing.overwrite)
    with open_labels(sources[0]) as first, open_labels(sources[1]) as second:
        second.box.require_same(first.box)
        tags = {
            "GEOTHRESH_VERSION": __version__,
            "GEOTHRESH_BEFORE": first.name,
            "GEOTHRESH_AFTER": second.name,
        }
        with RasterWriter(
            target, box=second.box, band=CHANGES, tags=tags, writing=writing
        ) as writer:
            counts = _write_changes(first, second, writer, progress)
            writer.finish()
            writer.publish()
        describe({target: CHANGES}, style=writing.style)
        size = second.size
    return Comparison(
        output=target,
        height=size.height,
        width=size.width,
        valid_pixels=counts.total,
        foreground_before=counts.tp + counts.fn,
        foreground_after=counts.tp + counts.fp,
        added=counts.fp,
        removed=counts.fn,
        iou=counts.iou(),
        seconds=time.perf_counter() - started,
    )


def _write_changes(
    first: Mask, second: Mask, writer: RasterWriter, progress: Progress | None
) -> Counts:
    rows, columns = writer.block_shape
    parts = RegularGrid(
        size=second.size,
        part_height=max(rows, BLOCK // rows * rows),
        part_width=max(columns, _PART_WIDTH // columns * columns),
    )
    windows: list[PixelWindow] = list(parts.windows())
    total = Counts()
    for done, window in enumerate(windows, start=1):
        before, valid_before = first.read(window)
        after, valid_after = second.read(window)
        valid = np.asarray(valid_before & valid_after)
        writer.write(window, change_values(before, mask_values(after, valid)))
        total += Counts.of(prediction=after, target=before, valid=valid)
        if progress is not None:
            progress(done, len(windows))
    return total
