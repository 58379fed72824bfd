"""Describe a confidence raster, and tell whether its pixel size fits a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.geobox import PixelSize
from geothresh.nn.modelfile import naming, read_card
from geothresh.nn.packaged import find_model
from geothresh.nn.scope import MAX_RESAMPLING, ModelScope
from geothresh.raster.pixelsize import pixel_size
from geothresh.raster.scene import Scene
from geothresh.run.resolution import sampled_share, sampled_width


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneInfo:
    """Metadata of a scene, as `refine` uses it."""

    path: str
    """The path as it was given."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    bands: int
    """Number of bands of the file."""
    bidx: int
    """The band that is read, counted from 1."""
    dtype: str
    """Type of its stored values."""
    scaling: str
    """How stored values become confidences, in words."""
    nodata: float | None
    """The stored value that marks missing data; NaN and infinities always do."""
    data_share: float
    """Share of pixels with data, from 0 to 1, in up to 16 windows of 512 x 512 over the scene."""
    mask: str
    """What marks missing data besides nodata: ``none``, ``mask band`` or ``alpha band``."""
    crs: str | None
    """The CRS as a code such as ``EPSG:32633``, or as WKT without one; None if there is no CRS."""
    transform: tuple[float, ...]
    """a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f."""
    georeference: str
    """``transform``, ``control points``, ``RPCs`` or ``none``."""
    pixel_size: tuple[float, float] | None
    """Metres on the ground along a row and down a column, at the centre of the scene; None =
    unknown."""
    block_height: int
    """Rows of a block on the disk."""
    block_width: int
    """Columns of a block on the disk."""
    compression: str
    """GDAL's name of the compression."""
    model: str
    """Name of the model that the scene is compared with."""
    fits: bool | None
    """Whether the scene's pixels have the size of the model's, or are resampled to it; None if one
    of the sizes is unknown."""
    fit: str
    """Explanation of `fits` in words."""

    def as_dict(self) -> dict[str, Any]:
        """Give the metadata as JSON types."""
        facts = asdict(self)
        if self.nodata is not None and not math.isfinite(self.nodata):
            facts["nodata"] = str(self.nodata)  # JSON has no such numbers
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """The model that scenes are compared with."""

    name: str
    """Name of the model."""
    scope: ModelScope
    """What it was trained on."""

    @classmethod
    def of(cls, model: str | Path) -> ComparedModel:
        """Read the card of a packaged model, by name, or of a model file.

        Raises:
            ModelError: the model is missing or damaged.
        """
        file = find_model(model)
        card = read_card(file)
        with naming(file):
            return cls(name=file.stem, scope=ModelScope.of_card(card.training))


def describe(opened: Scene, model: ComparedModel) -> SceneInfo:
    """Describe an open scene; some windows of it are read.

    Raises:
        InputError: a block cannot be decoded, or a value contradicts the scaling.
    """
    spec, box = opened.spec, opened.box
    if box.has_transform:
        georeference = "transform"
    elif box.gcps:
        georeference = "control points"
    else:
        georeference = "none" if box.rpcs is None else "RPCs"
    pixel = pixel_size(box)
    fits, fit = _fit(model.scope, pixel, partial(sampled_width, opened))
    return SceneInfo(
        path=spec.source.name,
        height=box.size.height,
        width=box.size.width,
        bands=opened.band_count,
        bidx=spec.bidx,
        dtype=str(opened.dtype),
        scaling=spec.scaling.text,
        nodata=spec.nodata,
        data_share=sampled_share(opened),
        mask="alpha band" if spec.mask_band else "mask band" if spec.has_mask else "none",
        crs=box.crs_name,
        transform=box.transform,
        georeference=georeference,
        pixel_size=None if pixel is None else (pixel.x, pixel.y),
        block_height=opened.layout.part_height,
        block_width=opened.layout.part_width,
        compression=opened.compression,
        model=model.name,
        fits=fits,
        fit=fit,
    )


def _fit(
    scope: ModelScope, pixel: PixelSize | None, measured: Callable[[], float | None]
) -> tuple[bool | None, str]:
    """(whether pixels fit a model, explanation); `measured` measures the foreground's width."""
    if pixel is None:
        if scope.widths is None:
            return None, "the size of the pixels on the ground is not known"
        width = measured()
        seen = f"of {scope.widths.least:.2g} to {scope.widths.greatest:.2g} pixels"
        if width is None:
            return None, f"no foreground to hold against the model's, {seen} wide"
        ratio = scope.raster_ratio("auto", metres=None, width=width)
        wide = f"foreground {width:.2g} pixels wide, the model's {seen}: "
        return ratio == 1, wide + ("read as it is" if ratio == 1 else f"resampled by {ratio:.2g}")
    if scope.pixels is None:
        return None, "the model tells no pixel sizes; scenes are read as they are"
    ratio = scope.raster_ratio("auto", metres=pixel.mean)
    known = f"the model's, {scope.pixels.text}"
    if ratio == 1:
        return True, f"pixels of {pixel.text} are within {known}: read as they are"
    larger = "larger" if ratio > 1 else "smaller"
    if scope.pixels.differs(pixel.mean / ratio):
        times = max(scope.pixels.ratio(pixel.mean), 1 / scope.pixels.ratio(pixel.mean))
        return False, (
            f"pixels of {pixel.text} do not fit: {times:.3g} times {larger} than {known}, and at "
            f"most {MAX_RESAMPLING} times are bridged; use a model trained nearer to this size"
        )
    return True, (
        f"pixels of {pixel.text} are {larger} than {known}: resampled, and read at "
        f"{pixel.mean / ratio:.3g} m"
    )
