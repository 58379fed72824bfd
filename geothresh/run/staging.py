"""Stage outputs for object stores: make them in local directories, and upload them when finished.

Each output has a directory of its own, named after its address, so that the same command finds it
again. It holds the finished file and the work directory of an interrupted run, until the store has
the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from geothresh.addresses import Address
from geothresh.errors import GeothreshError, OutputError, UsageError
from geothresh.files import create_beside, discard, make_directory, remove_stale
from geothresh.options import Outputs, PathLike
from geothresh.raster.paths import RasterSource
from geothresh.raster.uploading import is_there, send
from geothresh.run.outputs import OutputFiles

WORK = "GEOTHRESH_WORK"
"""The environment variable with the parent of the directories of all outputs."""
# Most bytes of a directory's name before the digest.
_MOST_BYTES = 60


def work_home() -> Path:
    """The parent of the directories: that of the variable `WORK`, or one in the user's cache."""
    chosen = os.environ.get(WORK)
    if chosen:
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    # https://specifications.freedesktop.org/basedir-spec: a relative path is to be ignored.
    if cache and Path(cache).is_absolute():
        return Path(cache) / "geothresh"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "geothresh"
    return Path.home() / ".cache" / "geothresh"


def work_directory_of(address: Address) -> Path:
    """The local directory for an output, or for a directory of outputs; it may not exist yet."""
    digest = hashlib.sha256(address.location.encode()).hexdigest()[:16]
    start = address.leaf.encode()[:_MOST_BYTES].decode(errors="ignore")
    return work_home() / f"{start}-{digest}"


def require_one_file(output: Address) -> None:
    """Refuse an output of several files, because objects appear one by one.

    Raises:
        UsageError: the output is a shapefile.
    """
    if output.leaf.lower().endswith(".shp"):
        raise UsageError(
            f"{output}: a shapefile is several files, which do not appear at once in an object "
            "store; write a .gpkg, .fgb or .parquet"
        )


def send_finished(local: Path, address: Address, *, replace: bool) -> None:
    """Upload a finished file, see `send`.

    Raises:
        OutputError: the upload failed; the message says where the file is kept.
    """
    try:
        send(local, address, replace=replace)
    except OutputError as error:
        raise OutputError(f"{error}; finished, and kept here as {local}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """The local files of a run's outputs, and the addresses to which some are uploaded."""

    mask: Path
    """Local file of the mask."""
    outputs: Outputs
    """Local files of the other outputs."""
    addresses: Mapping[Path, Address] = field(default_factory=dict)
    """Address of each uploaded output, by local file."""

    @classmethod
    def of(cls, mask: PathLike, outputs: Outputs) -> Staging:
        """Find which outputs are uploaded, and their local files; nothing is created yet.

        Raises:
            UsageError: an output would be several objects, or two have the same address.
        """
        addresses: dict[Path, Address] = {}

        def local_file(output: PathLike) -> Path:
            address = Address.of(output)
            if address is None:
                return Path(os.fspath(output))
            require_one_file(address)
            local = work_directory_of(address) / address.leaf
            if local in addresses:
                raise UsageError(f"{address}: two outputs have this name; give each its own")
            addresses[local] = address
            return local

        first = local_file(mask)
        others = {name: None if path is None else local_file(path)
                  for name, path in asdict(outputs).items()}  # fmt: skip
        return cls(mask=first, outputs=Outputs(**others), addresses=addresses)

    @contextmanager
    def ready(
        self, source: RasterSource, *, overwrite: bool, finished: Iterable[Path]
    ) -> Iterator[None]:
        """Check before any work whether outputs may be uploaded, and create their directories.

        If the block ends without an exception, everything was uploaded, and the directories are
        removed.

        Args:
            source: the scene.
            overwrite: whether the objects may exist.
            finished: local files that an interrupted run has made. Their objects may exist: they
                are compared when the files are uploaded.

        Raises:
            UsageError: an output is the scene.
            OutputError: an object exists and `overwrite` is False; or the request failed, or a
                directory cannot be created.
        """
        resumed = set(finished)
        for local, address in self.addresses.items():
            if address.is_at(source.location):
                raise UsageError(
                    f"{address}: the output is the input {source.name}; name another object"
                )
            _require_free(address, overwrite=overwrite or local in resumed)
        for local in self.addresses:
            make_directory(local.parent, parents=True)
        try:
            yield
        except BaseException:
            for local in self.addresses:
                with suppress(OSError):  # not empty: the same command resumes from it
                    local.parent.rmdir()
            raise
        for local in self.addresses:
            shutil.rmtree(local.parent, ignore_errors=True)

    def send(self, *, overwrite: bool) -> None:
        """Upload all outputs.

        Raises:
            OutputError: an upload failed; the file is kept on this machine.
        """
        for local, address in self.addresses.items():
            send_finished(local, address, replace=overwrite)

    def named(self, files: OutputFiles) -> dict[str, Any]:
        """The outputs by field: the address of uploaded ones, the path of others."""
        return {name: self.addresses[path].name if path in self.addresses else path
                for name, path in asdict(files).items()}  # fmt: skip


def _require_free(address: Address, *, overwrite: bool) -> None:
    # Asked in any case: so a store that cannot be reached is found before any work.
    if is_there(address) and not overwrite:
        raise OutputError(f"{address}: exists already; choose another name or add `overwrite=True`")


@contextmanager
def staged(output: PathLike, *, overwrite: bool, inputs: Iterable[str] = ()) -> Iterator[Path]:
    """Stage an output that is written in a single step.

    Args:
        output: a local file, or an object.
        overwrite: whether the object may exist.
        inputs: GDAL's paths of the inputs, none of which may be the object.

    Yields:
        The local file to write: the output itself, or a temporary file that does not exist yet. The
        temporary file is uploaded if the block ends without an exception, and always removed.

    Raises:
        UsageError: the output is an input, or would be several objects.
        OutputError: the object exists and `overwrite` is False, or the upload failed.
    """
    address = Address.of(output)
    if address is None:
        yield Path(os.fspath(output))
        return
    require_one_file(address)
    if any(address.is_at(location) for location in inputs):
        raise UsageError(f"{address}: the output is an input; name another")
    _require_free(address, overwrite=overwrite)
    home = work_directory_of(address)
    make_directory(home, parents=True)
    remove_stale(home)
    temporary = create_beside(home / address.leaf)
    # It has the name of the output, which determines the format.
    local = temporary.with_name(address.leaf)
    try:
        yield local
        if local.exists():
            send(local, address, replace=True)
    except GeothreshError as error:
        if str(local) not in str(error):
            raise
        raise type(error)(str(error).replace(str(local), address.name)) from error
    finally:
        discard(temporary)
        with suppress(OSError):  # not empty
            home.rmdir()
