"""Options by their names alone, for tests that have tables of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geothresh.fields import known
from geothresh.options import BaseTiling, Compute, Outputs, Reading, Refining, Tiling, Writing
from geothresh.vector.options import Centerlines, Foreground, Polygons, VectorWriting


def grouped(*, base: bool = False, **flat: Any) -> dict[str, Any]:
    """The keywords of `refine` and its like that say the same; others, such as model, are kept.

    Args:
        base: for a base network, whose tiles are others.
        flat: options and other keywords.
    """
    kinds: dict[str, Any] = {
        "outputs": Outputs,
        "reading": Reading,
        "refining": Refining,
        "tiling": BaseTiling if base else Tiling,
        "compute": Compute,
        "writing": Writing,
    }
    return _grouped(kinds, flat)


def grouped_vectors(*, kind: str = "polygons", **flat: Any) -> dict[str, Any]:
    """The same for the keywords of `vectorize`.

    Args:
        kind: ``polygons`` or ``centerlines``.
        flat: options and other keywords.
    """
    draw = {"polygons": Polygons, "centerlines": Centerlines}[kind]
    kinds = {
        "draw": draw,
        "foreground": Foreground,
        "reading": Reading,
        "writing": VectorWriting,
    }
    return {"draw": draw()} | _grouped(kinds, flat)


def _grouped(kinds: Mapping[str, Any], flat: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for parameter, kind in kinds.items():
        values = {name: flat.pop(name) for name in known(kind) if name in flat}
        if values:
            found[parameter] = kind(**values)
    return found | flat


#: Small tiles on the CPU, as the command line has them.
TILES = ["--tile-size", "64", "--overlap", "16", "--device", "cpu", "--precision", "fp32"]
