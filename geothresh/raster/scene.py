"""A confidence raster that is open: windows of confidences, from any thread, in any process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from geothresh.errors import InputError
from geothresh.raster.gdal import gdal_environment
from geothresh.raster.nodata import stands_for_nodata
from geothresh.raster.opened import OpenRaster, open_dataset, require_unchanged
from geothresh.raster.paths import RasterSource
from geothresh.raster.scaling import Contradiction, Scaling, contradiction_hint
from geothresh.raster.wording import in_own_words
from geothresh.windows import PixelWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# Said when the sample shows it, or else when the reading has.
INFINITIES = "holds infinite values, which are taken as missing data"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """What is known and decided about a confidence raster; opens it again in any process."""

    source: RasterSource
    """The file."""
    bidx: int
    """The band with the confidence, counted from 1."""
    mask_band: int | None
    """The band whose zeros mark missing data (alpha), counted from 1."""
    has_mask: bool
    """Whether the band has a mask of its own, inside the file or in NAME.msk."""
    nodata: float | None
    """The stored value that marks missing data; NaN and infinities always do."""
    scaling: Scaling
    """How stored values become confidences."""

    def open(self) -> Scene:
        """Open the raster without deciding anything again.

        Raises:
            InputError: the file is gone, or has changed since it was first opened.
        """
        require_unchanged(self.source)
        dataset = open_dataset(self.source)
        with gdal_environment(**self.source.access), in_own_words():
            return Scene(self, dataset)


class Scene(OpenRaster):
    """An open confidence raster; several threads may read it."""

    def __init__(self, spec: SceneSpec, dataset: DatasetReader) -> None:
        super().__init__(spec.source, dataset, spec.bidx)
        self.spec = spec
        self.infinities_seen = False

    def read(self, window: PixelWindow) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window that lies inside the raster.

        Returns:
            confidence: (height, width) float32 in [0, 1], 0 where there is no data.
            valid: (height, width) bool, True where there is data.

        Raises:
            InputError: a block cannot be decoded, or a value contradicts the scaling.
        """
        values, valid = self.stored(window)
        try:
            return self.spec.scaling.apply(values, valid), valid
        except Contradiction as found:
            row, column = window.row + found.row, window.col + found.column
            hint = contradiction_hint(found.value, self.dtype, self.spec.scaling)
            raise InputError(
                f"{self.name}: the value {found.value:.6g} at row {row}, column {column} (in "
                f"{window.text}) contradicts the scaling decided from a sample, "
                f"{self.spec.scaling.text}; {hint}"
            ) from None

    def stored(self, window: PixelWindow) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The values of a window as they stand in the file, and which of them are data.

        Raises:
            InputError: a block cannot be decoded.
        """
        spec = self.spec
        values, mask = self._decoded(window, partial(_read_band, spec=spec))
        valid = np.ones(values.shape, np.bool_) if mask is None else mask != 0
        if spec.nodata is not None:
            valid &= ~stands_for_nodata(values, spec.nodata)
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values)
            if not self.infinities_seen and np.isinf(values).any():
                self.infinities_seen = True
        return values, valid


def _read_band(
    dataset: DatasetReader, window: PixelWindow, *, spec: SceneSpec
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The stored values of a window, and the mask or alpha band there if the raster has one."""
    values = dataset.read(spec.bidx, window=window.ranges)
    if spec.mask_band is not None:
        return values, dataset.read(spec.mask_band, window=window.ranges)
    if spec.has_mask:
        return values, dataset.read_masks(spec.bidx, window=window.ranges)
    return values, None
