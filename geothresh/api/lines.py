"""Compare lines of a vector file with true lines, or with the centrelines of a mask."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geothresh.api.vectorize import vectorize
from geothresh.errors import UsageError
from geothresh.fields import Number, checked
from geothresh.options import PathLike
from geothresh.vector.comparing import LineScores, compare_lines, read_in_metres
from geothresh.vector.options import Centerlines
from geothresh.vector.reading import find_layer, is_vector_file

#: Metres to each side of a line within which another matches it: three pixels of a metre.
BUFFER = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LineReport:
    """Scores of lines against the true lines."""

    lines: str
    """File and layer of the lines."""
    truth: str
    """File and layer of the true lines, or the mask with them."""
    buffer: float
    """Metres to each side of a line within which another matches it."""
    scores: LineScores
    """Lengths in metres."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        shares = ("completeness", "correctness", "quality", "largest_share")
        return {
            "lines": self.lines,
            "truth": self.truth,
            "buffer": self.buffer,
            **asdict(self.scores),
            **{name: getattr(self.scores, name) for name in shares},
        }

    def table(self) -> str:
        """The scores as text for people, shares in percent."""
        scores = self.scores
        return "\n".join(
            [
                f"{self.lines} against {self.truth}, within {self.buffer:g} m",
                f"completeness  {100 * scores.completeness:6.2f}   {scores.found:,.0f} of "
                f"{scores.true_length:,.0f} m are found",
                f"correctness   {100 * scores.correctness:6.2f}   {scores.right:,.0f} of "
                f"{scores.length:,.0f} m are right",
                f"quality       {100 * scores.quality:6.2f}",
                f"connection    {100 * scores.largest_share:6.2f}   of the length in the largest "
                f"of {scores.components:,} groups of lines that touch",
            ]
        )


@checked(buffer=Number(least=0, above=True))
def evaluate_lines(
    lines: PathLike,
    truth: PathLike,
    *,
    layer: str | None = None,
    truth_layer: str | None = None,
    buffer: float = BUFFER,
) -> LineReport:
    """Compare the lines of a vector file with true lines.

    Args:
        lines: GeoPackage, shapefile, GeoJSON or FlatGeobuf with lines.
        truth: such a file with the true lines, in any CRS; or a mask, whose centrelines are taken.
        layer: layer of the lines, needed if there are several; layers of nodes are skipped.
        truth_layer: layer of the true lines, needed if there are several.
        buffer: metres to each side of a line within which another matches it.

    Returns:
        Completeness, correctness and quality within the buffer, and how well the lines are
        connected; `table()` shows them, `as_dict()` has all figures.

    Raises:
        UsageError: an option is out of range, or a layer has to be chosen.
        InputError: a file cannot be read, or does not hold lines.

    Example:
        >>> evaluate_lines("lines.gpkg", "true_roads.gpkg").scores.quality  # doctest: +SKIP
        0.83
    """
    ours = find_layer(lines, layer, lines=True)
    if is_vector_file(truth):
        true = find_layer(truth, truth_layer, option="`truth_layer`", lines=True)
        scores = compare_lines(*read_in_metres(ours, true), buffer=buffer)
    elif truth_layer is not None:
        raise UsageError(f"{truth}: is a raster, which has no layer; leave `truth_layer` out")
    else:
        with tempfile.TemporaryDirectory() as folder:
            drawn = vectorize(truth, Path(folder) / "truth.gpkg", draw=Centerlines())
            true = find_layer(drawn.output)
            scores = compare_lines(*read_in_metres(ours, true), buffer=buffer)
    return LineReport(lines=str(ours), truth=str(truth), buffer=buffer, scores=scores)
