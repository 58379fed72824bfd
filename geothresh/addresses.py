"""Addresses of remote files: URLs, and paths of GDAL's virtual file systems."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import UsageError

OBJECT_STORES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
"""URL schemes to which outputs may be written, and GDAL's virtual file system of each."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# A URL that was converted to a Path, which removes a slash.
_PATH_OF_URL = re.compile(r"(s3|gs|az|https?):/(?!/)")
# User and password in a URL, and the query of an address.
_USER = re.compile(r"(?<=://)[^/@\s'\"]*@")
_QUERY = re.compile(r"((?:://|/vsi)[^\s'\"?]*)\?[^\s'\"]*")
# Parameters of signed URLs of S3, Google and Azure, which change each time.
_SIGNING = re.compile(
    r"(X-Amz-|X-Goog-|AWSAccessKeyId=|GoogleAccessId=|Expires=|Signature=|Key-Pair-Id=|Policy=|"
    r"token=|access_token=|(sv|st|se|sr|sp|sip|spr|sig|ss|srt|skoid|sktid|skt|ske|sks|skv|sdd)=)",
    re.IGNORECASE,
)


def is_remote(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL or a path of GDAL's virtual file systems.

    Example:
        >>> is_remote("s3://bucket/scene.tif"), is_remote("/vsis3/bucket/scene.tif")
        (True, True)
    """
    text = os.fspath(name)
    return bool(_URL.match(text)) or text.startswith("/vsi")


def path_of(name: str | os.PathLike[str]) -> Path:
    """Convert a name to a Path; for an object it is GDAL's path, which loses no slash.

    Example:
        >>> path_of("s3://bucket/scene.tif")
        PosixPath('/vsis3/bucket/scene.tif')
    """
    return Path(Address.in_store(os.fspath(name)))


def lost_a_slash(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL that was converted to a Path, and not the path of a directory.

    Example:
        >>> lost_a_slash(Path("s3://bucket/scene.tif"))
        True
    """
    scheme, _, _ = os.fspath(name).partition("/")
    return bool(_PATH_OF_URL.match(os.fspath(name))) and not Path(scheme).is_dir()


def without_secrets(text: str) -> str:
    """Remove the secrets in addresses from a name or message: users, passwords and queries.

    Example:
        >>> without_secrets("https://me:word@host/x.tif?X-Amz-Signature=1f: HTTP 403")
        'https://host/x.tif?... HTTP 403'
    """
    return _QUERY.sub(r"\1?...", _USER.sub("", text))


def identity(location: str) -> str:
    """A text that identifies a remote file, whoever asks for it and when.

    User, password and signature are left out. Other parameters are replaced by a digest.

    Example:
        >>> identity("https://me@host/x.tif?X-Amz-Date=20260101&X-Amz-Signature=1f")
        'https://host/x.tif'
    """
    plain, _, query = _USER.sub("", location).partition("?")
    left = sorted(part for part in query.split("&") if part and not _SIGNING.match(part))
    digest = hashlib.sha256("&".join(left).encode()).hexdigest()[:16]
    return f"{plain}?{digest}" if left else plain


@dataclass(frozen=True, slots=True)
class Address:
    """The address of an object, or of a directory of objects, in an object store."""

    name: str
    """The address as the user wrote it, for messages."""
    location: str
    """GDAL's path, which is the same however the address was written: ``/vsis3/bucket/key``."""

    @classmethod
    def of(cls, output: str | os.PathLike[str], *, several: bool = False) -> Address | None:
        """The address of an output, or with `several` of a directory; None for a local path.

        Raises:
            UsageError: the output is neither a local file nor in an object store.

        Example:
            >>> Address.of("s3://bucket/mask.tif").location
            '/vsis3/bucket/mask.tif'
        """
        text = os.fspath(output)
        if lost_a_slash(text):
            raise UsageError(f"{text}: is a URL that lost a slash as a Path; give it as a text")
        if not is_remote(text):
            return None
        location = cls.in_store(text)
        store = next((root for root in OBJECT_STORES.values() if location.startswith(root)), None)
        if store is None:
            raise UsageError(
                f"{without_secrets(text)}: outputs are written to local files, s3://, gs:// and "
                "az://; choose one of them"
            )
        parts = location.removeprefix(store).rstrip("/" if several else "").split("/")
        least = 1 if several else 2
        odd = any(part in ("", ".", "..") for part in parts) or re.search(r"[?\0]", location)
        if odd or len(parts) < least:
            wanted = "BUCKET or BUCKET/NAME" if several else "BUCKET/NAME"
            raise UsageError(f"{without_secrets(text)}: is not {wanted}; name the output so")
        return cls(name=text.rstrip("/"), location=location.rstrip("/"))

    def is_at(self, location: str) -> bool:
        """Whether a URL or a path of GDAL is that of this object."""
        return self.in_store(location) == self.location

    @staticmethod
    def in_store(name: str) -> str:
        """Convert the URL of an object to GDAL's path; other names are returned unchanged."""
        url = _URL.match(name)
        if url is None or url[1].lower() not in OBJECT_STORES:
            return name
        return OBJECT_STORES[url[1].lower()] + name[url.end() :]

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.location.rpartition("/")[2]

    def beside(self, leaf: str) -> Address:
        """The address of another object in the same directory."""
        return Address(f"{self.name.rpartition('/')[0]}/{leaf}",
                       f"{self.location.rpartition('/')[0]}/{leaf}")  # fmt: skip

    def __truediv__(self, leaf: str) -> Address:
        return Address(f"{self.name}/{leaf}", f"{self.location}/{leaf}")

    def __str__(self) -> str:
        return self.name
