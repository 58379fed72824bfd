"""Check the path or URL of a raster: a TIFF, a VRT if allowed, or a remote file."""

from __future__ import annotations

import hashlib
import html
import ipaddress
import os
import re
import socket
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from geothresh.addresses import OBJECT_STORES, Address, without_secrets
from geothresh.errors import InputError, UsageError
from geothresh.files import head_of, is_file, require_file

# Names that GDAL does not take for the path of a file.
_SPECIAL = re.compile(r"\s*<|(GTIFF_DIR|GTIFF_RAW|MEM|VRT|DERIVED_SUBDATASET|vrt)\s*:", re.I)
_SCHEMES = ("https", "http", "s3", "gs", "az", "oss")
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_VSI = re.compile(r"^/vsi[a-z0-9_]+[/?]")
# Refused: pipes, and sparse files, which point at other files.
_REFUSED_VSI = ("/vsistdin", "/vsistdout", "/vsisparse")
_HOST = re.compile(r"(?:https?:/|ftp:/|/vsicurl\w*/|url=)(?=/*(?:[^/?#]*@)?([^/:?#&]+))", re.I)
# Metadata services, which give the credentials of a cloud machine to any request from inside it.
_METADATA_HOSTS = {
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
}
_METADATA_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
        "fd00:ec2::/32", "fd20:ce::/32",
    )
]  # fmt: skip
# IPv6 networks with an IPv4 address in the last 32 bits: mapped, compatible, translated by NAT64.
_V4_INSIDE = [ipaddress.ip_network(n) for n in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]

# Bytes at each end of a file that its digest is made of.
_ENDS = 2**16

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHER_STARTS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 or netCDF-4 file"),
    (b"CDF", "a netCDF file"),
    (b"EHFA_HEADER_TAG", "an ERDAS IMG file"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a git-lfs pointer: fetch the file itself with `git lfs pull`"),
    (b"SQLite format 3", "an SQLite database or GeoPackage"),
    (b"%PDF", "a PDF"),
)

# Most bytes of the XML of a VRT; mosaics of ten thousand scenes stay below it.
_MOST_BYTES = 64 * 2**20
# Most VRTs that a VRT names, directly or not; more are a mistake or an attack.
_MOST_VRTS = 1000
_RAW_BAND = re.compile(rb"VRTRawRasterBand", re.I)
_VRT_SOURCE = re.compile(rb"<SourceFilename([^>]*)>([^<]*)</SourceFilename>", re.I)
_RELATIVE = re.compile(rb"relativeToVRT\s*=\s*[\"']1[\"']", re.I)


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


def find_raster(scene: str | os.PathLike[str] | Any, *, allow_vrt: bool = False) -> RasterSource:
    """Check a path, a URL, or an open rasterio dataset, whose name is used.

    A `RasterSource` is returned unchanged.

    Raises:
        InputError: it is not a regular file, cannot be read, or is not a TIFF.
        UsageError: it is not a path, URL or open dataset.
    """
    if isinstance(scene, RasterSource):
        return scene
    name = scene if isinstance(scene, str) else _name_of(scene)
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


def _name_of(scene: Any) -> str:
    if isinstance(scene, os.PathLike):
        return os.fsdecode(scene)
    name = getattr(scene, "name", None)
    if isinstance(name, str) and hasattr(scene, "read"):
        return name
    raise UsageError(
        f"{type(scene).__name__} is not a raster; give a path or an open rasterio dataset "
        "(arrays go to refine_array)"
    )


def _remote(name: str, scheme: str | None, allow_vrt: bool) -> RasterSource:
    plain, name, location = _plain(name), without_secrets(name), name
    if scheme is not None and scheme not in _SCHEMES:
        raise InputError(
            f"{name}: the scheme {scheme} is not supported; use one of {', '.join(_SCHEMES)}"
        )
    if plain.startswith(_REFUSED_VSI):
        raise InputError(f"{name}: not a file that can be read in any order; give a path")
    for host in _possible_hosts(plain):
        if _is_internal(host):
            raise InputError(
                f"{name}: {host} is a link-local or metadata address, which is never read"
            )
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


def _possible_hosts(plain: str) -> Iterator[str]:
    """All parts of a remote name that libcurl might take for a host, and some more.

    libcurl accepts one to three slashes after the scheme, a missing scheme, and anything before the
    last @ as a user name. An exact parser would have to match every version of libcurl.
    """
    for part in re.split(r"[/\\?#&=@\s]+", plain):
        bracketed = re.fullmatch(r"\[([^\]]*)\](:\d*)?", part)
        host = bracketed.group(1) if bracketed else re.sub(r":\d*$", "", part)
        if _address(host) is not None:
            yield host
    # Host names count only where a host stands: a directory may be called metadata, too.
    for match in _HOST.finditer(plain):
        yield match.group(1)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address of a host, written in any form that C accepts; None for a name."""
    # Like libcurl, inet_aton also accepts 0xa9fea9fe, 2852039166 and 169.254.43518.
    with suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_internal(host: str) -> bool:
    """Whether a host is link-local or a metadata service, by address or name."""
    if host.lower().rstrip(".") in _METADATA_HOSTS:
        return True
    address = _address(host)
    if address is None:
        return False
    if address.version == 6 and any(address in network for network in _V4_INSIDE):
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.version == 6 and address.sixtofour is not None:
        address = address.sixtofour
    return address.is_link_local or any(address in network for network in _METADATA_NETWORKS)


def _local(name: str, path: Path, allow_vrt: bool) -> RasterSource:
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


def _driver_of(name: str, path: Path, allow_vrt: bool) -> str:
    head = head_of(name, path)
    if head.startswith(_TIFF_STARTS):
        return "GTiff"
    if b"<VRTDataset" in head:
        if allow_vrt:
            require_rasters(name, path)
            return "VRT"
        raise InputError(
            f"{name}: is a VRT, which can point at any other file; add `allow_vrt=True` if you "
            "trust it"
        )
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


def require_rasters(name: str, path: Path) -> None:
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
