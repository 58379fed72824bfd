"""Outputs in object stores: made on this machine, in a directory that the same command finds again.

Each has a directory of its own there, named after its address. In it lie the finished file and all
that an interrupted run goes on from, as beside an output on this machine, until the store has it.
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
"""The environment variable that names the directory in which those of all outputs are."""
# Of the name of a directory, beside the digest.
_MOST_CHARACTERS = 60


def work_home() -> Path:
    """Where the directories are: in that of `WORK`, or in this user's cache."""
    chosen = os.environ.get(WORK)
    if chosen:
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache:
        return Path(cache) / "geothresh"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "geothresh"
    return Path.home() / ".cache" / "geothresh"


def work_place(address: Address) -> Path:
    """The directory of an output, or of a directory of outputs; it may not be there yet."""
    digest = hashlib.sha256(address.location.encode()).hexdigest()[:16]
    return work_home() / f"{address.leaf[:_MOST_CHARACTERS]}-{digest}"


def require_one_file(output: Address) -> None:
    """Refuse an output that would be several files: objects appear one by one.

    Raises:
        UsageError: it is a shapefile.
    """
    if output.leaf.lower().endswith(".shp"):
        raise UsageError(
            f"{output}: a shapefile is several files, which do not appear at once in an object "
            "store; write a .gpkg, .fgb or .parquet"
        )


def send_finished(local: Path, address: Address, *, replace: bool) -> None:
    """Send a finished file, as `send` does.

    Raises:
        OutputError: as `send`; the message says where the file is kept.
    """
    try:
        send(local, address, replace=replace)
    except OutputError as error:
        raise OutputError(f"{error}; finished, and kept here as {local}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Where the outputs of a run are made on this machine, and to which address some of them go."""

    mask: Path
    outputs: Outputs
    addresses: Mapping[Path, Address] = field(default_factory=dict)
    """Of what is sent, by the file on this machine."""

    @classmethod
    def of(cls, mask: PathLike, outputs: Outputs) -> Staging:
        """Sort out which outputs are sent, and where they are made; nothing is made yet.

        Raises:
            UsageError: an output would be several objects, or two have one address.
        """
        addresses: dict[Path, Address] = {}

        def place(output: PathLike) -> Path:
            address = Address.of(output)
            if address is None:
                return Path(os.fspath(output))
            require_one_file(address)
            local = work_place(address) / address.leaf
            if local in addresses:
                raise UsageError(f"{address}: two outputs have this name; give each its own")
            addresses[local] = address
            return local

        first = place(mask)
        others = {name: None if path is None else place(path)
                  for name, path in asdict(outputs).items()}  # fmt: skip
        return cls(mask=first, outputs=Outputs(**others), addresses=addresses)

    @contextmanager
    def ready(
        self, source: RasterSource, *, overwrite: bool, finished: Iterable[Path]
    ) -> Iterator[None]:
        """Look whether outputs may be sent, before any work, and have directories to make them in.

        When the block ends well, all was sent, and the directories go.

        Args:
            source: the scene.
            overwrite: whether they may be there.
            finished: files on this machine that an interrupted run has made: whether what is in
                the store is the same shows when they are sent.

        Raises:
            UsageError: one is the scene.
            OutputError: one is there already and may not be; or the store does not tell, or a
                directory cannot be made.
        """
        made = set(finished)
        for local, address in self.addresses.items():
            if address.is_at(source.location):
                raise UsageError(
                    f"{address}: the output is the input {source.name}; name another with `output`"
                )
            if is_there(address) and not overwrite and local not in made:
                raise OutputError(
                    f"{address}: exists already; choose another name or add `overwrite=True`"
                )
        for local in self.addresses:
            make_directory(local.parent, parents=True)
        try:
            yield
        except BaseException:
            for local in self.addresses:
                with suppress(OSError):  # something is in it that the same command goes on from
                    local.parent.rmdir()
            raise
        for local in self.addresses:
            shutil.rmtree(local.parent, ignore_errors=True)

    def send(self, *, overwrite: bool) -> None:
        """Send all that was made.

        Raises:
            OutputError: one was not taken; it is kept on this machine.
        """
        for local, address in self.addresses.items():
            send_finished(local, address, replace=overwrite)

    def named(self, files: OutputFiles) -> dict[str, Any]:
        """The outputs by their fields, as the user calls them: by its address what was sent."""
        return {name: self.addresses[path].name if path in self.addresses else path
                for name, path in asdict(files).items()}  # fmt: skip


@contextmanager
def staged(output: PathLike, *, overwrite: bool, inputs: Iterable[str] = ()) -> Iterator[Path]:
    """Where an output is made that a single step writes: its own path, or one whose file is sent.

    Args:
        output: a local file, or an object.
        overwrite: whether an object may be there already.
        inputs: what GDAL opens of the inputs, none of which may be the object.

    Yields:
        The local file. If it is to be sent, nothing is there, and what the block made is sent when
        it ends well; nothing stays there.

    Raises:
        UsageError: it is an input, or would be several objects.
        OutputError: it is there already and may not be, or was not taken.
    """
    address = Address.of(output)
    if address is None:
        yield Path(os.fspath(output))
        return
    require_one_file(address)
    if any(address.is_at(location) for location in inputs):
        raise UsageError(f"{address}: the output is an input; name another")
    if is_there(address) and not overwrite:
        raise OutputError(f"{address}: exists already; choose another name or add `overwrite=True`")
    home = work_place(address)
    make_directory(home, parents=True)
    remove_stale(home)
    temporary = create_beside(home / address.leaf)
    # Under its own name, which determines the format.
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
        with suppress(OSError):  # something else is in it
            home.rmdir()
