"""Creation options and band formats of the GeoTIFFs that are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geothresh.colours import (
    ADDED,
    CONFIDENCE_RAMP,
    EMPTY,
    FOREGROUND,
    REMOVED,
    THRESHOLD_RAMP,
    Rgb,
    Stop,
)
from geothresh.errors import UsageError
from geothresh.machine import usable_cores
from geothresh.options import Dtype, Writing
from geothresh.windows import RasterSize

# Nodata of every uint8 output.
NODATA = 255
# Confidence 0 to 1 is stored as 0 to 254.
CONFIDENCE_STEPS = 254
# Rows and columns of a block on the disk.
BLOCK = 512

# File name extensions for which GDAL and other programs choose another driver.
_OTHER_FORMATS = (
    ".avif", ".bmp", ".csv", ".fgb", ".geojson", ".gif", ".gpkg", ".grib", ".h5", ".hdf", ".img",
    ".jp2", ".jpeg", ".jpg", ".json", ".jxl", ".kml", ".nc", ".parquet", ".pdf", ".png", ".shp",
    ".vrt", ".webp", ".xml", ".zarr", ".zip",
)  # fmt: skip

_DEFAULTS = {
    "TILED": "YES",
    "BLOCKXSIZE": str(BLOCK),
    "BLOCKYSIZE": str(BLOCK),
    "COMPRESS": "DEFLATE",
    "BIGTIFF": "IF_SAFER",
    # GDAL's default of 6 takes three times as long on confidences, for files 3 % smaller.
    "ZLEVEL": "4",
    # Threads that compress blocks: a GPU fills chunks faster than one core deflates them. The bytes
    # do not depend on their number. Half of the cores at most, as the network needs some.
    "NUM_THREADS": str(max(1, min(8, usable_cores() // 2))),
}
# Deflate compresses 258 bytes to two bits at best (RFC 1951): 1032 to 1.
_DEFLATE_LIMIT = 1032
_BYTES: dict[Dtype, int] = {"uint8": 1, "float32": 4}
# Compression methods that support a predictor.
_PREDICTED = ("DEFLATE", "LZW", "ZSTD")
# Allowed values of each creation option; None = any value. Names are checked because GDAL ignores
# unknown ones without an error.
_GRANTED: dict[str, tuple[str, ...] | None] = {
    "BIGTIFF": ("YES", "NO", "IF_NEEDED", "IF_SAFER"),
    "BLOCKXSIZE": None,
    "BLOCKYSIZE": None,
    # Lossless methods only.
    "COMPRESS": ("NONE", "DEFLATE", "LZW", "LZMA", "PACKBITS", "ZSTD"),
    "ENDIANNESS": ("NATIVE", "INVERTED", "LITTLE", "BIG"),
    "GEOTIFF_KEYS_FLAVOR": ("STANDARD", "ESRI_PE"),
    "GEOTIFF_VERSION": ("AUTO", "1.0", "1.1"),
    "LZMA_PRESET": None,
    "NUM_THREADS": None,
    "PREDICTOR": ("1", "2"),
    "SPARSE_OK": ("TRUE", "FALSE", "YES", "NO"),
    "TILED": ("YES", "NO", "TRUE", "FALSE"),
    "ZLEVEL": None,
    "ZSTD_LEVEL": None,
}

# Least and greatest values of options that are numbers. GDAL ignores others without an error.
_NUMBERS = {
    "BLOCKXSIZE": (1, 2**20),
    "BLOCKYSIZE": (1, 2**20),
    "LZMA_PRESET": (0, 9),
    "NUM_THREADS": (1, 1024),
    "ZLEVEL": (1, 12),
    "ZSTD_LEVEL": (1, 22),
}
_ALL_CORES = "ALL_CPUS"
# Longest side of a tile; `geothresh.raster.checks` refuses rasters with blocks above 512 MiB.
_LONGEST_SIDE = 2**13

# Options of the GTiff driver, and their names in the COG driver.
_COG_NAMES = {
    "BIGTIFF": "BIGTIFF",
    "BLOCKXSIZE": "BLOCKSIZE",
    "COMPRESS": "COMPRESS",
    "NUM_THREADS": "NUM_THREADS",
    "PREDICTOR": "PREDICTOR",
    "SPARSE_OK": "SPARSE_OK",
    "ZLEVEL": "LEVEL",
    "ZSTD_LEVEL": "LEVEL",
}
# Options without meaning for a COG; and the compression method that each level option belongs to.
_COG_MOOT = ("TILED", "BLOCKYSIZE", "GEOTIFF_KEYS_FLAVOR")
_COG_LEVELS = {"ZLEVEL": "DEFLATE", "ZSTD_LEVEL": "ZSTD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterClass:
    """A class of a classified raster: its value, name and colour."""

    value: int
    label: str
    """Its name in legends."""
    colour: Rgb
    """Colour in the colour table and in styles; a transparent class is black in the table."""

    @property
    def transparent(self) -> bool:
        """Whether it is transparent on maps."""
        return self.colour == EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class BandFormat:
    """Type, scale and colours of the one band of an output."""

    description: str
    """The band's description, which GIS programs show as its name."""
    dtype: Dtype = "uint8"
    """Type of its values. Nodata is 255 in uint8, and NaN in float32."""
    scale: float = 1.0
    """The band's scale tag: meaning = value * scale."""
    classes: tuple[RasterClass, ...] = ()
    """The classes, by values from 0; empty for continuous values. Nodata is not among them."""
    ramp: tuple[Stop, ...] = ()
    """Colour ramp of continuous values; its stops are in scaled values."""

    @property
    def nodata(self) -> float:
        """The value that means no data."""
        return NODATA if self.dtype == "uint8" else math.nan

    @property
    def colours(self) -> dict[int, Rgb]:
        """The colour table, by value; empty where there are no classes."""
        # Colour tables of TIFFs have no alpha; GDAL makes nodata transparent by itself.
        table = {each.value: each.colour for each in self.classes}
        return table | {NODATA: EMPTY} if table else table


def mask_band(theme: str = "") -> BandFormat:
    """The format of a mask: 0 background, 1 foreground.

    Args:
        theme: name of the foreground in legends; empty if unknown.
    """
    return BandFormat(
        description="mask",
        classes=(
            RasterClass(value=0, label="background", colour=EMPTY),
            RasterClass(value=1, label=theme or "foreground", colour=FOREGROUND),
        ),
    )


CHANGES = BandFormat(
    description="changes",
    classes=(
        RasterClass(value=0, label="unchanged", colour=EMPTY),
        RasterClass(value=1, label="added", colour=ADDED),
        RasterClass(value=2, label="removed", colour=REMOVED),
    ),
)
"""0 unchanged, 1 became foreground, 2 became background."""

THRESHOLD = BandFormat(description="threshold", scale=0.01, ramp=THRESHOLD_RAMP)
"""5 to 95 for the region-specific threshold 0.05 to 0.95."""

CONFIDENCE = BandFormat(
    description="confidence", scale=1.0 / CONFIDENCE_STEPS, ramp=CONFIDENCE_RAMP
)
"""0 to 254 for confidence 0 to 1."""

CONFIDENCE_FLOAT = BandFormat(description="confidence", dtype="float32", ramp=CONFIDENCE_RAMP)
"""Confidence 0 to 1 as it is."""


def confidence_band(dtype: Dtype) -> BandFormat:
    """The format of a confidence raster with values of a type."""
    return CONFIDENCE if dtype == "uint8" else CONFIDENCE_FLOAT


def gtiff_options(wished: Mapping[str, str], dtype: Dtype = "uint8") -> dict[str, str]:
    """The creation options of an output: the defaults, replaced by those of the user.

    Args:
        wished: the user's options by name, in upper or lower case, as after ``--co``.
        dtype: type of the output's values.

    Raises:
        UsageError: a name or value is unknown, or would lose pixels or georeference.
    """
    options = dict(_DEFAULTS)
    for given, value in wished.items():
        name = given.upper()
        if name not in _GRANTED:
            raise UsageError(
                f"creation option {name} is not supported; known are {', '.join(sorted(_GRANTED))}"
            )
        allowed = _GRANTED[name]
        if allowed is not None and str(value).upper() not in allowed:
            raise UsageError(
                f"creation option {name}={value} is not supported; "
                f"choose {name} from {', '.join(allowed)}"
            )
        options[name] = str(value).upper()
        _require_number(name, options[name])
    if dtype == "float32" and options["COMPRESS"] in _PREDICTED:
        # 40 % smaller files.
        options.setdefault("PREDICTOR", "3")
    if options["TILED"] in ("NO", "FALSE"):
        # Strips are as wide as the raster.
        del options["TILED"], options["BLOCKXSIZE"]
        if "BLOCKYSIZE" not in {name.upper() for name in wished}:
            del options["BLOCKYSIZE"]
    else:
        options["TILED"] = "YES"
        for name in ("BLOCKXSIZE", "BLOCKYSIZE"):
            if int(options[name]) % 16 or int(options[name]) > _LONGEST_SIDE:
                raise UsageError(
                    f"creation option {name}={options[name]}: a tile's side is a multiple of 16, "
                    f"up to {_LONGEST_SIDE:,}"
                )
    return options


def _require_number(name: str, value: str) -> None:
    """Check the value of a creation option that is a number; others are not checked."""
    if name not in _NUMBERS or (name == "NUM_THREADS" and value == _ALL_CORES):
        return
    least, most = _NUMBERS[name]
    if not (value.isdecimal() and least <= int(value) <= most):
        word = f"{_ALL_CORES} or " if name == "NUM_THREADS" else ""
        raise UsageError(
            f"creation option {name}={value}: give {word}a whole number from {least} to {most:,}"
        )


def cog_options(options: Mapping[str, str]) -> dict[str, str]:
    """Translate options of the GTiff driver to the COG driver.

    Raises:
        UsageError: an option has no counterpart.
    """
    if options.get("TILED") != "YES" or options["BLOCKXSIZE"] != options["BLOCKYSIZE"]:
        raise UsageError("`cog`: a COG has square tiles; leave TILED and the block sizes out")
    named: dict[str, str] = {}
    for name, value in options.items():
        if name in _COG_MOOT or _COG_LEVELS.get(name, options["COMPRESS"]) != options["COMPRESS"]:
            continue
        if name not in _COG_NAMES:
            raise UsageError(f"`cog`: a COG has no creation option {name}; leave it out")
        named[_COG_NAMES[name]] = value
    if "PREDICTOR" in named:
        named["PREDICTOR"] = {"1": "NO", "2": "STANDARD", "3": "FLOATING_POINT"}[named["PREDICTOR"]]
    return named


def require_creation(writing: Writing) -> None:
    """Check the creation options before any work.

    Raises:
        UsageError: an option is unknown, would lose data, or is not possible in a COG.
    """
    options = gtiff_options(writing.creation_options)
    if writing.cog:
        cog_options(options)


def least_bytes(size: RasterSize, wished: Mapping[str, str], dtype: Dtype = "uint8") -> int:
    """A lower bound of the size of an output in bytes, however well its pixels compress.

    Args:
        size: size of the raster.
        wished: the user's creation options.
        dtype: type of its values.

    Raises:
        UsageError: an option is not supported.
    """
    options = gtiff_options(wished)
    if options.get("SPARSE_OK") in ("YES", "TRUE"):
        return 0
    stored = size.pixels * _BYTES[dtype]
    if options["COMPRESS"] == "NONE":
        return stored
    return stored // _DEFLATE_LIMIT if options["COMPRESS"] == "DEFLATE" else 0


def require_tiff_name(path: Path) -> None:
    """Refuse a file name with the extension of a format other than GeoTIFF.

    Raises:
        UsageError: the name has such an extension.
    """
    if path.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(
            f"{path}: a GeoTIFF is written, and {path.suffix} is the ending of another format; "
            f"name it {path.with_suffix('.tif').name}"
        )
