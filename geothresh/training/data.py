"""Data of a training: what may be given, and both sides of it when it is checked and split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geothresh.errors import UsageError
from geothresh.fields import require_only
from geothresh.nn.scope import GroundSampleDistance
from geothresh.options import Reading
from geothresh.training.blocks import CELL
from geothresh.training.sources import ChipSource, ValidationMap

OnCheck = Callable[[int, int], None]
"""Called with the parts of the data that are checked, and all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderData:
    """Confidence maps and masks in folders, paired by id; see `geothresh.raster.pairs`."""

    folders: Sequence[str | Path]
    """Folders with masks."""
    confidence: Sequence[str | Path] = ()
    """Folders of maps, one for each base network; default is ``confidence/`` in each folder."""
    skip_unpaired: bool = False
    """Leave out maps and masks without a partner."""
    ground_sample_distance: Sequence[tuple[float, float]] = ()
    """Least and greatest size of a pixel on the ground in metres, of all folders or of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneData:
    """Confidence rasters, and vectors or masks that say what is on the ground."""

    scenes: Sequence[str | Path]
    """Confidence rasters, as `geothresh.refine` takes them."""
    labels: Sequence[str | Path]
    """One for all scenes or one for each: vectors (GeoPackage, shapefile, GeoJSON, FlatGeobuf; in
    another CRS they are reprojected), or a mask on the same grid (1 foreground, 0 background, 255
    no data)."""
    layer: str | None = None
    """Of the vectors, where there are several."""
    buffer: float | None = None
    """Metres on the ground to each side of lines and points."""
    width_field: str | None = None
    """Attribute with the full width of lines and points in metres; `buffer` stands in where it
    holds no number above 0."""
    aoi: str | Path | None = None
    """Vector file with the polygons in which the labels are complete; what lies outside of them is
    ignored, and chips are cut where they are."""
    reading: Reading = field(default_factory=Reading)
    """Band, scaling and nodata of the scenes; its area is not that of the labels."""
    ground_sample_distance: Sequence[tuple[float, float]] = ()
    """Least and greatest size of a pixel on the ground in metres, of all scenes or of each, where
    they do not tell it."""

    def __post_init__(self) -> None:
        require_only(self.reading, "bidx", "scale", "nodata", why="is not for training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """What is kept back to validate on: places drawn at random, or by name."""

    fraction: float = 0.15
    """Share of places."""
    manifest: str | Path | None = None
    """Follow this one, ``.split.json`` of another run; nothing is drawn."""
    hold_out: Sequence[str] = ()
    """Patterns of ids (folders)."""
    place_pattern: str | None = None
    """Regular expression; ids with the same first group are one place (folders)."""
    aoi: str | Path | None = None
    """Vector file with polygons, which are not trained on (scenes)."""
    block_size: int | None = None
    """Side of the blocks in pixels that are drawn; None = 2048, or less so that there are about
    twelve (scenes)."""

    def __post_init__(self) -> None:
        if self.block_size is not None and self.block_size < CELL:
            raise UsageError(f"block size {self.block_size}: give at least {CELL} pixels")
        if self.manifest is not None and self.given:
            raise UsageError(
                f"`split` says what to validate on, and so does {self.given[0]}; give one or the "
                "other"
            )

    @property
    def given(self) -> list[str]:
        """The options that say what to validate on, beside a manifest."""
        return [*self.of_folders, *self.of_scenes]

    @property
    def of_folders(self) -> list[str]:
        """The options that are for folders alone and were given."""
        used = {"`hold_out`": self.hold_out, "`place_pattern`": self.place_pattern}
        return [name for name, value in used.items() if value]

    @property
    def of_scenes(self) -> list[str]:
        """The options that are for scenes alone and were given."""
        used = {"`validation_aoi`": self.aoi, "`block_size`": self.block_size}
        return [name for name, value in used.items() if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Both sides of the data, checked and split."""

    train: Sequence[ChipSource]
    validation: Sequence[ValidationMap]
    described: Mapping[str, Any]
    """What the model file says of it; a resumed run must agree."""
    manifest: str
    """Text of the file that says which places are on which side."""
    n_train: int
    """Maps, or blocks of scenes."""
    n_validation: int
    """Maps, or tiles of scenes."""
    resolution: GroundSampleDistance | None = None
    """Sizes on the ground of the pixels that the network sees, where they are known."""
