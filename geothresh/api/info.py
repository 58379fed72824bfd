"""Metadata of a confidence raster, and how `refine` would read it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from geothresh.api.resolution import pixel_size
from geothresh.options import PathLike, Reading
from geothresh.raster.scene import open_scene


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneInfo:
    """Metadata of a scene, as `refine` goes by it."""

    path: str
    """As it was given."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    bands: int
    """All bands of the file."""
    bidx: int
    """The band that is read, counted from 1."""
    dtype: str
    """Type of its stored values."""
    scaling: str
    """How they become confidences, in words."""
    nodata: float | None
    """The stored value that marks missing data; NaN and infinities always do."""
    mask: str
    """``none``, ``mask band`` or ``alpha band``: what else marks missing data."""
    crs: str | None
    """Such as ``EPSG:32633``, or WKT where there is no such code; None if the file names none."""
    transform: tuple[float, ...]
    """a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f."""
    georeference: str
    """``transform``, ``control points``, ``RPCs`` or ``none``."""
    pixel_size: tuple[float, float] | None
    """Metres on the ground along a row and down a column, at the centre of the scene; None where it
    does not say."""
    block_height: int
    """Rows of a block on the disk."""
    block_width: int
    """Columns of a block on the disk."""
    compression: str
    """GDAL's name of it."""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        facts = asdict(self)
        if self.nodata is not None and not math.isfinite(self.nodata):
            facts["nodata"] = str(self.nodata)  # JSON has no such numbers
        return facts


def info(scene: PathLike | Any, reading: Reading = Reading()) -> SceneInfo:
    """Look at a scene as `refine` would, and tell what was found.

    Args:
        scene: path, URL or open rasterio dataset.
        reading: as for `refine`; the area is not looked at.

    Raises:
        InputError, UsageError: as `refine` would.
    """
    with open_scene(scene, reading) as opened:
        spec, box = opened.spec, opened.box
        if box.has_transform:
            georeference = "transform"
        elif box.gcps:
            georeference = "control points"
        else:
            georeference = "none" if box.rpcs is None else "RPCs"
        pixel = pixel_size(box)
        return SceneInfo(
            path=spec.source.name,
            height=box.size.height,
            width=box.size.width,
            bands=opened.band_count,
            bidx=spec.bidx,
            dtype=str(opened.dtype),
            scaling=spec.scaling.text,
            nodata=spec.nodata,
            mask="alpha band" if spec.mask_band else "mask band" if spec.has_mask else "none",
            crs=box.crs_name,
            transform=box.transform,
            georeference=georeference,
            pixel_size=None if pixel is None else (pixel.x, pixel.y),
            block_height=opened.layout.part_height,
            block_width=opened.layout.part_width,
            compression=opened.compression,
        )
