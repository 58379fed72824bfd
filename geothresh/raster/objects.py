"""Objects in stores as files of bytes: listed, sent whole, read, removed.

rasterio opens rasters, and has no functions for other files. So the library that it has loaded is
asked, by ``ctypes``, for GDAL's own functions on files (``cpl_vsi.h``): they know the stores and
their credentials, try again, and keep to `gdal_environment` as rasterio does.

What they do when sending fails was measured (GDAL 3.10.3; the cases are those of
``tests/raster/test_uploading.py``): they tell of every failure, and what was there before stays,
for a store takes a whole request or none, and joins parts when it is told that they are all there.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import rasterio
import rasterio.shutil

from geothresh.addresses import without_secrets
from geothresh.raster.gdal import gdal_environment

Result = TypeVar("Result")

ONE_REQUEST = 4 * 2**20
"""Bytes up to which a file is sent in one request; GDAL sends more than that to Azure as a blob
that grows, which others would see."""
PART = 50 * 2**20
"""Bytes of each part of a larger file, unless these were more than a store takes."""
# S3 takes so many parts of an object.
_MOST_PARTS = 10_000
_READ_AT_ONCE = 8 * 2**20
# How often a request is made that got no answer, and seconds before the second time.
_TRIES = 3
_DELAY = 0.5
# What a store says in its answer, and what GDAL says of a status.
_CODE = re.compile(r"<Code>(\w+)</Code>(?:\s*<Message>([^<]*)</Message>)?")
_STATUS = re.compile(r"(?:HTTP response code on \S+: |response_code=)(\d{3})")
_NOT_FOUND = ("NoSuchKey", "BlobNotFound", "HTTP 404")
_BUSY = (
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "ServerBusy", "HTTP 5",
)  # fmt: skip
# GDAL's debug line for an answer that did not come: it lists what came before, and returns.
_NO_ANSWER = ": (null)"


class StoreError(Exception):
    """What a store, or GDAL, says of a request that failed, in one line."""


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
_HANDLE, _TEXT, _SIZE, _NUMBER = (
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int,
)  # fmt: skip
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "CPLPushErrorHandler": (None, [_Handler]),
    "CPLPopErrorHandler": (None, []),
    "VSIFree": (None, [_HANDLE]),
    "VSIFOpenL": (_HANDLE, [_TEXT, _TEXT]),
    "VSIFReadL": (_SIZE, [_HANDLE, _SIZE, _SIZE, _HANDLE]),
    "VSIFWriteL": (_SIZE, [_TEXT, _SIZE, _SIZE, _HANDLE]),
    "VSIFErrorL": (_NUMBER, [_HANDLE]),
    "VSIFCloseL": (_NUMBER, [_HANDLE]),
    "VSIUnlink": (_NUMBER, [_TEXT]),
    "VSIOpenDir": (_HANDLE, [_TEXT, _NUMBER, _HANDLE]),
    "VSIGetNextDirEntry": (_HANDLE, [_HANDLE]),
    "VSICloseDir": (None, [_HANDLE]),
    "VSIGetFileMetadata": (ctypes.POINTER(_TEXT), [_TEXT, _TEXT, _HANDLE]),
    "CSLDestroy": (None, [ctypes.POINTER(_TEXT)]),
    "VSIMultipartUploadStart": (_HANDLE, [_TEXT, _HANDLE]),
    "VSIMultipartUploadAddPart": (
        _HANDLE, [_TEXT, _TEXT, _NUMBER, ctypes.c_uint64, _TEXT, _SIZE, _HANDLE],
    ),
    "VSIMultipartUploadEnd": (
        _NUMBER, [_TEXT, _TEXT, _SIZE, ctypes.POINTER(_TEXT), ctypes.c_uint64, _HANDLE],
    ),
    "VSIMultipartUploadAbort": (_NUMBER, [_TEXT, _TEXT, _HANDLE]),
}  # fmt: skip
"""Of the functions that are called: the type of the result, and those of the arguments."""


class _Entry(ctypes.Structure):
    """The beginning of GDAL's ``VSIDIREntry``."""

    _fields_ = [("name", _TEXT), ("mode", _NUMBER)]


@cache
def _gdal() -> Any:
    """The GDAL that rasterio uses: a name is looked for in what its module was linked with, too.

    Raises:
        StoreError: a function is not there, in a GDAL before 3.10.
    """
    library = ctypes.CDLL(rasterio.shutil.__file__)  # compiled, and linked with GDAL
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise StoreError(
                f"rasterio's GDAL {rasterio.__gdal_version__} has no {name}; install the rasterio "
                "of PyPI, or one with GDAL 3.10 or later"
            ) from error
        function.restype, function.argtypes = result, arguments
    return library


@dataclass(slots=True)
class _Told:
    """What GDAL says while it works for a store."""

    lines: list[str] = field(default_factory=list)

    def take(self, level: int, number: int, text: bytes | None) -> None:
        self.lines.append((text or b"").decode(errors="replace"))

    @property
    def failed(self) -> bool:
        """Whether a request failed, also one that GDAL passes over in silence."""
        return bool(self.answer) or any(line.endswith(_NO_ANSWER) for line in self.lines)

    @property
    def answer(self) -> str:
        """The store's last answer that was an error; empty where it gave none."""
        for line in reversed(self.lines):
            found = _CODE.search(line)
            if found is not None:
                code, detail = found[1], (found[2] or "").strip()
                return code if detail in ("", code) else f"{code}: {detail}"
            status = _STATUS.search(line)
            if status is not None and int(status[1]) >= 300:
                return f"HTTP {status[1]}"
        return ""

    def error(self, what: str) -> StoreError:
        """An error with the answer, or with GDAL's last word."""
        last = self.lines[-1] if self.lines else what
        text = self.answer or f"{last.removesuffix(_NO_ANSWER)}; no answer came"
        return StoreError(without_secrets(" ".join(text.split())))


@contextmanager
def _listening() -> Iterator[tuple[Any, _Told]]:
    """GDAL's functions, and what it says meanwhile, which nobody else hears."""
    told = _Told()
    handler = _Handler(told.take)
    # What a store answered, GDAL tells those who look for its faults.
    with gdal_environment(remote=True, sending=True), rasterio.Env(CPL_DEBUG="ON"):
        library = _gdal()
        library.CPLPushErrorHandler(handler)
        try:
            yield library, told
        finally:
            library.CPLPopErrorHandler()


def _request(
    what: str, ask: Callable[[Any, _Told], Result | None], *, while_busy: bool = False
) -> Result:
    """Ask until there is an answer: a connection that was cut is tried again.

    Args:
        what: is done, for the error.
        ask: takes GDAL's functions, and what it tells; returns None where it failed.
        while_busy: also where the store is busy, after which GDAL does not try all again.

    Raises:
        StoreError: it failed.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_DELAY * 2 ** (attempt - 1))
        with _listening() as (library, told):
            result = ask(library, told)
        if result is not None:
            return result
        if told.answer and not (while_busy and told.answer.startswith(_BUSY)):
            break
    raise told.error(what)


def put(file: Path, location: str) -> None:
    """Send a file as an object, which replaces one that is there in one step, or not at all.

    Args:
        file: the local file.
        location: GDAL's path of the object.

    Raises:
        StoreError: the store did not take it.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    if size <= ONE_REQUEST:
        content = file.read_bytes()
        _request("sent", lambda gdal, _: _write(gdal, location.encode(), content))
        return
    part = max(PART, -(-size // _MOST_PARTS))
    name = location.encode()

    def start(gdal: Any, _: _Told) -> bytes | None:
        return _taken(gdal, gdal.VSIMultipartUploadStart(name, None))

    upload = _request("begun", start)
    try:
        parts = list(_parts(file, name, upload, part))
        ids = (ctypes.c_char_p * len(parts))(*parts)

        def end(gdal: Any, _: _Told) -> bool | None:
            return gdal.VSIMultipartUploadEnd(name, upload, len(parts), ids, size, None) or None

        _request("joined", end)
    except BaseException:
        with _listening() as (gdal, _):
            gdal.VSIMultipartUploadAbort(name, upload, None)
        raise


def _parts(file: Path, name: bytes, upload: bytes, size: int) -> Iterator[bytes]:
    """Send the parts of a file, one after another; gives what the store calls each."""
    with file.open("rb") as source:
        number = 0
        while content := source.read(size):
            number += 1
            offset = (number - 1) * size

            yield _request("sent", partial(_add, name, upload, number, offset, content))


def _add(
    name: bytes, upload: bytes, number: int, offset: int, content: bytes, gdal: Any, _: _Told
) -> bytes | None:
    size = len(content)
    added = gdal.VSIMultipartUploadAddPart(name, upload, number, offset, content, size, None)
    return _taken(gdal, added)


def _taken(gdal: Any, pointer: int | None) -> bytes | None:
    """A text that GDAL made, which it forgets."""
    if not pointer:
        return None
    text = ctypes.string_at(pointer)
    gdal.VSIFree(pointer)
    return text


def _write(gdal: Any, name: bytes, content: bytes) -> bool | None:
    handle = gdal.VSIFOpenL(name, b"wb")
    if not handle:
        return None
    written = gdal.VSIFWriteL(content, 1, len(content), handle)
    closed = gdal.VSIFCloseL(handle)  # the request is made here
    return True if closed == 0 and written == len(content) else None


def digest(location: str) -> str | None:
    """The sha256 of an object, read from its first to its last byte; None if it is not there.

    Raises:
        StoreError: it cannot be read.
    """
    found = None

    def begin() -> Callable[[Any], None]:
        nonlocal found
        found = hashlib.sha256()
        return found.update

    return found.hexdigest() if _read(location, begin) and found is not None else None


def fetch(location: str, file: Path) -> bool:
    """Write what an object holds to a local file; False if it is not there.

    Raises:
        StoreError: it cannot be read.
        OSError: the file cannot be written.
    """
    with file.open("wb") as target:

        def begin() -> Callable[[Any], object]:
            target.seek(0)
            target.truncate()
            return target.write

        return _read(location, begin)


def _read(location: str, begin: Callable[[], Callable[[Any], object]]) -> bool:
    """Read an object; `begin` is called before its first byte, perhaps again, for what takes it."""
    buffer = ctypes.create_string_buffer(_READ_AT_ONCE)

    def read(gdal: Any, told: _Told) -> str | None:
        handle = gdal.VSIFOpenL(location.encode(), b"rb")
        if not handle:
            return "none" if told.answer.startswith(_NOT_FOUND) else None
        take = begin()
        try:
            while count := gdal.VSIFReadL(buffer, 1, _READ_AT_ONCE, handle):
                take(memoryview(buffer)[:count])
            return None if gdal.VSIFErrorL(handle) else "whole"
        finally:
            gdal.VSIFCloseL(handle)

    return _request("read", read) == "whole"


def version(location: str) -> str | None:
    """What a store calls the present content of an object (its ETag); None if it is not there.

    Raises:
        StoreError: it does not tell.
    """

    def ask(gdal: Any, told: _Told) -> str | None:
        lines = gdal.VSIGetFileMetadata(location.encode(), b"HEADERS", None)
        if not lines:
            return "" if told.answer.startswith(_NOT_FOUND) else None
        try:
            headers = dict(line.decode().partition("=")[::2] for line in takewhile(bool, lines))
        finally:
            gdal.CSLDestroy(lines)
        return next((text for name, text in headers.items() if name.lower() == "etag"), None)

    return _request("looked at", ask) or None


def remove(location: str) -> None:
    """Remove an object that is there.

    Raises:
        StoreError: it cannot be removed.
    """
    name = location.encode()
    _request("removed", lambda gdal, _: True if gdal.VSIUnlink(name) == 0 else None)


def files_in(location: str) -> list[str]:
    """Sorted names of the objects directly in a "directory" of a store; none if it is not there.

    Raises:
        StoreError: it cannot be listed to its end.
    """
    return sorted(_request("listed", partial(_listed, location.encode()), while_busy=True))


def _listed(name: bytes, gdal: Any, told: _Told) -> list[str] | None:
    listing = gdal.VSIOpenDir(name, 0, None)
    if not listing:
        return None if told.failed else []
    names = []
    try:
        while pointer := gdal.VSIGetNextDirEntry(listing):
            entry = ctypes.cast(pointer, ctypes.POINTER(_Entry)).contents
            if not stat.S_ISDIR(entry.mode):
                names.append(entry.name.decode())
    finally:
        gdal.VSICloseDir(listing)
    return None if told.failed else names
