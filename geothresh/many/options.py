"""Options of runs over many files, besides those of `geothresh.options`."""

from __future__ import annotations

from dataclasses import dataclass

from geothresh.errors import UsageError
from geothresh.fields import COUNT, FLAG, File, Options, Text, check, option, require
from geothresh.options import PathLike

LAYERS = ("mask", "confidence", "changes", "thresholds")
"""The layers that can be written for each file, in the order of the outputs."""

PIECE_STEP = 64
"""The side of a piece is a multiple of this, so that a region with its own threshold lies in one
piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Many(Options):
    """How many files are refined together, and what is written for each."""

    layers: str = option(
        "mask",
        "Layers to write of each SCENE, separated by commas: mask, confidence, changes, "
        "thresholds. The mask is always written.",
        Text(),
        metavar="LAYER,...",
    )
    piece: int | None = option(
        None,
        "Cut the outputs into pieces of at most so many pixels a side, each of which is a file; a "
        "multiple of 64, best of 512.",
        COUNT,
    )
    separately: bool = option(False, "Refine each SCENE alone: its neighbours are not read.", FLAG)
    skip_bad: bool = option(
        False,
        "Go on without scenes that cannot be read; they are listed at the end, and the exit code "
        "is 3.",
        FLAG,
    )
    update: bool = option(
        False,
        "Refine anew what new, changed and removed scenes touch, and all where options changed; "
        "keep the rest.",
        FLAG,
    )

    # On the command line it is --vector-out, as for a single scene.
    vector: PathLike | None = None
    """File for the polygons of all masks together, which are not cut at the borders of scenes. If
    confidences are among the layers, polygons have their attributes."""

    def __post_init__(self) -> None:
        check(self)
        if self.vector is not None:
            require("vector", self.vector, File())
        if self.piece is not None and self.piece % PIECE_STEP:
            raise UsageError(
                f"`piece={self.piece}`: pieces are cut along blocks; give a multiple of "
                f"{PIECE_STEP}, such as {-(-self.piece // PIECE_STEP) * PIECE_STEP}"
            )
        unknown = [name for name in self._named if name not in LAYERS]
        if unknown:
            raise UsageError(
                f"`layers={self.layers}`: {unknown[0]!r} is none; name some of {', '.join(LAYERS)}"
            )

    @property
    def _named(self) -> list[str]:
        return [name.strip() for name in self.layers.split(",")]

    @property
    def written(self) -> tuple[str, ...]:
        """The layers that are written; the mask is the first of them."""
        return tuple(name for name in LAYERS if name in ("mask", *self._named))
