"""The options of `calibrate` that are its own."""

from __future__ import annotations

from dataclasses import dataclass

from geothresh.fields import COUNT, File, Number, Options, Text, option
from geothresh.options import PathLike, overwriting


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrating(Options):
    """How candidates are tried, and what is written."""

    folds: int = option(
        5,
        "Parts of the places, each of which is held out once; fewer where there are fewer places.",
        Number(whole=True, least=2),
        metavar="K",
    )
    place_pattern: str | None = option(
        None,
        "Ids with the same first group are one place and are held out together.",
        Text(),
        metavar="REGEX",
    )
    seed: int = option(0, "Of the draw of the folds.", Number(whole=True, least=0))
    patch: int = option(64, "Side of the regions of the bound, in pixels.", COUNT, metavar="P")
    images: PathLike | None = option(
        None,
        "Folder of the images, for what needs them: of these DenseCRF is named in the table, "
        "though it is not to be had.",
        File(),
        metavar="DIR",
    )
    output: PathLike | None = option(
        None,
        "Write the calibration, JSON, for `geothresh refine` --calibration, and beside it a "
        "reliability diagram, PNG.",
        File(),
        flags=("-o", "--output"),
        metavar="FILE",
    )
    overwrite: bool = overwriting()
