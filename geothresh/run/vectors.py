"""Write the vector file of a run, and log it in the run's journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from geothresh.errors import OutputError
from geothresh.files import create_beside, discard, publish
from geothresh.vector.styles import take_over_styles


class Notes(Protocol):
    """A journal or record of the files that a run has made."""

    def record_made(self, made: Mapping[Path, Path], **facts: int) -> None:
        """Log finished files, and facts about them, before they are renamed into place."""


class Drawn(Protocol):
    """What `vectorize` returns about the file that it has written."""

    @property
    def layer(self) -> str:
        """Name of the layer."""

    @property
    def features(self) -> int:
        """Number of features in the layer."""


def put_vectors(draw: Callable[[Path], Drawn], vector: Path, journal: Notes) -> None:
    """Draw vectors into a temporary file, log it, and rename it into place.

    Args:
        draw: writes the vectors to the given path.
        vector: the file to write.
        journal: logs the file, with ``features``.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = create_beside(vector)
    try:
        # It lies in the temporary folder and has its final name, which determines the format.
        made = temporary.with_name(vector.name)
        try:
            drawn = draw(made)
        except OutputError as error:
            raise OutputError(str(error).replace(str(made), str(vector))) from error
        temporary.unlink()
        take_over_styles(made, vector, drawn.layer)
        # A shapefile is several files; the one with the given name is renamed last.
        parts = sorted(made.parent.iterdir(), key=lambda file: file == made)
        journal.record_made(
            {vector.with_name(part.name): part for part in parts}, features=drawn.features
        )
        for part in parts:
            publish(part, vector.with_name(part.name))
    finally:
        discard(temporary)
