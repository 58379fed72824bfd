"""Write the vector output of `refine`: polygons of its mask, logged in its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from geothresh.api.vectorize import vectorize
from geothresh.errors import OutputError
from geothresh.files import create_beside, discard, publish
from geothresh.options import PathLike
from geothresh.vector.options import VectorWriting
from geothresh.vector.styles import take_over_styles


class Notes(Protocol):
    """A journal or record of the files that a run has made."""

    def record_made(self, made: Mapping[Path, Path], **facts: int) -> None:
        """Log finished files, and facts about them, before they are renamed into place."""


def write_polygons(
    mask: PathLike | Sequence[PathLike],
    vector: Path,
    journal: Notes,
    *,
    confidence: PathLike | Sequence[PathLike] | None,
    style: bool,
) -> None:
    """Write the foreground of a finished mask, or of many as one, as polygons.

    Args:
        mask: of the run.
        vector: the file to write.
        journal: logs it, with ``features``.
        confidence: the refined confidence, if it was written.
        style: whether a style for QGIS is written with it.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = create_beside(vector)
    try:
        # In the folder of the temporary file, under its final name, which determines the format.
        made = temporary.with_name(vector.name)
        try:
            result = vectorize(
                mask,
                made,
                confidence=confidence,
                writing=VectorWriting(overwrite=True, style=style),
            )
        except OutputError as error:
            raise OutputError(str(error).replace(str(made), str(vector))) from error
        temporary.unlink()
        take_over_styles(made, vector, result.layer)
        # A shapefile is several files, of which the one that was named comes last.
        parts = sorted(made.parent.iterdir(), key=lambda file: file == made)
        journal.record_made(
            {vector.with_name(part.name): part for part in parts}, features=result.features
        )
        for part in parts:
            publish(part, vector.with_name(part.name))
    finally:
        discard(temporary)
