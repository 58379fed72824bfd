"""Refuse VRTs that read raw bytes, even where the user trusts them to name other rasters."""

from __future__ import annotations

import html
import re
from pathlib import Path

from geothresh.errors import InputError

# Of the XML of one VRT, bytes: mosaics of ten thousand scenes stay below it.
_LARGEST = 64 * 2**20
# A VRT names VRTs that name others; more of them than this are a mistake or an attack.
_MOST_VRTS = 1000

_RAW = re.compile(rb"VRTRawRasterBand", re.I)
_SOURCE = re.compile(rb"<SourceFilename([^>]*)>([^<]*)</SourceFilename>", re.I)
_RELATIVE = re.compile(rb"relativeToVRT\s*=\s*[\"']1[\"']", re.I)


def require_rasters(name: str, path: Path) -> None:
    """Refuse a VRT that reads raw bytes, itself or in a VRT that it names.

    GDAL reads them from any file that the process may read: a stranger's VRT would carry a secret
    into the mask.

    Args:
        name: what to call the VRT in messages.
        path: the local file.

    Raises:
        InputError: it is such a VRT, or cannot be looked through.
    """
    waiting, seen = [path], {path.resolve()}
    while waiting:
        one = waiting.pop()
        content = _content(name, one)
        if _RAW.search(content):
            raise InputError(
                f"{name}: reads raw bytes of another file (VRTRawRasterBand in {one.name}), which "
                "is never accepted; convert what it reads to GeoTIFF"
            )
        for given, source in _SOURCE.findall(content):
            inner = Path(html.unescape(source.decode(errors="replace")).strip())
            if _RELATIVE.search(given):
                inner = one.parent / inner
            if inner.is_file() and inner.resolve() not in seen and _is_vrt(inner):
                seen.add(inner.resolve())
                waiting.append(inner)
        if len(seen) > _MOST_VRTS:
            raise InputError(f"{name}: names more than {_MOST_VRTS} other VRTs; write one GeoTIFF")


def _content(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{name}: {path} cannot be read ({error.strerror})") from error
    if len(content) > _LARGEST:
        raise InputError(
            f"{name}: {path.name} is a VRT of more than {_LARGEST >> 20} MiB; write a GeoTIFF of it"
        )
    return content


def _is_vrt(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"<VRTDataset" in file.read(512)
    except OSError:
        # GDAL will say so, if it needs the file.
        return False
