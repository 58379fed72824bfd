"""Refine an xarray.DataArray of confidences, lazily where it is a Dask array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from geothresh.errors import InputError, UsageError
from geothresh.fields import Number, checked, decisive, require, require_only
from geothresh.geobox import PixelSize
from geothresh.mosaic import PiecesReader, RasterReader, Sink, mosaic
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import IN_THIS_PROCESS, Compute, Progress, Reading, Refining, Tiling
from geothresh.raster.creation import NODATA
from geothresh.raster.dataarray import Plane, StoredConfidences, could_hold
from geothresh.raster.dataset import evenly_spread, valid_values
from geothresh.raster.pixelsize import pixel_size
from geothresh.raster.scaling import decide_scaling, telling_values
from geothresh.run.calibrated import apply_calibration
from geothresh.run.changes import MaskLayers
from geothresh.run.models import ChosenModel, Model
from geothresh.run.outputs import parameter_tags
from geothresh.run.resolution import (
    sampled_width,
    warn_of_mismatch,
    width_windows,
)
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from xarray import DataArray

Layer: TypeAlias = Literal["confidence", "mask"]
"""The result: refined confidences, or a mask cut at the threshold."""

# Pixels that are sampled at once, and the most chunks of a Dask array that are sampled.
_SAMPLE_PIXELS, _SAMPLE_CHUNKS = 2**23, 16


@dataclass(frozen=True, slots=True)
class _Confidences:
    """Refined confidences, NaN where there is no data."""

    dtype = np.dtype(np.float32)
    reads_input = False

    def described(self) -> dict[str, object]:
        """Options that the values depend on, by name."""
        return {}

    def __call__(
        self, reader: RasterReader, window: PixelWindow, confidence: Float32Array, valid: BoolArray
    ) -> NDArray[Any]:
        return confidence if valid.all() else np.where(valid, confidence, np.float32(np.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """The mask of refined confidences at or above the threshold, as `refine` writes it."""

    threshold: float
    keep: float | None

    dtype = np.dtype(np.uint8)
    reads_input = True

    def described(self) -> dict[str, object]:
        """Options that the values depend on, by name."""
        keep = "none" if self.keep is None else f"{self.keep:g}"
        return {"threshold": self.threshold, "keep_threshold": keep}

    def __call__(
        self, reader: RasterReader, window: PixelWindow, confidence: Float32Array, valid: BoolArray
    ) -> NDArray[Any]:
        cut = MaskLayers(threshold=self.threshold, keep=self.keep, confidence=None)
        return cut(reader, window, confidence, valid).values[0]


@checked()
def refine_dataarray(
    array: DataArray,
    *,
    model: Model = DEFAULT_MODEL,
    layer: Layer = "confidence",
    reading: Reading = Reading(),
    refining: Refining = Refining(),
    ground_sample_distance: float | None = None,
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> DataArray:
    """Refine a DataArray of confidences, with the same pixel values as `refine`.

    A DataArray of a Dask array is refined lazily: the result is a Dask array with the same chunks,
    each of which is refined when it is computed, with the pixels around it, on the scheduler in use
    then. A tile that several chunks need is refined once.

    The size of the pixels on the ground is read from the CRS (rioxarray's ``spatial_ref``, or any
    grid mapping of CF with ``crs_wkt``) and evenly spaced coordinates, or ``GeoTransform``.

    Scaling and resolution are decided now, from a sample as by `refine`. For a Dask array this may
    compute a few chunks: if values are uint8, or were integers in their file, and `scale` is auto,
    up to 16 evenly spread chunks until a value decides; and if the pixel size is unknown, up to 16
    windows of 512 x 512 pixels for the width of the foreground. ``Reading(scale=255)`` and
    `ground_sample_distance`, or ``Refining(resolution="native")``, avoid that. Values that
    contradict the scaling raise when they are computed.

    Args:
        array: rows and columns of confidences, optionally with further dimensions of length 1, such
            as rioxarray's ``band``. Missing data is NaN, or the attribute ``_FillValue``.
        model, tiling, progress: as for `refine`; `progress` is for arrays without Dask.
        layer: ``confidence`` or ``mask``.
        reading: `scale` and `nodata`.
        refining: test-time augmentation and resolution; for a mask its thresholds too; or a
            calibration.
        ground_sample_distance: pixel size on the ground in metres, in place of the array's own.
        compute: device, number format, batch size and backend.

    Returns:
        A DataArray with the same dimensions, coordinates, CRS, name and attributes, except those
        about stored values. ``confidence``: float32 in [0, 1], NaN where data is missing; written
        to a file, it has the nodata value of the input where that is no confidence, else NaN.
        ``mask``: uint8, 0 background, 1 foreground, 255 nodata.

    Raises:
        UsageError: arguments contradict each other, or the model is out of the resolution's reach.
        InputError: `array` is no DataArray, or not one of rows and columns of confidences.
        ModelError: the model is missing or damaged, or does not fit.

    Example:
        >>> import rioxarray                                            # doctest: +SKIP
        >>> scene = rioxarray.open_rasterio("scene.tif", chunks=2048)   # doctest: +SKIP
        >>> mask = refine_dataarray(scene, layer="mask")                # doctest: +SKIP
        >>> mask.rio.to_raster("mask.tif", tiled=True)                  # doctest: +SKIP
    """
    _require_arguments(array, layer, reading, refining, ground_sample_distance, compute)
    plane = Plane.of(array)
    if plane.is_lazy and progress is not None:
        raise UsageError(
            "`progress` is for arrays without Dask; use dask.diagnostics.ProgressBar or the "
            "dashboard"
        )
    stored = plane.stored
    nodata = plane.nodata(reading.nodata)
    decode = _decode(plane, stored, nodata, reading)
    pixel = pixel_size(plane.box())
    metres = pixel.mean if ground_sample_distance is None and pixel else ground_sample_distance
    applied = apply_calibration(model, refining)
    refining = applied.refining
    chosen = applied.choose(compute, metres=metres, width=partial(_width, plane, stored, decode))
    warn_of_mismatch(plane.name, None if metres is None else PixelSize(x=metres, y=metres), chosen)
    made: _Confidences | _Mask = _Confidences()
    if layer == "mask":
        made = _Mask(threshold=refining.threshold, keep=chosen.keep(refining))
    return plane.with_values(
        _refined(plane, stored, decode, chosen, made, tiling, progress),
        nodata=plane.nodata_of_file(nodata) if layer == "confidence" else NODATA,
        dims=array.dims,
        tags=_tags(
            plane,
            decode,
            chosen,
            tiling,
            tta=refining.tta,
            **made.described(),
            **applied.described,
        ),
    )


def _require_arguments(
    array: object,
    layer: str,
    reading: Reading,
    refining: Refining,
    ground_sample_distance: float | None,
    compute: Compute,
) -> None:
    """Refuse arguments that contradict each other or do not apply; raises as `refine_dataarray`."""
    try:
        from xarray import DataArray
    except ImportError as error:
        raise UsageError(
            "xarray is not installed; install it with: pip install 'geothresh[xarray]'"
        ) from error
    if not isinstance(array, DataArray):
        raise InputError(
            f"{type(array).__name__} is no xarray.DataArray; give one, or use refine_array for "
            "NumPy arrays and refine for files"
        )
    if layer not in get_args(Layer):
        raise UsageError(f"`layer` {layer}: give {' or '.join(get_args(Layer))}")
    require_only(
        reading, "scale", "nodata", why="is for files; select a part of the DataArray itself"
    )
    if layer == "confidence":
        require_only(
            refining, "tta", "resolution", "calibration", why='is for masks; add layer="mask"'
        )
    require_only(
        compute, *IN_THIS_PROCESS,
        why="is for files; a DataArray with Dask inside is refined on the scheduler that computes "
        "it, see array.chunk()",
    )  # fmt: skip
    if ground_sample_distance is not None:
        require("ground_sample_distance", ground_sample_distance, Number(least=0, above=True))


def _refined(
    plane: Plane,
    stored: Any,
    decode: StoredConfidences,
    chosen: ChosenModel,
    made: _Confidences | _Mask,
    tiling: Tiling,
    progress: Progress | None,
) -> Any:
    """(H, W): a NumPy array that is refined, or a Dask array that will be."""
    grid = chosen.grid(plane.size, tiling)
    if plane.is_lazy:
        from geothresh.mosaic.lazy import mosaic_lazily

        return mosaic_lazily(
            stored, chosen.refiner, grid=grid, decode=decode, finish=made, blend=tiling.blend,
            batch_size=chosen.batch_size,
        )  # fmt: skip
    reader = PiecesReader(size=plane.size, pieces=[(plane.size.window(), stored)], decode=decode)
    result = np.empty((plane.size.height, plane.size.width), made.dtype)

    def store(window: PixelWindow, confidence: Float32Array, valid: BoolArray) -> None:
        result[window.slices()] = made(reader, window, confidence, valid)

    mosaic(
        reader, chosen.refiner, Sink(store), grid=grid, blend=tiling.blend,
        batch_size=chosen.batch_size, progress=progress,
    )  # fmt: skip
    return result


def _decode(plane: Plane, stored: Any, nodata: float | None, reading: Reading) -> StoredConfidences:
    """Decide how stored values become confidences, from a sample where that decides."""
    own = plane.array.dtype
    dtype = plane.encoded_dtype
    sample: list[NDArray[Any]] = [np.zeros(0, own)]
    for values in _samples(plane, stored, reading):
        valid = values[valid_values(values, nodata)]
        if not could_hold(dtype, valid):
            dtype = own
        sample.append(telling_values(valid.astype(dtype, copy=False)))
        if plane.is_lazy and (dtype != plane.encoded_dtype or (sample[-1] > 1).any()):
            break
    taken = dtype != own and reading.scale == "auto"
    return StoredConfidences(
        name=plane.name,
        nodata=nodata,
        scaling=decide_scaling(plane.facts(np.concatenate(sample), dtype), reading.scale),
        whole=dtype if taken else None,
    )


def _samples(plane: Plane, stored: Any, reading: Reading) -> Iterator[NDArray[Any]]:
    """All values in memory, by parts; or chunks of a Dask array, if its values decide."""
    if not plane.is_lazy:
        rows = max(1, _SAMPLE_PIXELS // plane.size.width)
        for row in range(0, plane.size.height, rows):
            yield stored[row : row + rows]
        return
    dtype = plane.encoded_dtype
    if reading.scale == "auto" and (dtype == np.uint8 or dtype != plane.array.dtype):
        down, across = stored.numblocks
        for index in evenly_spread(down * across, _SAMPLE_CHUNKS).tolist():
            yield stored.blocks[divmod(index, across)].compute()


def _width(plane: Plane, stored: Any, decode: StoredConfidences) -> float | None:
    """The width of the foreground in pixels, as `refine` measures it."""
    windows = width_windows(plane.size)
    parts = [stored[window.slices()] for window in windows]
    if plane.is_lazy:
        from geothresh.mosaic.lazy import compute_together

        parts = compute_together(parts)
    pieces = list(zip(windows, parts, strict=True))
    return sampled_width(PiecesReader(size=plane.size, pieces=pieces, decode=decode))


def _tags(
    plane: Plane,
    decode: StoredConfidences,
    chosen: ChosenModel,
    tiling: Tiling,
    **more: object,
) -> dict[str, str]:
    """The attributes that say how the result was made, as the tags of a file do."""
    return parameter_tags(
        {
            **chosen.described(),
            "scaling": decode.scaling.text,
            "source": plane.name,
            **decisive(tiling),
            "overlap": chosen.overlap(tiling),
        },
        **more,
    )
