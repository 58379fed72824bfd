"""Format plain text of reports: aligned columns, and sentences broken into lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = "  "
"""Space between two columns."""
_WIDTH = 80


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column of a table."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """A line for each row: the first column on the left, all others on the right."""
    lines = []
    for label, *cells in rows:
        padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        lines.append(GAP.join([f"{label:<{widths[0]}}", *padded]).rstrip())
    return lines


def filled(text: str) -> str:
    """A text in lines of at most 80 characters, broken between words."""
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
