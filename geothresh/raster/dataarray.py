"""Find rows, columns, georeference and stored values of an xarray.DataArray.

Names, coordinates and attributes are read as rioxarray and CF write them; neither is required.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.raster.checks import usable_nodata
from geothresh.raster.dataset import valid_values
from geothresh.raster.scaling import BandFacts, Scaling
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from xarray import DataArray

_NAMES = {
    "y": {"y", "lat", "latitude", "northing", "row"},
    "x": {"x", "lon", "longitude", "easting", "column"},
}
_STANDARD_NAMES = {
    "y": {"latitude", "projection_y_coordinate"},
    "x": {"longitude", "projection_x_coordinate"},
}
# Steps of a coordinate may differ by this share of a step.
_UNEVEN = 0.01
# Attributes that describe the stored values. They do not apply to a result.
_OF_VALUES = {
    "_FillValue", "missing_value", "scale_factor", "add_offset", "units", "valid_min", "valid_max",
    "valid_range", "actual_range", "flag_values", "flag_meanings",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A DataArray as rows and columns of stored values."""

    array: DataArray
    """Its dimensions in the order (others of length 1, y, x)."""
    name: str
    """What to call it in messages."""
    size: RasterSize

    @classmethod
    def of(cls, array: DataArray) -> Plane:
        """Find the rows and columns of a DataArray.

        Raises:
            InputError: the array has fewer than two dimensions, no value, more than one layer,
                or values that are not numbers.
        """
        name = "DataArray" if array.name is None else f"DataArray {str(array.name)!r}"
        if array.ndim < 2 or not array.size:
            raise InputError(f"{name}: of shape {array.shape}; give rows x columns, at least 1 x 1")
        if not np.issubdtype(array.dtype, np.number):
            raise InputError(f"{name}: of dtype {array.dtype}; give numbers")
        if np.issubdtype(array.dtype, np.complexfloating):
            raise InputError(
                f"{name}: of dtype {array.dtype}, and a confidence is a real number; give its real "
                "part or modulus"
            )
        y, x = _spatial_dimensions(array)
        others = [dimension for dimension in array.dims if dimension not in (y, x)]
        for other in others:
            if array.sizes[other] != 1:
                raise InputError(
                    f"{name}: has {array.sizes[other]} layers along {other!r}; choose the one of "
                    f"confidences, such as array.isel({other}=0)"
                )
        return cls(
            array=array.transpose(*others, y, x),
            name=name,
            size=RasterSize(height=array.sizes[y], width=array.sizes[x]),
        )

    @property
    def stored(self) -> Any:
        """(H, W) stored values: a NumPy array, or a Dask array where the DataArray has one."""
        values = self.array.data if self.is_lazy else self.array.to_numpy()
        return values[(0,) * (self.array.ndim - 2)]

    @property
    def is_lazy(self) -> bool:
        """Whether Dask computes the values."""
        return self.array.chunks is not None

    @property
    def encoded_dtype(self) -> np.dtype[Any]:
        """The type that values have in their file, if they are from one.

        Where values are missing, xarray turns integers into floats (rioxarray's ``masked=True``)
        without rescaling them. An array of other values keeps the encoding: see `could_hold`.
        """
        dtype, encoding = self.array.dtype, self.array.encoding
        encoded = np.dtype(encoding.get("dtype") or encoding.get("rasterio_dtype") or dtype)
        scaled = (encoding.get("scale_factor", 1), encoding.get("add_offset", 0)) != (1, 0)
        masked = np.issubdtype(dtype, np.floating) and np.issubdtype(encoded, np.integer)
        return encoded if masked and not scaled else dtype

    def box(self) -> GeoBox:
        """Size, transform and CRS; the CRS is left out where there is no transform.

        The transform comes from the coordinates where these are evenly spaced, else from the grid
        mapping.
        """
        mapping = self._grid_mapping()
        transform = self._transform(mapping)
        crs = mapping.get("crs_wkt", mapping.get("spatial_ref"))
        if transform is None or crs is None:
            return GeoBox(size=self.size, name=self.name)
        return GeoBox(size=self.size, transform=transform, crs=str(crs), name=self.name)

    def nodata(self, forced: float | None) -> float | None:
        """The stored value that marks missing data; NaN and infinities always do.

        Raises:
            UsageError: `forced` cannot occur among these values.
            InputError: the attribute with the nodata value is not a number.
        """
        tagged = _nodata_of(self.array.attrs, self.name)
        return usable_nodata(self.name, self.array.dtype, tagged, forced)

    def nodata_of_file(self, nodata: float | None) -> float:
        """The nodata value to write into a file of refined confidences.

        It is the input's nodata value where that cannot be a confidence, else NaN.

        Args:
            nodata: the nodata value in memory; None = the array marks missing data by NaN, and its
                encoding may hold the value of the file.
        """
        stored = _nodata_of(self.array.encoding, self.name) if nodata is None else nodata
        if stored is None or 0 <= stored <= 1 or abs(stored) > np.finfo(np.float32).max:
            return math.nan
        return stored

    def facts(self, sample: NDArray[Any], dtype: np.dtype[Any]) -> BandFacts:
        """The facts that decide the scaling, without scale tags that xarray has already applied.

        Args:
            sample: (n,) valid values.
            dtype: the type of the stored values: `encoded_dtype`, or that in memory.
        """
        attributes = self.array.attrs
        return BandFacts(
            name=self.name,
            dtype=dtype,
            scale=_number(attributes.get("scale_factor", 1.0), "scale_factor", self.name),
            offset=_number(attributes.get("add_offset", 0.0), "add_offset", self.name),
            sample=sample.astype(dtype),
        )

    def with_values(
        self, values: Any, *, nodata: float, dims: tuple[Hashable, ...], tags: dict[str, str]
    ) -> DataArray:
        """A DataArray of other values with the same coordinates, name and CRS.

        Args:
            values: (H, W) array of NumPy or Dask.
            nodata: the nodata value in a file; in memory, missing floats are NaN.
            dims: the dimensions of the result, in order.
            tags: attributes to add.
        """
        made = self.array.copy(deep=False, data=values[(np.newaxis,) * (self.array.ndim - 2)])
        about = {key: value for key, value in self.array.attrs.items() if not _of_values(key)}
        made.attrs = {**about, **tags}
        made.encoding = {
            key: value for key, value in self.array.encoding.items() if key == "grid_mapping"
        }
        # rioxarray and xarray keep _FillValue in the encoding of decoded values.
        decoded = np.issubdtype(made.dtype, np.floating)
        (made.encoding if decoded else made.attrs)["_FillValue"] = made.dtype.type(nodata)
        return made.transpose(*dims)

    def _grid_mapping(self) -> dict[str, Any]:
        """The attributes of the coordinate that names the CRS, empty where there is none."""
        named = self.array.encoding.get("grid_mapping", self.array.attrs.get("grid_mapping"))
        names = (named, "spatial_ref", "crs")
        found = next((name for name in names if name in self.array.coords), None)
        return {} if found is None else dict(self.array.coords[found].attrs)

    def _transform(self, mapping: dict[str, Any]) -> tuple[float, ...] | None:
        """Transform of pixel corners (`GeoBox`); None where the grid is irregular or unknown."""
        given = mapping.get("GeoTransform", "")
        numbers = given.split() if isinstance(given, str) else np.ravel(given).tolist()
        gdal = [_number(number, "GeoTransform", self.name) for number in numbers]
        # GDAL's order: x of the corner, step of x along a row, step of x down a column; same for y.
        written = (gdal[1], gdal[2], gdal[0], gdal[4], gdal[5], gdal[3]) if len(gdal) == 6 else None
        y, x = (_axis(self.array, dimension) for dimension in self.array.dims[-2:])
        if x is None or y is None:
            return written
        return (x[1], 0.0, x[0], 0.0, y[1], y[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConfidences:
    """Turns stored values into confidences: a `Decode` of `geothresh.mosaic`."""

    name: str
    """Name of the array, for messages."""
    nodata: float | None
    """The stored value that marks missing data; NaN and infinities always do."""
    scaling: Scaling
    whole: np.dtype[Any] | None = None
    """The type of integers that floats are taken for; None = values have their own type."""

    def __call__(self, stored: NDArray[Any], window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Confidence and validity of a window; confidence is 0 where there is no data.

        Raises:
            InputError: a value contradicts the scaling.
        """
        valid = valid_values(stored, self.nodata)
        if self.whole is not None and not could_hold(self.whole, stored[valid]):
            raise InputError(
                f"{self.name}: values that are not whole numbers of {self.whole} (in "
                f"{window.text}), which is the type in its encoding; clear the encoding, or say "
                "with `scale=N` what stands for confidence 1"
            )
        return self.scaling.confidences(stored, valid, name=self.name, window=window), valid


def could_hold(dtype: np.dtype[Any], values: NDArray[Any]) -> bool:
    """Whether values in memory could have come from a file of another type.

    Integers hold only whole numbers in their range, so that probabilities on a template of
    integers, which keep its encoding, are found out.
    """
    if dtype == values.dtype or not values.size:
        return True
    limits = np.iinfo(dtype)
    return bool(
        values.min() >= limits.min
        and values.max() <= limits.max
        and (values == np.rint(values)).all()
    )


def _nodata_of(attributes: Mapping[Any, Any], name: str) -> float | None:
    key = "_FillValue" if "_FillValue" in attributes else "missing_value"
    value = attributes.get(key)
    return None if value is None else _number(value, key, name)


def _number(value: Any, key: str, name: str) -> float:
    """The number in an attribute; files may hold it as an array of one.

    Raises:
        InputError: it is none, or several.
    """
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: its attribute {key} holds {value!r}, and a number is needed there; set it "
            "to one, or remove it"
        ) from error


def _spatial_dimensions(array: DataArray) -> tuple[Hashable, Hashable]:
    """The dimensions of rows and columns.

    They are found by the usual names or by attributes of the coordinates; else they are the last
    two.
    """
    found = {}
    for axis in ("y", "x"):
        for dimension in array.dims:
            attributes = array.coords[dimension].attrs if dimension in array.coords else {}
            if (
                str(dimension).lower() in _NAMES[axis]
                or str(attributes.get("axis", "")).lower() == axis
                or attributes.get("standard_name") in _STANDARD_NAMES[axis]
            ):
                found[axis] = dimension
    if len(found) == 2 and found["y"] != found["x"]:
        return found["y"], found["x"]
    return array.dims[-2], array.dims[-1]


def _axis(array: DataArray, dimension: Hashable) -> tuple[float, float] | None:
    """(outer edge of the first pixel, step) of a coordinate of pixel centres.

    None where there are fewer than two values, or where steps differ.
    """
    if dimension not in array.coords or array.sizes[dimension] < 2:
        return None
    centres = array.coords[dimension].to_numpy()
    if not np.issubdtype(centres.dtype, np.number):
        return None
    steps = np.diff(centres.astype(np.float64))
    step = float(steps.mean())
    if not (math.isfinite(step) and step and (np.abs(steps - step) <= _UNEVEN * abs(step)).all()):
        return None
    return float(centres[0]) - step / 2, step


def _of_values(key: Hashable) -> bool:
    """Whether an attribute describes stored values; GDAL's statistics count as such."""
    return key in _OF_VALUES or str(key).startswith("STATISTICS_")
