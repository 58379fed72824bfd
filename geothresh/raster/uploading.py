"""Files in object stores: whether one is there, and sending a finished file, whole or not at all.

GDAL sends (`geothresh.raster.objects`), and a store shows an object when it has all of it. So a
file of any size is sent under its own name, and what is there of that name is replaced in one step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import rasterio

from geothresh.addresses import Address
from geothresh.errors import InputError, OutputError
from geothresh.files import create_beside, discard, file_digest, publish
from geothresh.raster import objects
from geothresh.raster.gdal import (
    RASTER_ERRORS,
    filtered_warnings,
    gdal_environment,
    reason,
    with_retries,
)
from geothresh.raster.objects import StoreError, digest, fetch, files_in, put

Result = TypeVar("Result")

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
            with_retries(
                lambda: rasterio.open(address.location, driver="GTiff", sharing=False)
            ) as found,
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
    """Whether an object holds, byte for byte, what a local file holds.

    Raises:
        OutputError: it cannot be read.
    """
    return digest_of(address) == file_digest(file)


def digest_of(address: Address) -> str | None:
    """The sha256 of an object, None if it is not there; errors as `is_same`."""
    try:
        return in_thread(lambda: digest(address.location))
    except StoreError as error:
        raise OutputError(f"{address}: cannot be read back ({error})") from error


def names_in(address: Address) -> list[str]:
    """Last names of the objects directly in a directory of a store, sorted.

    Raises:
        InputError: the store does not list it.
    """
    try:
        return in_thread(lambda: files_in(address.location))
    except StoreError as error:
        raise InputError(
            f"{address}: cannot be listed ({error}); check bucket, network and credentials"
        ) from error


def fetch_file(address: Address, file: Path) -> bool:
    """Write what an object holds to a local file, atomically; False if it is not there.

    Raises:
        OutputError: it cannot be read, or the file cannot be written.
    """
    temporary = create_beside(file)
    try:
        found = in_thread(lambda: fetch(address.location, temporary))
        if found:
            publish(temporary, file)
        return found
    except StoreError as error:
        raise OutputError(f"{address}: cannot be read ({error})") from error
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror})") from error
    finally:
        discard(temporary)


def send(file: Path, address: Address, *, replace: bool) -> None:
    """Send a finished file, and read it back.

    Args:
        file: the local file.
        address: where it goes.
        replace: whether another object may be there.

    Raises:
        OutputError: another object is there, or the store did not take the file, in which case what
            was there is there still; or it holds other bytes than were sent.
    """
    if is_there(address):
        if is_same(address, file):
            return  # sent before, by a run that did not hear of it
        if not replace:
            raise OutputError(
                f"{address}: exists already; choose another name or add `overwrite=True`"
            )
    _LOGGER.info("sending %s to %s", file, address)
    try:
        in_thread(lambda: put(file, address.location))
    except StoreError as error:
        raise OutputError(f"{address}: could not be sent ({error})") from error
    except OSError as error:
        raise OutputError(f"{address}: {file} cannot be read ({error.strerror})") from error
    if not is_same(address, file):
        raise OutputError(
            f"{address}: the store took it, and does not hold what was sent; remove it there"
        )


def in_thread(work: Callable[[], Result]) -> Result:
    """Do what may take minutes in GDAL, during which Python answers no signal of its own thread.

    Who is interrupted leaves it behind, and it ends with the process.
    """
    results: list[Result] = []
    faults: list[BaseException] = []

    def done() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised where it is waited for
            faults.append(error)

    thread = threading.Thread(target=done, name="geothresh-object", daemon=True)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return results[0]


def remove(address: Address) -> None:
    """Remove an object, if it is there.

    Raises:
        OutputError: it cannot be removed.
    """
    if not is_there(address):
        return
    try:
        in_thread(lambda: objects.remove(address.location))
    except StoreError as error:
        raise OutputError(f"{address}: cannot be removed ({error})") from error
