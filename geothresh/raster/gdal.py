"""The environment of every GDAL call: options, the cache, its errors, and filters of warnings."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import getenv, hasenv
from rasterio.errors import CRSError, NodataShadowWarning, NotGeoreferencedWarning, RasterioError

# rasterio lets GDAL's own exceptions through in places: an unparsable CRS, opening "w" over a
# damaged file. CRSError is a ValueError of its own, and so is metadata that is no UTF-8.
RASTER_ERRORS = (RasterioError, CPLE_BaseError, CRSError, UnicodeDecodeError)

# Bytes: rasterio hands the number to GDALSetCacheMax64, where GDAL's own option of that name would
# take 64 for megabytes. GDAL's default is 5 % of the machine's memory, and what is written late
# hides until close, where failures are silent.
_CACHE_BYTES = 64 * 2**20

_OPTIONS: dict[str, str | float] = {
    # Files beside a raster are looked for by their names. Else the directory is listed for each of
    # the thousands of files that it may hold, which takes as long as all the rest.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_DRIVER_PATH": "disable",
    # A dead server is told within half a minute: three trials to connect of eight seconds each, or
    # ten seconds of silence.
    "GDAL_HTTP_TIMEOUT": 30,
    "GDAL_HTTP_CONNECTTIMEOUT": 8,
    "GDAL_HTTP_MAX_RETRY": 2,
    # Seconds, doubled each time: GDAL's own 30 let a server that is busy hold a run for minutes.
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    # A server that has not sent a byte for so many seconds is given up, without another try.
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "GDAL_HTTP_LOW_SPEED_TIME": 10,
    "PROJ_NETWORK": "OFF",
}

_OFFLINE_OPTIONS: dict[str, str | int] = {
    # The only file that may be fetched, and none is called so.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    # For drivers that fetch by themselves; no name ends so (RFC 2606).
    "GDAL_HTTP_PROXY": "http://none.invalid",
    "GDAL_HTTP_MAX_RETRY": 0,
}

_REMOTE_OPTIONS: dict[str, str | int] = {
    # Do not list the directory of a remote file, nor look for side files in it.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}

_WRITING_OPTIONS: dict[str, str | int] = {
    # What a TIFF cannot hold would go to a side file, named after the temporary name.
    "GDAL_PAM_ENABLED": "NO",
}


@contextmanager
def gdal_environment(
    *,
    remote: bool = False,
    offline: bool = False,
    writing: bool = False,
    cache_bytes: int | None = None,
) -> Iterator[None]:
    """Open, read or write inside this block: GDAL's cache, drivers and network are bounded.

    rasterio keeps the options per thread, so that each use enters its own block in whatever thread
    or process it runs; that takes 60 microseconds, or 4 inside a block with the same options.

    Args:
        remote: what is read is not on a local disk.
        offline: what is read names other files, of which none is to be fetched over a network.
        writing: what is opened is written.
        cache_bytes: of the cache of blocks, which all datasets of the process share. Left out, it
            is that of the block around this one, or 64 MB.
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
    if options.items() <= around.items():
        yield
        return
    with rasterio.Env(**options):
        yield


def reason(error: BaseException) -> str:
    """What GDAL said, in one line: the cause that rasterio chained to its exception, or itself."""
    cause = error
    while isinstance(cause.__cause__, RASTER_ERRORS):
        cause = cause.__cause__
    return " ".join(str(cause).split()) or type(cause).__name__


# What becomes of which warning.
_wanted: list[tuple[Literal["ignore", "error"], type[Warning]]] = [
    ("ignore", NotGeoreferencedWarning),
    ("ignore", NodataShadowWarning),
]
_lock = threading.Lock()
_inside = 0
_filters = warnings.catch_warnings()


def make_error(category: type[Warning]) -> None:
    """Make an exception of a warning inside `filtered_warnings`, from its next start on."""
    _wanted.append(("error", category))


@contextmanager
def filtered_warnings() -> Iterator[None]:
    """Silence rasterio's own warnings, and make exceptions of those that `make_error` was told.

    Filters of warnings belong to the process. Threads that each put theirs in force and the former
    ones back would leave some for good; here the first thread to come puts them in force, and the
    last one to leave puts the caller's back.
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
