"""Check the path or URL of a raster: a TIFF, a VRT if allowed, or a remote file."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from geothresh.addresses import OBJECT_STORES, Address, without_secrets
from geothresh.errors import InputError, UsageError
from geothresh.files import head_of, is_file, require_file
from geothresh.raster.hosts import internal_host

# Names that GDAL does not take for the path of a file.
_SPECIAL = re.compile(r"\s*<|(GTIFF_DIR|GTIFF_RAW|MEM|VRT|DERIVED_SUBDATASET|vrt)\s*:", re.I)
_SCHEMES = ("https", "http", "s3", "gs", "az", "oss")
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_VSI = re.compile(r"^/vsi[a-z0-9_]+[/?]")
# Refused: pipes, and sparse files, which point at other files.
_REFUSED_VSI = ("/vsistdin", "/vsistdout", "/vsisparse")
# Bytes at each end of a file that its digest is made of.
_ENDS = 2**16

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGE_STARTS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"EHFA_HEADER_TAG", "an ERDAS IMG file"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
)
_OTHER_STARTS = (
    *_IMAGE_STARTS,
    (b"\x89HDF", "an HDF5 or netCDF-4 file"),
    (b"CDF", "a netCDF file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a git-lfs pointer: fetch the file itself with `git lfs pull`"),
    (b"SQLite format 3", "an SQLite database or GeoPackage"),
    (b"%PDF", "a PDF"),
)

IMAGE_STARTS = (*_TIFF_STARTS, *(start for start, _ in _IMAGE_STARTS))
"""First bytes of the files that a VRT may name: such a file holds its own pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSource:
    """A raster that may be opened: its location, driver, file size and time of change."""

    name: str
    """Name in messages, as the user wrote it, without passwords and signatures."""
    location: str
    """What GDAL opens: an absolute path, a URL or a /vsi path."""
    driver: str
    """The only GDAL driver that may open it: GTiff, or VRT if allowed."""
    remote: bool
    """True if `location` is not a plain path of the local file system."""
    file_size: int | None
    """Bytes; None if remote."""
    modified_ns: int | None
    """Time of last change, nanoseconds; None if remote."""

    @property
    def access(self) -> dict[str, bool]:
        """Arguments for `gdal_environment`.

        Only locations that the user gave are fetched, never those inside a local VRT.
        """
        return {"remote": self.remote, "offline": self.driver == "VRT" and not self.remote}

    def beside(self, end: str, what: str) -> Path:
        """Path of a file beside this one: its stem followed by `end`, as in ``NAME_mask.tif``.

        Raises:
            UsageError: this raster is remote; the message calls the other file `what`.
        """
        if self.remote:
            raise UsageError(f"{self.name}: is not a local file; name the {what} with `output`")
        path = Path(self.location if "://" in self.name else self.name)
        return path.with_name(f"{path.stem}{end}")


def local_files(sources: Iterable[RasterSource]) -> list[str]:
    """Paths of the rasters that are on this machine."""
    return [source.location for source in sources if not source.remote]


def head_digest(source: RasterSource) -> str | None:
    """sha256 of a local file's first and last 64 KiB, where TIFFs keep their directories.

    Together with size and time of change it identifies the file. For an object in a store it is the
    ETag instead (`version_of`), and for other remote files None.

    Raises:
        InputError: the file cannot be read.
    """
    if source.remote:
        return version_of(source)
    if source.file_size is None:
        return None
    sha256 = hashlib.sha256()
    try:
        with Path(source.location).open("rb") as file:
            sha256.update(file.read(_ENDS))
            file.seek(max(0, source.file_size - _ENDS))
            sha256.update(file.read(_ENDS))
    except OSError as error:
        raise InputError(
            f"{source.name}: cannot be read ({error.strerror}); check the disk and permissions"
        ) from error
    return sha256.hexdigest()


def version_of(source: RasterSource) -> str | None:
    """The ETag of an object, which identifies its present content; None outside of stores.

    Raises:
        InputError: the object does not exist, or the request failed.
    """
    location = Address.in_store(source.location)
    if not location.startswith(tuple(OBJECT_STORES.values())):
        return None
    from geothresh.raster.objects import StoreError, version  # slow: loads rasterio

    try:
        found = version(location)
    except StoreError as error:
        raise InputError(
            f"{source.name}: cannot be looked at ({error}); check network and credentials"
        ) from error
    if found is None:
        raise InputError(
            f"{source.name}: is not there any more; check that nobody removes or renames it"
        )
    return found


def find_raster(
    scene: str | os.PathLike[str] | Any, *, allow_vrt: bool | None = None
) -> RasterSource:
    """Check a path, a URL, or an open rasterio dataset, whose name is used.

    A `RasterSource` is returned unchanged.

    Args:
        scene: the path, URL or dataset.
        allow_vrt: whether a VRT is accepted; None = never, and there is no option for it.

    Raises:
        InputError: it is not a regular file, cannot be read, or is not a TIFF.
        UsageError: it is not a path, URL or open dataset.
    """
    if isinstance(scene, RasterSource):
        return scene
    name = name_of(scene)
    if not name or "\0" in name:
        raise UsageError(f"{name!r} is not the name of a file")
    if _SPECIAL.match(name):
        raise InputError(f"{name}: not the path of a file; give the path of a GeoTIFF")
    url = _URL.match(name)
    if url and url.group(1).lower() == "file":
        return _local(name, Path(unquote(urlsplit(name).path)), allow_vrt)
    # Path.exists() fails where a name is too long for a file system.
    if _VSI.match(name) or (url and not os.path.exists(name)):  # noqa: PTH110
        return _remote(name, url.group(1).lower() if url else None, allow_vrt)
    return _local(name, Path(name), allow_vrt)


def name_of(scene: str | os.PathLike[str] | Any) -> str:
    """The name of a raster: a path or URL, or that of an open rasterio dataset.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(scene, str | os.PathLike):
        return os.fsdecode(scene)
    name = getattr(scene, "name", None)
    if isinstance(name, str) and hasattr(scene, "read"):
        return name
    raise UsageError(
        f"{type(scene).__name__} is not a raster; give a path or an open rasterio dataset "
        "(arrays go to refine_array)"
    )


def _remote(name: str, scheme: str | None, allow_vrt: bool | None) -> RasterSource:
    plain, name, location = _plain(name), without_secrets(name), name
    if scheme is not None and scheme not in _SCHEMES:
        raise InputError(
            f"{name}: the scheme {scheme} is not supported; use one of {', '.join(_SCHEMES)}"
        )
    if plain.startswith(_REFUSED_VSI):
        raise InputError(f"{name}: not a file that can be read in any order; give a path")
    if host := internal_host(plain):
        raise InputError(f"{name}: {host} is a link-local or metadata address, which is never read")
    driver = "VRT" if allow_vrt and plain.lower().endswith(".vrt") else "GTiff"
    return RasterSource(
        name=name,
        location=location,
        driver=driver,
        remote=True,
        file_size=None,
        modified_ns=None,
    )


def _plain(name: str) -> str:
    """Decode a name as GDAL or libcurl may do.

    Both decode percent-encoding, and libcurl maps wide digits and full stops of other scripts to
    ASCII.
    """
    for _ in range(8):
        shorter = unquote(name)
        if shorter == name:
            break
        name = shorter
    return unicodedata.normalize("NFKC", name).replace("\N{IDEOGRAPHIC FULL STOP}", ".")


def _local(name: str, path: Path, allow_vrt: bool | None) -> RasterSource:
    status = require_file(name, path)
    driver = _driver_of(name, path, allow_vrt)
    _check_mask_file(name, path)
    return RasterSource(
        name=name,
        # Path.resolve() would follow links, but sidecar files lie beside the link.
        location=os.path.abspath(path),  # noqa: PTH100
        driver=driver,
        remote=False,
        file_size=status.st_size,
        modified_ns=status.st_mtime_ns,
    )


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF or BigTIFF does.

    Raises:
        InputError: it cannot be read.
    """
    return head_of(str(path), path).startswith(_TIFF_STARTS)


def _driver_of(name: str, path: Path, allow_vrt: bool | None) -> str:
    head = head_of(name, path)
    if head.startswith(_TIFF_STARTS):
        return "GTiff"
    if b"<VRTDataset" in head:
        if allow_vrt:
            return "VRT"
        advice = "add `allow_vrt=True` if you trust it"
        if allow_vrt is None:
            advice = "write a GeoTIFF of it with gdal_translate"
        raise InputError(f"{name}: is a VRT, which can point at any other file; {advice}")
    for start, kind in _OTHER_STARTS:
        if head.startswith(start):
            raise InputError(f"{name}: is {kind}, not a TIFF; convert it to GeoTIFF first")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{name}: is an HTML page, not a TIFF; download the file itself")
    raise InputError(f"{name}: is not a TIFF; give a GeoTIFF")


def _check_mask_file(name: str, path: Path) -> None:
    """Refuse a sidecar NAME.msk that is not a TIFF: GDAL would open it with any driver."""
    mask = path.with_name(path.name + ".msk")
    if is_file(mask) and not is_tiff(mask):
        raise InputError(f"{name}: the mask file {mask.name} beside it is not a TIFF; remove it")
