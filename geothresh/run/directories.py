"""Create directories of outputs if `parents` is given, and remove them if the run fails."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from geothresh.addresses import Address
from geothresh.errors import OutputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_directories(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function so that missing directories of its outputs are created first.

    Args:
        function: takes `output`, optionally `outputs`, and `writing`; directories are created if
            the field `parents` of `writing` is True.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def called(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        given = signature.bind(*arguments, **options).arguments
        if "writing" not in given or not given["writing"].parents:
            return function(*arguments, **options)
        named = [given.get("output")]
        if "outputs" in given:
            named += asdict(given["outputs"]).values()
        files = [
            Path(os.fspath(file))
            for file in named
            # Raises for URLs that lost a slash, which would become directories.
            if isinstance(file, str | os.PathLike) and Address.of(file) is None
        ]
        with directories_of(files):
            return function(*arguments, **options)

    return called


@contextmanager
def directories_of(files: Iterable[Path]) -> Iterator[None]:
    """Create the missing directories of files; if the block raises, remove the empty ones again.

    Raises:
        OutputError: a directory cannot be created.
    """
    made: list[Path] = []
    try:
        for file in files:
            for directory in reversed(file.parents):
                try:
                    if directory.exists():  # asked now, as NEW/.. is there once NEW is made
                        continue
                    directory.mkdir()
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or error
                    raise OutputError(
                        f"{file}: the directory {directory} cannot be made ({reason}); "
                        "choose another"
                    ) from error
                made.append(directory)
        yield
    except BaseException:
        for directory in reversed(made):
            with suppress(OSError):
                directory.rmdir()
        raise
