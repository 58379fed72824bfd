"""Objects in stores as files of bytes: list, upload, read and remove them.

rasterio opens rasters and has no functions for other files. So GDAL's file functions
(``cpl_vsi.h``) are called with ``ctypes`` in the library that rasterio has loaded. They know the
stores and their credentials, retry, and obey `gdal_environment` as rasterio does.

Their behaviour when an upload fails was tested (GDAL 3.10.3; ``tests/raster/test_uploading.py``):
every failure is reported, and the old object stays. A store accepts a request completely or not at
all, and joins the parts of an upload only when it is told that all are there.
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
"""Bytes up to which a file is sent in one request. GDAL writes larger files to Azure as a blob that
grows, which other programs would see incomplete."""
PART = 50 * 2**20
"""Bytes of a part of a larger file; parts are larger where there would be too many."""
# S3 accepts this many parts of an object.
_MOST_PARTS = 10_000
_READ_AT_ONCE = 8 * 2**20
# Attempts at a request that gets no answer, and seconds before the second attempt.
_TRIES = 3
_DELAY = 0.5
# The error code in a store's answer, and the HTTP status in GDAL's messages.
_CODE = re.compile(r"<Code>(\w+)</Code>(?:\s*<Message>([^<]*)</Message>)?")
_STATUS = re.compile(r"(?:HTTP response code on \S+: |response_code=)(\d{3})")
_NOT_FOUND = ("NoSuchKey", "BlobNotFound", "HTTP 404")
_BUSY = (
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "ServerBusy", "HTTP 5",
)  # fmt: skip
# End of GDAL's debug line about a missing answer. GDAL then returns the entries listed so far,
# without an error.
_NO_ANSWER = ": (null)"


class StoreError(Exception):
    """A request to a store failed; the text is the answer of the store or of GDAL, in one line."""


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
"""GDAL's functions by name: type of the result, and types of the arguments."""


class _Entry(ctypes.Structure):
    """The beginning of GDAL's ``VSIDIREntry``."""

    _fields_ = [("name", _TEXT), ("mode", _NUMBER)]


@cache
def _gdal() -> Any:
    """The GDAL library that rasterio uses.

    It is found through a compiled module of rasterio: symbols are looked up in the libraries that
    the module is linked with, too.

    Raises:
        StoreError: a function is missing, as in GDAL before 3.10.
    """
    library = ctypes.CDLL(rasterio.shutil.__file__)
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
class _Messages:
    """GDAL's messages during a request to a store."""

    lines: list[str] = field(default_factory=list)

    def take(self, level: int, number: int, text: bytes | None) -> None:
        """Keep a message; called by GDAL."""
        self.lines.append((text or b"").decode(errors="replace"))

    @property
    def failed(self) -> bool:
        """Whether a request failed, including failures that GDAL does not report as errors."""
        return bool(self.answer) or any(line.endswith(_NO_ANSWER) for line in self.lines)

    @property
    def answer(self) -> str:
        """The last error that the store answered; empty if there was none."""
        for line in reversed(self.lines):
            answer = _CODE.search(line)
            if answer is not None:
                code, detail = answer[1], (answer[2] or "").strip()
                return code if detail in ("", code) else f"{code}: {detail}"
            status = _STATUS.search(line)
            if status is not None and int(status[1]) >= 300:
                return f"HTTP {status[1]}"
        return ""

    def error(self, what: str) -> StoreError:
        """The error to raise, with the store's answer or else GDAL's last message."""
        last = self.lines[-1] if self.lines else what
        text = self.answer or f"{last.removesuffix(_NO_ANSWER)}; no answer came"
        return StoreError(without_secrets(" ".join(text.split())))


@contextmanager
def _listening() -> Iterator[tuple[Any, _Messages]]:
    """Give GDAL's functions, and collect its messages, which are not printed."""
    messages = _Messages()
    handler = _Handler(messages.take)
    # GDAL gives the answers of a store only in debug messages.
    with gdal_environment(remote=True, sending=True), rasterio.Env(CPL_DEBUG="ON"):
        library = _gdal()
        library.CPLPushErrorHandler(handler)
        try:
            yield library, messages
        finally:
            library.CPLPopErrorHandler()


def _request(
    what: str, ask: Callable[[Any, _Messages], Result | None], *, while_busy: bool = False
) -> Result:
    """Make a request, and repeat it if no answer comes because the connection was cut.

    Args:
        what: name of the request, as a participle, for the error.
        ask: makes the request; takes GDAL's functions and messages, and returns None on failure.
        while_busy: also repeat it while the store is busy, where GDAL itself does not.

    Raises:
        StoreError: the request failed.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_DELAY * 2 ** (attempt - 1))
        with _listening() as (library, messages):
            result = ask(library, messages)
        if result is not None:
            return result
        if messages.answer and not (while_busy and messages.answer.startswith(_BUSY)):
            break
    raise messages.error(what)


def put(file: Path, location: str) -> None:
    """Send a file as an object. An old object of that name is replaced in one step or not at all.

    Args:
        file: the local file.
        location: GDAL's path of the object.

    Raises:
        StoreError: the upload failed.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    if size <= ONE_REQUEST:
        content = file.read_bytes()
        _request("sent", lambda gdal, _: _write(gdal, location.encode(), content))
        return
    part = max(PART, -(-size // _MOST_PARTS))
    name = location.encode()

    def start(gdal: Any, _: _Messages) -> bytes | None:
        return _copied_text(gdal, gdal.VSIMultipartUploadStart(name, None))

    upload = _request("begun", start)
    try:
        parts = list(_parts(file, name, upload, part))
        ids = (ctypes.c_char_p * len(parts))(*parts)

        def end(gdal: Any, _: _Messages) -> bool | None:
            return gdal.VSIMultipartUploadEnd(name, upload, len(parts), ids, size, None) or None

        _request("joined", end)
    except BaseException:
        with _listening() as (gdal, _):
            gdal.VSIMultipartUploadAbort(name, upload, None)
        raise


def _parts(file: Path, name: bytes, upload: bytes, size: int) -> Iterator[bytes]:
    """Send the parts of a file, one after another; gives the store's id of each."""
    with file.open("rb") as source:
        number = 0
        while content := source.read(size):
            number += 1
            offset = (number - 1) * size

            yield _request("sent", partial(_add, name, upload, number, offset, content))


def _add(
    name: bytes, upload: bytes, number: int, offset: int, content: bytes, gdal: Any, _: _Messages
) -> bytes | None:
    size = len(content)
    added = gdal.VSIMultipartUploadAddPart(name, upload, number, offset, content, size, None)
    return _copied_text(gdal, added)


def _copied_text(gdal: Any, pointer: int | None) -> bytes | None:
    """Copy a text that GDAL allocated, and free GDAL's."""
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
    """The sha256 of the content of an object; None if it does not exist.

    Raises:
        StoreError: it cannot be read.
    """
    sha256 = None

    def begin() -> Callable[[Any], None]:
        nonlocal sha256
        sha256 = hashlib.sha256()
        return sha256.update

    return sha256.hexdigest() if _read(location, begin) and sha256 is not None else None


def fetch(location: str, file: Path) -> bool:
    """Write the content of an object to a local file; False if the object does not exist.

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
    """Read an object; False if it does not exist.

    `begin` gives the function that takes the bytes. It is called again if reading starts again.
    """
    buffer = ctypes.create_string_buffer(_READ_AT_ONCE)

    def read(gdal: Any, messages: _Messages) -> str | None:
        handle = gdal.VSIFOpenL(location.encode(), b"rb")
        if not handle:
            return "none" if messages.answer.startswith(_NOT_FOUND) else None
        take = begin()
        try:
            while count := gdal.VSIFReadL(buffer, 1, _READ_AT_ONCE, handle):
                take(memoryview(buffer)[:count])
            return None if gdal.VSIFErrorL(handle) else "whole"
        finally:
            gdal.VSIFCloseL(handle)

    return _request("read", read) == "whole"


def version(location: str) -> str | None:
    """The ETag of an object, which identifies its present content; None if it does not exist.

    Raises:
        StoreError: the request failed.
    """

    def ask(gdal: Any, messages: _Messages) -> str | None:
        lines = gdal.VSIGetFileMetadata(location.encode(), b"HEADERS", None)
        if not lines:
            return "" if messages.answer.startswith(_NOT_FOUND) else None
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
    """Sorted names of the objects directly in a "directory" of a store; empty if it does not exist.

    Raises:
        StoreError: it cannot be listed completely.
    """
    return sorted(_request("listed", partial(_listed, location.encode()), while_busy=True))


def _listed(name: bytes, gdal: Any, messages: _Messages) -> list[str] | None:
    listing = gdal.VSIOpenDir(name, 0, None)
    if not listing:
        return None if messages.failed else []
    names = []
    try:
        while pointer := gdal.VSIGetNextDirEntry(listing):
            entry = ctypes.cast(pointer, ctypes.POINTER(_Entry)).contents
            if not stat.S_ISDIR(entry.mode):
                names.append(entry.name.decode())
    finally:
        gdal.VSICloseDir(listing)
    return None if messages.failed else names
