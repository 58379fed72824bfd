"""Files in object stores: check whether one exists, and upload a finished file completely.

GDAL uploads (`geothresh.raster.objects`), and a store shows an object only when it is complete. So
a file of any size is uploaded under its own name, and replaces an old object in one step.
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
# GDAL's error number for an object that does not exist in S3 (cpl_error.h), and its messages for
# other stores.
_NO_OBJECT = 13
_NOT_THERE = ("HTTP response code: 404", "does not exist in the file system")
# GDAL's message for an object that exists but is not a TIFF.
_NO_TIFF = "not recognized as being in a supported file format"


def is_there(address: Address) -> bool:
    """Whether an object of a name exists, a raster or anything else; raises like `unit_there`."""
    return unit_there(address) is not None


def unit_there(address: Address) -> str | None:
    """The id of the unit that made an object, from its tags (see `provenance.unit_of`).

    Returns:
        None if no object of that name exists; empty if it has no such tag or is not a raster.

    Raises:
        OutputError: the request failed.
    """
    try:
        with (
            gdal_environment(remote=True, sending=True), filtered_warnings(),
            with_retries(
                lambda: rasterio.open(address.location, driver="GTiff", sharing=False)
            ) as dataset,
        ):  # fmt: skip
            return str(dataset.tags().get("GEOTHRESH_UNIT", ""))
    except RASTER_ERRORS as error:
        message = reason(error)
        number = getattr(error.__context__, "errno", None)
        if number == _NO_OBJECT or message.startswith(_NOT_THERE) or _NOT_THERE[1] in message:
            return None
        if _NO_TIFF in message:
            return ""
        raise OutputError(
            f"{address}: cannot be looked at before it is written ({message}); check bucket, "
            "network and credentials"
        ) from error


def is_same(address: Address, file: Path) -> bool:
    """Whether an object and a local file hold the same bytes.

    Raises:
        OutputError: the object cannot be read.
    """
    return digest_of(address) == file_digest(file)


def digest_of(address: Address) -> str | None:
    """The sha256 of an object, None if it does not exist; raises like `is_same`."""
    try:
        return in_thread(lambda: digest(address.location))
    except StoreError as error:
        raise OutputError(
            f"{address}: cannot be read back ({error}); check network and credentials"
        ) from error


def names_in(address: Address) -> list[str]:
    """Sorted names, without their path, of the objects directly in a directory of a store.

    Raises:
        InputError: the directory cannot be listed.
    """
    try:
        return in_thread(lambda: files_in(address.location))
    except StoreError as error:
        raise InputError(
            f"{address}: cannot be listed ({error}); check bucket, network and credentials"
        ) from error


def fetch_file(address: Address, file: Path) -> bool:
    """Write the content of an object to a local file, atomically; False if it does not exist.

    Raises:
        OutputError: the object cannot be read, or the file cannot be written.
    """
    temporary = create_beside(file)
    try:
        found = in_thread(lambda: fetch(address.location, temporary))
        if found:
            publish(temporary, file)
        return found
    except StoreError as error:
        raise OutputError(
            f"{address}: cannot be read ({error}); check network and credentials"
        ) from error
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror})") from error
    finally:
        discard(temporary)


def send(file: Path, address: Address, *, replace: bool) -> None:
    """Upload a finished file, and read it back.

    Args:
        file: the local file.
        address: address of the object.
        replace: whether to replace another object of that name.

    Raises:
        OutputError: another object exists; or the upload failed, in which case an old object is
            kept; or the object holds other bytes than the file.
    """
    if is_there(address):
        if is_same(address, file):
            return  # uploaded before, by a run that was interrupted before the answer came
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
    """Run `work` in a thread and wait for it, so that signals are handled during long GDAL calls.

    If the caller is interrupted, the thread goes on until it is done or the process ends.
    """
    results: list[Result] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised below, in the calling thread
            faults.append(error)

    thread = threading.Thread(target=run, name="geothresh-object", daemon=True)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return results[0]


def remove(address: Address) -> None:
    """Remove an object if it exists.

    Raises:
        OutputError: it cannot be removed.
    """
    if not is_there(address):
        return
    try:
        in_thread(lambda: objects.remove(address.location))
    except StoreError as error:
        raise OutputError(
            f"{address}: cannot be removed ({error}); check network and credentials"
        ) from error
