"""Rasters in object stores: whether one is there, and sending a finished file, whole or not at all.

GDAL sends, by rasterio: its file systems know the stores, their credentials and how to try again.
What it does when sending fails was measured (rasterio 1.4.4, GDAL 3.10.3; the cases are those of
``tests/raster/test_uploading.py``): it tells of every failure, never leaves a part of an object,
and deletes the object of that name, an old one too. So what replaces an object is sent under
another name, read back, and copied within the store, which leaves the old object where it fails.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import rasterio
import rasterio.shutil

from geothresh.addresses import Address
from geothresh.errors import OutputError
from geothresh.files import create_beside, discard, file_digest
from geothresh.raster.gdal import RASTER_ERRORS, filtered_warnings, gdal_environment, reason

_LOGGER = logging.getLogger(__name__)
# GDAL's number of the error that an object of S3 is not there (cpl_error.h), and what it says of
# other stores.
_NO_OBJECT = 13
_NOT_THERE = ("HTTP response code: 404", "does not exist in the file system")
# What it says of an object that is there, and no TIFF.
_NO_TIFF = "not recognized as being in a supported file format"


def is_there(address: Address) -> bool:
    """Whether there is an object of a name, a raster or anything else; errors as `unit_there`."""
    return unit_there(address) is not None


def unit_there(address: Address) -> str | None:
    """The unit of a run over many files that an object says it is, as `provenance.unit_of` tells.

    Returns:
        None if there is no object of that name; empty if it says nothing, or is no raster.

    Raises:
        OutputError: the store does not tell.
    """
    try:
        with (
            gdal_environment(remote=True, sending=True), filtered_warnings(),
            rasterio.open(address.location, driver="GTiff", sharing=False) as found,
        ):  # fmt: skip
            return str(found.tags().get("GEOTHRESH_UNIT", ""))
    except RASTER_ERRORS as error:
        told = reason(error)
        number = getattr(error.__context__, "errno", None)
        if number == _NO_OBJECT or told.startswith(_NOT_THERE) or _NOT_THERE[1] in told:
            return None
        if _NO_TIFF in told:
            return ""
        raise OutputError(
            f"{address}: cannot be looked at before it is written ({told}); check bucket, network "
            "and credentials"
        ) from error


def is_same(address: Address, file: Path) -> bool:
    """Whether an object holds, byte for byte, what a local TIFF holds.

    Args:
        address: of an object, which is read from its first to its last byte.
        file: beside which there is room for as much again.

    Raises:
        OutputError: it cannot be read.
    """
    fetched = create_beside(file)
    try:
        _copy(address.location, str(fetched))
        return file_digest(fetched) == file_digest(file)
    except RASTER_ERRORS as error:
        if _NO_TIFF in reason(error):
            return False
        raise OutputError(f"{address}: cannot be read back ({reason(error)})") from error
    finally:
        discard(fetched)


def send(file: Path, address: Address, *, replace: bool) -> None:
    """Send a finished TIFF, and read it back.

    Args:
        file: the local file.
        address: where it goes.
        replace: whether another object may be there.

    Raises:
        OutputError: another object is there, or the store did not take the file, or holds other
            bytes than were sent. What was there is there still.
    """
    there = is_there(address)
    if there:
        if is_same(address, file):
            return  # sent before, by a run that did not hear of it
        if not replace:
            raise OutputError(
                f"{address}: exists already; choose another name or add `overwrite=True`"
            )
    first = address.beside(f".{address.leaf}.geothresh") if there else address
    _LOGGER.info("sending %s to %s", file, first)
    try:
        _copy(str(file), first.location)
        _require_same(first, file)
        if there:
            _copy(first.location, address.location)
            _require_same(address, file)
    except (*RASTER_ERRORS, OutputError) as error:
        # Nobody who is interrupted waits for it: the next run takes the same name.
        if there:
            _clear(first)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{address}: could not be sent ({reason(error)})") from error
    if there:
        _clear(first)


def _require_same(address: Address, file: Path) -> None:
    if not is_there(address) or not is_same(address, file):
        raise OutputError(
            f"{address}: the store took it, and does not hold what was sent; remove it there"
        )


def _copy(source: str, target: str) -> None:
    """Copy a TIFF, byte for byte; errors are GDAL's own.

    In a thread, for Python answers no signal while GDAL sends, which may take minutes; who is
    interrupted leaves it behind, and it ends with the process.
    """
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with gdal_environment(remote=True, sending=True), filtered_warnings():
                rasterio.shutil.copyfiles(source, target)
        except BaseException as error:  # raised where it is waited for
            faults.append(error)

    copying = threading.Thread(target=work, name="geothresh-copy", daemon=True)
    copying.start()
    copying.join()
    if faults:
        raise faults[0]


def remove(address: Address) -> None:
    """Remove a raster, if it is there.

    Raises:
        OutputError: it cannot be removed.
    """
    if not is_there(address):
        return
    try:
        with gdal_environment(remote=True, sending=True), filtered_warnings():
            rasterio.shutil.delete(address.location, driver="GTiff")
    except RASTER_ERRORS as error:
        raise OutputError(f"{address}: cannot be removed ({reason(error)})") from error


def _clear(address: Address) -> None:
    """Remove an object that was needed for a while."""
    try:
        remove(address)
    except OutputError as error:
        # It harms nobody.
        _LOGGER.warning("%s: is left behind (%s); remove it", address, error)
