"""The options of `evaluate`: which maps of folders are taken, and how they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from geothresh.errors import UsageError
from geothresh.fields import COUNT, FLAG, Choice, File, Metres, Options, Several, option
from geothresh.options import (
    LayoutOption,
    Metric,
    PathLike,
    Side,
    Size,
    layout_option,
    overwrite_option,
    resize_option,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps(Options):
    """Which maps of folders are evaluated or calibrated on."""

    confidence: Sequence[PathLike] = option(
        (),
        "Folder of confidence maps, one per base network; may be repeated.  "
        "[default: DATA/confidence]",
        Several(File()),
        metavar="DIR",
    )
    ids: PathLike | None = option(
        None,
        "File of the ids to use: one a line, or the split manifest that `geothresh train` wrote.",
        File(),
        metavar="FILE",
    )
    split: Side | None = option(
        None,
        "Side of the split manifest given with --ids.  [default: validation]",
        Choice(get_args(Side)),
    )
    skip_unpaired: bool = option(False, "Leave out maps and masks that have no partner.", FLAG)
    layout: LayoutOption = layout_option()
    resize: int | None = resize_option()
    ground_sample_distance: Sequence[Size] = option(
        (),
        "Size of a pixel of DATA on the ground in metres, or the least and the greatest, of which "
        "the middle counts; may be repeated, one for each DATA. A raster tells its own. If it is "
        "unknown for a folder, the width of the foreground decides on the resolution.",
        Several(Metres()),
        flags=("--ground-sample-distance", "--gsd"),
        metavar="M|MIN,MAX",
    )

    def require_manifest(self) -> None:
        """Raise UsageError if there is a side, but no manifest that it is a side of."""
        if self.split is not None and self.ids is None:
            raise UsageError(
                f"`split` {self.split} is a side of a split manifest; name that with `ids`"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring(Options):
    """How maps are scored, and which outputs are written."""

    patch: int | None = option(
        None,
        "Side of the regions of the bound, in pixels.  [default: the model's, else 64]",
        COUNT,
        metavar="P",
    )
    boundary_metric: Metric = option(
        "chessboard",
        "Distance of Boundary IoU: erosion by squares, as its authors do, or by crosses.",
        Choice(get_args(Metric)),
    )
    figures: PathLike | None = option(
        None,
        "Draw each map into DIR/NETWORK/ID.png: confidence, masks, and errors (missed blue, "
        "falsely found red).",
        File(),
        metavar="DIR",
    )
    output: PathLike | None = option(
        None, "Write the report as JSON.", File(), flags=("-o", "--output"), metavar="FILE"
    )
    report: PathLike | None = option(
        None,
        "Write a report page, .html: the table, what each map gains, the best and worst maps, "
        "reliability. It is one file, which loads nothing.",
        File(),
        metavar="FILE",
    )
    overwrite: bool = overwrite_option()
