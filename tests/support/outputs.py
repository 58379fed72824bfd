"""What a run has left in a folder."""

from __future__ import annotations

import os
from pathlib import Path

_SIDES = (".qml", ".aux.xml")


def without_sides(folder: Path | str = ".") -> list[str]:
    """Names of all that is there, sorted, but styles and descriptions of other files."""
    return sorted(name for name in os.listdir(folder) if not name.endswith(_SIDES))
