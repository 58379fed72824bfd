"""Options of `calibrate`."""

from __future__ import annotations

from dataclasses import dataclass

from geothresh.errors import UsageError
from geothresh.fields import COUNT, FLAG, SEED, File, Number, Options, Text, check, option
from geothresh.options import PathLike, overwrite_option


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrating(Options):
    """How candidates are compared, and what is written."""

    folds: int = option(
        5,
        "Number of folds of the places; fewer if there are fewer places.",
        Number(whole=True, least=2),
        metavar="K",
    )
    place_pattern: str | None = option(
        None,
        "Pattern whose first group names the place of an id; a place is held out as a whole.",
        Text(),
        metavar="REGEX",
    )
    seed: int = option(0, "Seed of the folds.", SEED)
    patch: int = option(
        64,
        "Side of the regions of the bound (best threshold of each region), in pixels.",
        COUNT,
        metavar="P",
    )
    images: PathLike | None = option(
        None,
        "Folder of the images. DenseCRF, which reads them, is then compared too, with settings "
        "searched on the other folds. It is never advised, as refine reads no image. Not for a "
        "scene.",
        File(),
        metavar="DIR",
    )
    fine_tune: bool = option(
        False,
        "Also try the best of the models trained further on the other folds, as `geothresh train` "
        "--init does: K + 1 trainings, of minutes on a GPU. The model is written beside the "
        "output.",
        FLAG,
    )
    output: PathLike | None = option(
        None,
        "Write the calibration (JSON) for `geothresh refine` --calibration, and beside it a "
        "reliability diagram (PNG).",
        File(),
        flags=("-o", "--output"),
        metavar="FILE",
    )
    overwrite: bool = overwrite_option()

    def __post_init__(self) -> None:
        check(self)
        if self.fine_tune and self.output is None:
            raise UsageError("`fine_tune` makes a model beside the calibration; give `output` too")
