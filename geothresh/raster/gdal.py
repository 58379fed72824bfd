"""The environment of every GDAL call: options, block cache, exceptions, and warning filters."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import getenv, hasenv
from rasterio.errors import CRSError, NodataShadowWarning, NotGeoreferencedWarning, RasterioError

from geothresh.addresses import without_secrets

Result = TypeVar("Result")

# Seconds to wait before each new attempt at a server that gave no answer.
_AGAIN_AFTER = (0.5, 1.0)

# rasterio lets GDAL's own exceptions through in places: an unparsable CRS, opening "w" over a
# damaged file. CRSError is no RasterioError, and metadata may not be UTF-8.
RASTER_ERRORS = (RasterioError, CPLE_BaseError, CRSError, UnicodeDecodeError)

# In bytes, because rasterio passes the number to GDALSetCacheMax64, while GDAL's own option of that
# name takes small numbers as megabytes. GDAL's default, 5 % of the memory, would delay writes until
# close, where failures are silent.
_CACHE_BYTES = 64 * 2**20

_OPTIONS: dict[str, str | float] = {
    # Look for sidecar files by name. Listing the directory for each of its thousands of files would
    # take as long as everything else.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_DRIVER_PATH": "disable",
    # Requests to a dead server end within half a minute: after three attempts to connect of eight
    # seconds each, or after ten seconds without a byte.
    "GDAL_HTTP_TIMEOUT": 30,
    "GDAL_HTTP_CONNECTTIMEOUT": 8,
    "GDAL_HTTP_MAX_RETRY": 2,
    # Seconds, doubled each time. With GDAL's default of 30, a busy server would delay a run for
    # minutes.
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    # A request ends, without another attempt, if no byte comes for this many seconds.
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "GDAL_HTTP_LOW_SPEED_TIME": 10,
    "PROJ_NETWORK": "OFF",
}

_OFFLINE_OPTIONS: dict[str, str | int] = {
    # The only file name that may be fetched. No file has it.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    # Stops drivers that fetch by themselves: .invalid never resolves (RFC 2606).
    "GDAL_HTTP_PROXY": "http://none.invalid",
    "GDAL_HTTP_MAX_RETRY": 0,
}

_REMOTE_OPTIONS: dict[str, str | int] = {
    # Do not list the directory of a remote file, nor look for sidecar files in it.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}

_WRITING_OPTIONS: dict[str, str | int] = {
    # Metadata that a TIFF cannot hold would go to a sidecar of the temporary name.
    "GDAL_PAM_ENABLED": "NO",
}

_SENDING_OPTIONS: dict[str, str | float] = {
    # A part of a large object has 50 MB, which takes minutes over a slow line. So an upload fails
    # only after a minute of silence: a store that joins the parts may be silent for a while.
    "GDAL_HTTP_TIMEOUT": 3600,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
    "GDAL_HTTP_MAX_RETRY": 5,
    # Read back from the store, not from GDAL's cache.
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3:/vsigs:/vsiaz",
    # Send one object, without a sidecar file.
    "GDAL_PAM_ENABLED": "NO",
}


@contextmanager
def gdal_environment(
    *,
    remote: bool = False,
    offline: bool = False,
    writing: bool = False,
    sending: bool = False,
    cache_bytes: int | None = None,
) -> Iterator[None]:
    """Set GDAL's options for opening, reading or writing: they limit cache, drivers and network.

    rasterio keeps the options per thread, so each use enters a block of its own. That takes 60
    microseconds, or 4 inside a block with the same options.

    Args:
        remote: the raster is not on a local disk.
        offline: the raster refers to other files, none of which may be fetched over a network.
        writing: the raster is written.
        sending: whole files are sent to an object store, or fetched from it.
        cache_bytes: size of the block cache, which all datasets of the process share; None = the
            size in the surrounding environment, or 64 MB.
    """
    around = getenv() if hasenv() else {}
    if cache_bytes is None:
        cache_bytes = around.get("GDAL_CACHEMAX", _CACHE_BYTES)
    options = _OPTIONS | {"GDAL_CACHEMAX": cache_bytes}
    if remote:
        options |= _REMOTE_OPTIONS
    if offline:
        options |= _OFFLINE_OPTIONS
    if writing:
        options |= _WRITING_OPTIONS
    if sending:
        options |= _SENDING_OPTIONS
    if options.items() <= around.items():
        yield
        return
    with rasterio.Env(**options):
        yield


def with_retries(work: Callable[[], Result]) -> Result:
    """Open a raster on a server; try again if the connection was cut without an answer.

    GDAL itself tries again if a server is busy, but not if no answer comes.
    """
    for seconds in _AGAIN_AFTER:
        try:
            return work()
        except RASTER_ERRORS as error:
            if not reason(error).startswith("CURL error"):
                raise
            time.sleep(seconds)
    return work()


def reason(error: BaseException) -> str:
    """GDAL's message in one line, without passwords and signatures of URLs.

    It is taken from the cause that rasterio chained to its exception, if there is one.
    """
    cause = error
    while isinstance(cause.__cause__, RASTER_ERRORS):
        cause = cause.__cause__
    return without_secrets(" ".join(str(cause).split())) or type(cause).__name__


# Warnings that are ignored or turned into errors.
_wanted: list[tuple[Literal["ignore", "error"], type[Warning]]] = [
    ("ignore", NotGeoreferencedWarning),
    ("ignore", NodataShadowWarning),
]
_lock = threading.Lock()
_inside = 0
_filters = warnings.catch_warnings()


def make_error(category: type[Warning]) -> None:
    """Turn a warning into an error inside `filtered_warnings`, from its next start on."""
    _wanted.append(("error", category))


@contextmanager
def filtered_warnings() -> Iterator[None]:
    """Silence rasterio's warnings, and turn those of `make_error` into errors.

    Warning filters are global to the process. If each thread installed and restored them by itself,
    some would stay for good. So the first thread that enters installs them, and the last one that
    leaves restores those of the caller.
    """
    global _inside, _filters
    with _lock:
        if not _inside:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            for action, category in _wanted:
                warnings.simplefilter(action, category)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _filters.__exit__(None, None, None)
