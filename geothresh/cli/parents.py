"""``--parents``: the directories of the outputs are made, and taken away again if nothing came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from geothresh.cli.helping import WRITING, HeadedOption
from geothresh.errors import OutputError

Command = TypeVar("Command", bound=Callable[..., Any])


def parents(command: Command) -> Command:
    """Give a command the option; its body finds the directories made."""

    @wraps(command)
    def with_directories(*arguments: Any, parents: bool, **options: Any) -> Any:
        also = options.get("outputs")
        named = [options["output"], *(asdict(also).values() if also else ())]
        with directories_of([file for file in named if file is not None] if parents else []):
            return command(*arguments, **options)

    decorated: Any = click.option(
        "--parents",
        is_flag=True,
        help="Make the directories of the outputs that are not there.",
        cls=HeadedOption,
        heading=WRITING,
    )(with_directories)
    return decorated  # type: ignore[no-any-return]


@contextmanager
def directories_of(files: Iterable[Path]) -> Iterator[None]:
    """Make the missing directories of some files; what was made goes if the block raises.

    Only what is empty goes: of several outputs one may be there.

    Raises:
        OutputError: one cannot be made.
    """
    made: list[Path] = []
    try:
        for file in files:
            missing = [one for one in file.parents if not one.exists()]
            for directory in reversed(missing):
                try:
                    directory.mkdir()
                except OSError as error:
                    raise OutputError(
                        f"{file}: the directory {directory} cannot be made ({error.strerror}); "
                        "choose another"
                    ) from error
                made.append(directory)
        yield
    except BaseException:
        for directory in reversed(made):
            with suppress(OSError):
                directory.rmdir()
        raise
