"""Options of a training: its data, its network, and what is held out to validate on.

Neither torch nor numpy is imported here: the command line makes its options of these classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any

from geothresh.errors import UsageError
from geothresh.fields import (
    FLAG,
    Choice,
    File,
    Metres,
    Number,
    Options,
    Several,
    Text,
    check,
    given,
    option,
    require_only,
)
from geothresh.nn.config import PATCHES, PRESETS, Head
from geothresh.options import LayoutOption, PathLike, Reading, Size, layout_option, resize_option

BIN = 64
"""Side of a bin in pixels. A scene is counted by bins, and its blocks are made of whole bins."""


def _ground_sample_distance() -> Any:
    return option(
        (),
        "Size of a pixel of DATA on the ground in metres, or the least and the greatest; may be "
        "repeated, one for each DATA. It is stored in the model, and `geothresh refine` compares "
        "it with its scenes.  [default: that of the scenes, or else that of --init]",
        Several(Metres()),
        flags=("--ground-sample-distance", "--gsd"),
        metavar="M|MIN,MAX",
    )


def _as_several(options: Options, name: str) -> None:
    """Make a single path in a field a sequence of one."""
    value = getattr(options, name)
    if isinstance(value, str | os.PathLike):
        object.__setattr__(options, name, (value,))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderData(Options):
    """Confidence maps and masks in folders, paired by id; see `geothresh.raster.pairs`."""

    folders: Sequence[PathLike]
    """Folders with masks."""
    confidence: Sequence[PathLike] = option(
        (),
        "Confidence maps of one base network, <id>.png or .tif; may be repeated. The default is "
        "confidence/ in each DATA.",
        Several(File()),
        metavar="DIR",
    )
    skip_unpaired: bool = option(False, "Leave out maps and masks without a partner.", FLAG)
    layout: LayoutOption = layout_option()
    resize: int | None = resize_option()
    ground_sample_distance: Sequence[Size] = _ground_sample_distance()

    def __post_init__(self) -> None:
        _as_several(self, "folders")
        check(self)


SCENE_READING = ("bidx", "scale", "nodata")
"""The fields of `Reading` that are for training."""
SCENE_LABELS = ("labels", "layer", "buffer", "width_field", "aoi")
"""The fields of `SceneData` about labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneData(Options):
    """Confidence rasters, and vectors or masks with the ground truth."""

    scenes: Sequence[PathLike]
    """Confidence rasters, as `geothresh.refine` takes them."""
    labels: Sequence[PathLike] = option(
        MISSING,
        "Labels of the scenes in DATA: vectors (GeoPackage, shapefile, GeoJSON, FlatGeobuf) or a "
        "mask on the same grid. One for all, or repeated, one for each in the same order.",
        Several(File()),
        metavar="FILE",
    )
    """Vectors in another CRS are reprojected; masks are 1 foreground, 0 background, 255 no data."""
    layer: str | None = option(
        None, "Layer of the vectors, if there are several.", Text(), metavar="NAME"
    )
    buffer: float | None = option(
        None,
        "Half of the full width of lines and points, in metres.",
        Number(least=0, above=True),
        metavar="M",
    )
    width_field: str | None = option(
        None,
        "Attribute with the full width of lines and points in metres; --buffer is used where it "
        "is missing or not above 0.",
        Text(),
        metavar="NAME",
    )
    aoi: PathLike | None = option(
        None,
        "Polygons in which the labels are complete; everything outside is ignored.",
        File(),
        metavar="FILE",
    )
    """Chips are cut inside them."""
    reading: Reading = field(default_factory=Reading)
    """Band, scaling and nodata of the scenes."""
    ground_sample_distance: Sequence[Size] = _ground_sample_distance()
    """Needed only if the georeference of the scenes does not tell it."""

    def __post_init__(self) -> None:
        _as_several(self, "scenes")
        check(self)
        require_only(self.reading, *SCENE_READING, why="is not for training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting(Options):
    """The places that are held out for validation, drawn at random or named."""

    split: PathLike | None = option(
        None, "Follow this manifest, MODEL.split.json of another run.", File(), metavar="FILE"
    )
    """With a manifest nothing is drawn at random."""
    folds: int | None = option(
        None,
        "For few maps: hold every place out once, in K trainings, then train the model on all of "
        "them. The gain on held-out places is printed.",
        Number(whole=True, least=2),
        metavar="K",
    )
    fold_models: bool = option(
        False,
        "With --folds, keep the model of each fold too, which has not seen the places of that "
        "fold: MODEL.fold1.safetensors and so on.",
        FLAG,
    )
    validation_fraction: float = option(
        0.15, "Share of places to validate on.", Number(least=0, most=1, below=True)
    )
    hold_out: Sequence[str] = option(
        (),
        "Validate on the ids that match, such as 'testing_*'; may be repeated. A folder with a "
        "match is split by the pattern alone.",
        Several(Text()),
        metavar="GLOB",
    )
    place_pattern: str | None = option(
        None,
        "Pattern whose first group names the place of an id; a place stays on one side of the "
        "split.",
        Text(),
        metavar="REGEX",
    )
    validation_aoi: PathLike | None = option(
        None,
        "Polygons to validate on, in place of blocks drawn at random.",
        File(),
        metavar="FILE",
    )
    block_size: int | None = option(
        None,
        "Side in pixels of the blocks, some of which are held out. The default is 2048, or less so "
        "that there are about twelve.",
        Number(whole=True, least=BIN),
        metavar="N",
    )

    def __post_init__(self) -> None:
        check(self)
        once = [name for name in given(self) if name in _ONCE]
        if self.folds is not None and once:
            raise UsageError(
                f"`folds` holds every place out in turn, and `{once[0]}` says what to validate on; "
                "give one or the other"
            )
        if self.fold_models and self.folds is None:
            raise UsageError("`fold_models` keeps the models of `folds`; give both, or neither")
        if self.split is not None and self.given:
            raise UsageError(
                f"`split` says what to validate on, and so does `{self.given[0]}`; give one or the "
                "other"
            )
        if self.validation_aoi is not None and self.given[0] in _DRAWN:
            raise UsageError(
                f"`validation_aoi` says what to validate on, and so does `{self.given[0]}`; give "
                "one or the other"
            )

    @property
    def given(self) -> list[str]:
        """Names of the given options that `split` cannot be combined with."""
        return [name for name in given(self) if name in (*_DRAWN, *FOR_FOLDERS, *FOR_SCENES)]


_DRAWN = ("validation_fraction",)
"""The field of `Splitting` for a random draw, for folders and scenes."""
_ONCE = ("split", "validation_fraction", "hold_out", "validation_aoi")
"""The fields of `Splitting` that `folds` cannot be combined with."""
FOR_FOLDERS = ("hold_out", "place_pattern")
"""The fields of `Splitting` for folders only."""
FOR_SCENES = ("validation_aoi", "block_size")
"""The fields of `Splitting` for scenes only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChoice(Options):
    """Size and initial model of the ThreshNet to train; defaults are those of the initial model."""

    preset: str | None = option(
        None,
        "Size of the network; full is the paper's, meant for a GPU.  [default: that of --init, or "
        "small]",
        Choice(tuple(PRESETS)),
    )
    patch: int | None = option(
        None,
        "Side of a patch that has its own threshold, in pixels.  [default: that of --init, or 64]",
        Choice(PATCHES),
    )
    head: Head | None = None
    """Head of the network, see `Recipe`; None = that of the initial model, or of the recipe."""
    init: PathLike | None = option(
        None,
        "Start from this model: a packaged one (see `geothresh model list`) or a .safetensors "
        "file. It is scored first, and is written as the model if no epoch is better.",
        Text(or_path=True),
        metavar="NAME|FILE",
    )
    resolution: float | None = option(
        None,
        "Train on pixels of this size in metres: all DATA is resampled to it from its ground "
        "sample distance.  [default: DATA as it is]",
        Number(least=0, above=True),
        metavar="M",
    )
