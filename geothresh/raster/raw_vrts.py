"""Refuse VRTs that read raw bytes of other files."""

from __future__ import annotations

import html
import re
from pathlib import Path

from geothresh.errors import InputError
from geothresh.files import is_file

# Most bytes of the XML of a VRT; mosaics of ten thousand scenes stay below it.
_MOST_BYTES = 64 * 2**20
# Most VRTs that a VRT names, directly or not; more are a mistake or an attack.
_MOST_VRTS = 1000
_RAW_BAND = re.compile(rb"VRTRawRasterBand", re.I)
_VRT_SOURCE = re.compile(rb"<SourceFilename([^>]*)>([^<]*)</SourceFilename>", re.I)
_RELATIVE = re.compile(rb"relativeToVRT\s*=\s*[\"']1[\"']", re.I)


def refuse_raw_bytes(name: str, path: Path) -> None:
    """Refuse a VRT that reads raw bytes, directly or through a VRT that it refers to.

    GDAL can read raw bytes from any file that the process may read, so an untrusted VRT could copy
    a secret into the mask.

    Args:
        name: name of the VRT in messages.
        path: path of the VRT.

    Raises:
        InputError: it is such a VRT, or it cannot be searched.
    """
    waiting, seen = [path], {path.resolve()}
    while waiting:
        vrt = waiting.pop()
        content = _vrt_content(name, vrt)
        if _RAW_BAND.search(content):
            raise InputError(
                f"{name}: reads raw bytes of another file (VRTRawRasterBand in {vrt.name}), which "
                "is never accepted; convert what it reads to GeoTIFF"
            )
        for given, source in _VRT_SOURCE.findall(content):
            inner = Path(html.unescape(source.decode(errors="replace")).strip())
            if _RELATIVE.search(given):
                inner = vrt.parent / inner
            if is_file(inner) and inner.resolve() not in seen and _is_vrt(inner):
                seen.add(inner.resolve())
                waiting.append(inner)
        if len(seen) > _MOST_VRTS:
            raise InputError(f"{name}: names more than {_MOST_VRTS} other VRTs; write one GeoTIFF")


def _vrt_content(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{name}: {path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if len(content) > _MOST_BYTES:
        raise InputError(
            f"{name}: {path.name} is a VRT of more than {_MOST_BYTES >> 20} MiB; write a "
            "GeoTIFF of it"
        )
    return content


def _is_vrt(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"<VRTDataset" in file.read(512)
    except OSError:
        # GDAL will report it if it needs the file.
        return False
