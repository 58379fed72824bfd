"""Refuse VRTs that read raw bytes of other files, or name something else than rasters.

GDAL can read raw bytes from any file that the process may read, so an untrusted VRT could copy a
secret into the mask. What a VRT means is asked of GDAL, which has parsed it: its own reading of
entities, CDATA and spaces is the only one that counts.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio

from geothresh.errors import InputError
from geothresh.files import is_file
from geothresh.raster.gdal import RASTER_ERRORS, filtered_warnings, gdal_environment
from geothresh.raster.paths import IMAGE_STARTS

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# Most VRTs that a VRT names, directly or not; more are a mistake or an attack.
_MOST_VRTS = 1000
# Class of a band of raw bytes, in the XML that GDAL writes.
_RAW_BAND = "VRTRawRasterBand"
_XML = "xml:VRT"
# Sources in that XML. Those of mask bands are not among the dataset's files.
_SOURCE = re.compile(r"<Source(?:Filename|Dataset)\b([^>]*)>([^<]*)</")
_RELATIVE = re.compile(r'relativeToVRT="1"', re.I)
# What GDAL opens that is no file: a prefix of a driver or scheme, XML, a virtual file system.
_NO_FILE = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]+:|\s*<|/vsi")
_ON_A_SERVER = re.compile(r"/vsi(curl|s3|gs|az|oss)/|https?://")


def refuse_raw_bytes(name: str, dataset: DatasetReader, *, remote: bool = False) -> None:
    """Refuse a VRT that reads raw bytes, directly or through a VRT that it refers to.

    It may name TIFFs, other VRTs of which the same holds, and files of the other formats in
    `IMAGE_STARTS`, which hold their own pixels. Files that do not exist are left to GDAL.

    Args:
        name: name of the VRT in messages.
        dataset: the open VRT.
        remote: the VRT lies on a server, and may name rasters there; these are not looked at.

    Raises:
        InputError: it is such a VRT, or names something else.
    """
    waiting, seen, vrts = _names_in(name, dataset), {dataset.name}, 0
    while waiting:
        file = waiting.pop()
        if file in seen or (remote and _ON_A_SERVER.match(file)):
            continue
        seen.add(file)
        if _NO_FILE.match(file):
            raise InputError(
                f"{name}: names {file[:80]}, which is not the path of a file; name files alone, or "
                "write one GeoTIFF with gdal_translate"
            )
        if not is_file(file) or _holds_its_pixels(Path(file)):
            continue
        vrts += 1
        if vrts > _MOST_VRTS:
            raise InputError(f"{name}: names more than {_MOST_VRTS} other VRTs; write one GeoTIFF")
        waiting += _names_in_vrt(name, file)


def _names_in_vrt(name: str, file: str) -> list[str]:
    """What a VRT inside a VRT names."""
    try:
        with (
            gdal_environment(offline=True),
            filtered_warnings(),
            rasterio.open(file, driver="VRT", sharing=False) as dataset,
        ):
            return _names_in(name, dataset)
    except RASTER_ERRORS as error:
        raise InputError(
            f"{name}: names {file}, which is neither a TIFF nor a VRT that can be opened, nor a "
            "PNG, JPEG, JPEG 2000 or ERDAS IMG image; convert it to GeoTIFF"
        ) from error


def _names_in(name: str, dataset: DatasetReader) -> list[str]:
    """The names that GDAL opens for an open VRT."""
    xml = dataset.tags(ns=_XML)[_XML]
    if _RAW_BAND in xml:
        raise InputError(
            f"{name}: reads raw bytes of another file ({_RAW_BAND} in {Path(dataset.name).name}), "
            "which is never accepted; convert what it reads to GeoTIFF"
        )
    folder = dataset.name.rpartition("/")[0]
    sources = [
        f"{folder}/{source}" if folder and _RELATIVE.search(attributes) else source
        for attributes, escaped in _SOURCE.findall(xml)
        for source in [html.unescape(escaped)]
    ]
    return [*dataset.files[1:], *sources]


def _holds_its_pixels(path: Path) -> bool:
    """Whether a file begins as one of the formats whose files hold their own pixels."""
    try:
        with path.open("rb") as file:
            return file.read(16).startswith(IMAGE_STARTS)
    except OSError:
        # GDAL will report it if it needs the file.
        return True
