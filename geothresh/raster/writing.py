"""Write a raster that either exists complete and verified, or not at all.

GDAL reports neither a full disk at close nor blocks that a killed process never wrote: such a file
opens and reads as zeros. So an output is written under a temporary name, closed, read back,
compared with checksums taken while writing, and only then renamed.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import Resampling

from geothresh.errors import OutputError, warn
from geothresh.files import create_beside, discard, free_bytes, publish
from geothresh.options import Dtype, Writing
from geothresh.raster.creation import (
    BLOCK,
    CONFIDENCE_STEPS,
    NODATA,
    BandFormat,
    cog_options,
    gtiff_options,
)
from geothresh.raster.dataset import BlockInventory, BlockLayout
from geothresh.raster.gdal import RASTER_ERRORS, filtered_warnings, gdal_environment, reason
from geothresh.raster.georeference import Georeference
from geothresh.sidecars import manifests_of, sidecars_of
from geothresh.types import Float32Array, LayerArray
from geothresh.windows import PixelWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader, DatasetWriter

_LOGGER = logging.getLogger(__name__)
# Confidences are summed as multiples of 1 / _PARTS, so that sums do not depend on their order.
_PARTS = 2**16
# Sums of this many values, and of their squares, are exact in float64.
_AT_ONCE = 2**20
_LEVELS = np.arange(256)


def mask_values(foreground: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Mask values: 1 for foreground, 0 for background, 255 where `valid` is False."""
    values = foreground.astype(np.uint8)
    if not valid.all():
        values[~valid] = NODATA
    return values


def confidence_values(
    confidence: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Confidence 0 to 1 as uint8 0 to 254, rounded; 255 where `valid` is False."""
    scaled = confidence * np.float32(CONFIDENCE_STEPS)
    scaled += np.float32(0.5)
    values = scaled.astype(np.uint8)
    if not valid.all():
        values[~valid] = NODATA
    return values


def stored_confidence(
    confidence: Float32Array, valid: NDArray[np.bool_], dtype: Dtype
) -> LayerArray:
    """Confidence as it is stored: uint8 of `confidence_values`, or float32 with NaN for no data."""
    if dtype == "uint8":
        return confidence_values(confidence, valid)
    return np.where(valid, confidence, np.float32(np.nan))


class RasterWriter:
    """Writes a one-band GeoTIFF window by window; one thread at a time may use it.

    ``finish`` verifies the file and ``publish`` renames it to its final name. Leaving the ``with``
    block before that, by any exception, removes the file.
    """

    def __init__(
        self,
        target: Path,
        *,
        box: Georeference,
        band: BandFormat,
        tags: Mapping[str, str],
        writing: Writing = Writing(),
    ) -> None:
        """Create the temporary file.

        Args:
            target: final path, as ``check_output`` returned it.
            box: size and georeference.
            band: type and meaning of the values.
            tags: metadata of the file.
            writing: creation options, and whether the file is a COG or has overviews.

        Raises:
            UsageError: a creation option is unknown, would lose data, or is not possible in a COG.
            OutputError: the file cannot be created.
        """
        options = gtiff_options(writing.creation_options, band.dtype)
        self._cog_options = cog_options(options) if writing.cog else None
        self._overviews = writing.overviews and not writing.cog
        # Nearest for classes: the most frequent value would erase thin classes such as roads.
        self._resampling = Resampling.nearest if band.classes else Resampling.average
        self._statistics = BandStatistics()
        self.target = target
        self._box = box
        self._sparse = options.get("SPARSE_OK", "NO") in ("YES", "TRUE")
        self._threads = options["NUM_THREADS"]
        self._checksums: dict[PixelWindow, int] = {}
        self._temporary = create_beside(target)
        self._dataset: DatasetWriter | None = None
        try:
            self._dataset = self._create(band, tags, options)
        except RASTER_ERRORS as error:
            self.discard()
            raise OutputError(f"{target}: cannot be created ({reason(error)})") from error
        except BaseException:
            self.discard()
            raise

    def _create(
        self, band: BandFormat, tags: Mapping[str, str], options: Mapping[str, str]
    ) -> DatasetWriter:
        with gdal_environment(writing=True), filtered_warnings():
            dataset = rasterio.open(
                self._temporary,
                "w",
                driver="GTiff",
                count=1,
                dtype=band.dtype,
                nodata=band.nodata,
                **self._box.creation(),
                **{name.lower(): value for name, value in options.items()},
            )
            dataset.update_tags(**tags)
            dataset.set_band_description(1, band.description)
            if band.scale != 1.0:
                dataset.scales = (band.scale,)
            if band.colours:
                dataset.write_colormap(1, band.colours)
            self._box.write_to(dataset)
        return dataset

    @property
    def finished_file(self) -> Path:
        """The file that `finish` has verified and `publish` will rename."""
        if self._dataset is not None:
            raise ValueError(f"{self.target}: asked for before it was finished")
        return self._temporary

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of a block on the disk."""
        rows, columns = self._open().block_shapes[0]
        return int(rows), int(columns)

    def _open(self) -> DatasetWriter:
        if self._dataset is None:
            raise ValueError(f"{self.target}: written after it was finished or discarded")
        return self._dataset

    def write(self, window: PixelWindow, values: LayerArray) -> None:
        """Write a window that was not written before, in the type of the band.

        Windows should cover whole blocks: others cost time and file size.

        Raises:
            OutputError: the disk is full or fails, and GDAL notices it now.
        """
        dataset = self._open()
        self._checksums[window] = _checksum(values)
        self._statistics.add(values)
        try:
            with gdal_environment(writing=True):
                dataset.write(values, 1, window=window.ranges)
        except RASTER_ERRORS as error:
            raise OutputError(f"{self._failure(window.text)} ({reason(error)})") from error

    def finish(self) -> None:
        """Close the file, and verify that every block exists and decodes to what was written.

        Then make the COG or the overviews, and verify them too.

        Raises:
            OutputError: the file does not hold what was written, usually because the disk is full.
        """
        dataset = self._open()
        self._dataset = None
        try:
            with gdal_environment(writing=True), filtered_warnings():
                dataset.update_tags(1, **self._statistics.tags())
                dataset.close()
                self._verify()
                if self._overviews:
                    self._add_overviews()
                    self._verify()
                if self._cog_options is not None:
                    self._make_cog(self._cog_options)
                    self._verify()
        except RASTER_ERRORS as error:
            raise OutputError(f"{self._failure('the file')} ({reason(error)})") from error

    def _make_cog(self, options: Mapping[str, str]) -> None:
        plain, self._temporary = self._temporary, create_beside(self.target)
        try:
            # The COG driver (https://gdal.org/drivers/raster/cog.html) copies a finished file,
            # because overviews precede the pixels in a COG.
            rasterio.shutil.copy(
                plain, self._temporary, driver="COG",
                OVERVIEW_RESAMPLING=self._resampling.name.upper(), **options,
            )  # fmt: skip
        finally:
            discard(plain)

    def _add_overviews(self) -> None:
        """Add overviews down to the size of a block."""
        with rasterio.open(
            self._temporary, "r+", driver="GTiff", sharing=False, num_threads=self._threads
        ) as written:
            longest = max(written.shape)
            levels = [2**k for k in range(1, 32) if longest > BLOCK * 2 ** (k - 1)]
            if levels:
                written.build_overviews(levels, self._resampling)

    def _verify(self) -> None:
        size = self._temporary.stat().st_size
        with self._reopened() as written:
            self._require_blocks(written, BlockLayout.of(written, 1), size)
            for level in range(len(written.overviews(1))):
                with self._reopened(overview_level=level) as smaller:
                    layout = BlockLayout.of(smaller, 1)
                    self._require_blocks(written, layout, size, overview=level)
                    for window in layout.windows():  # raises if one cannot be decoded
                        smaller.read(1, window=window.ranges)
            if not self._statistics.tags().items() <= written.tags(1).items():
                raise OutputError(self._failure("the statistics"))
            for window, checksum in self._checksums.items():
                if _checksum(written.read(1, window=window.ranges)) != checksum:
                    raise OutputError(self._failure(window.text))
            self._warn_of_crs(Georeference.of(written))

    def _reopened(self, **options: int) -> DatasetReader:
        """Open the file anew, so that nothing is read from the cache of the writer."""
        return rasterio.open(
            self._temporary, driver="GTiff", sharing=False, num_threads=self._threads, **options
        )

    def _require_blocks(
        self, written: DatasetReader, layout: BlockLayout, size: int, overview: int | None = None
    ) -> None:
        inventory = BlockInventory.of(written, 1, layout, overview=overview)
        beyond = inventory.first_beyond(size)
        if beyond is not None:
            raise OutputError(self._failure(layout.describe(beyond)))
        if inventory.absent_count and not self._sparse:
            raise OutputError(self._failure(f"{inventory.absent_count} blocks"))

    def _warn_of_crs(self, written: Georeference) -> None:
        if written.parsed_crs != self._box.parsed_crs and not self._box.gcps:
            warn(
                f"{self.target}: a GeoTIFF cannot hold the input's coordinate reference system "
                "exactly; compare the two before measuring"
            )

    def _failure(self, what: str) -> str:
        free = free_bytes(self.target)
        return (
            f"{self.target}: {what} could not be written, {free / 2**20:.0f} MiB are free in "
            f"{self.target.parent}; make room and run again"
        )

    def publish(self) -> None:
        """Rename the finished file to its final name, and remove the sidecar files of an old one.

        A manifest with the digest of the old one is removed too.

        Raises:
            OutputError: it cannot be flushed to the disk or renamed.
        """
        old = [*sidecars_of(self.target), *manifests_of(self.target)]
        publish(self.finished_file, self.target, replaced=old)

    def discard(self) -> None:
        """Remove the temporary file, unless it was published."""
        try:
            if self._dataset is not None:
                dataset, self._dataset = self._dataset, None
                with gdal_environment(writing=True), filtered_warnings():
                    dataset.close()
        except RASTER_ERRORS as error:
            # The disk may still be full; the file is removed in any case.
            _LOGGER.debug("%s: closed with %s", self.target, reason(error))
        finally:
            discard(self._temporary)

    def __enter__(self) -> RasterWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()


def _checksum(values: LayerArray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)


class BandStatistics:
    """Minimum, maximum, mean and standard deviation of a band, as GDAL's metadata items.

    They do not depend on the windows that are added, nor on their order.

    Example:
        >>> seen = BandStatistics()
        >>> seen.add(np.array([[0, 1], [1, 255]], np.uint8))
        >>> seen.tags()["STATISTICS_MEAN"]
        '0.6666666666666666'
    """

    def __init__(self) -> None:
        self._all = self._valid = 0
        self._sum = self._squares = 0
        self._parts = 1
        self._least, self._greatest = math.inf, -math.inf

    def add(self, values: LayerArray) -> None:
        """Add the values of a window: uint8 with 255 for no data, or float32 in [0, 1] or NaN."""
        self._all += values.size
        if values.dtype == np.uint8:
            self._add_levels(_histogram(values))
            return
        self._parts = _PARTS
        flat = values.astype(np.float32, copy=False).reshape(-1)
        for start in range(0, flat.size, _AT_ONCE):
            self._add_floats(flat[start : start + _AT_ONCE])

    def _add_levels(self, counts: NDArray[np.int64]) -> None:
        counts[NODATA] = 0
        levels = np.flatnonzero(counts)
        if levels.size:
            self._valid += int(counts.sum())
            self._sum += int(counts @ _LEVELS)
            self._squares += int(counts @ _LEVELS**2)
            self._least = min(self._least, float(levels[0]))
            self._greatest = max(self._greatest, float(levels[-1]))

    def _add_floats(self, values: Float32Array) -> None:
        missing = np.isnan(values)
        valid = values.size - int(np.count_nonzero(missing))
        if valid:
            parts = np.where(missing, 0, np.rint(values * np.float32(_PARTS))).astype(np.float64)
            self._valid += valid
            self._sum += int(parts.sum())
            self._squares += int(parts @ parts)
            self._least = min(self._least, float(np.fmin.reduce(values)))
            self._greatest = max(self._greatest, float(np.fmax.reduce(values)))

    def tags(self) -> Mapping[str, str]:
        """The metadata items of the band; empty if no pixel is valid."""
        if not self._valid:
            return {}
        variance = self._squares * self._valid - self._sum**2
        items = {
            "MINIMUM": self._least,
            "MAXIMUM": self._greatest,
            "MEAN": self._sum / self._valid / self._parts,
            "STDDEV": math.sqrt(variance) / self._valid / self._parts,
            "VALID_PERCENT": 100 * self._valid / self._all,
        }
        return {f"STATISTICS_{name}": f"{value!r}" for name, value in items.items()}


def _histogram(values: LayerArray) -> NDArray[np.int64]:
    """Number of pixels of each uint8 value; arrays of 0 and 1 take a tenth of the time."""
    if values.size and values.max() <= 1:
        ones = np.count_nonzero(values)
        counts = np.zeros(256, np.int64)
        counts[:2] = values.size - ones, ones
        return counts
    return np.array(Image.fromarray(values).histogram())
