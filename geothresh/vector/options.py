"""Options of `vectorize`: the foreground, polygons or centrelines, and how layers are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from geothresh.errors import UsageError
from geothresh.fields import AMOUNT, FLAG, SHARE, Choice, Number, Options, Text, check, option
from geothresh.options import mkdir_option, overwrite_option, style_option
from geothresh.vector.formats import FORMATS, check_layer_name
from geothresh.vector.outputs import Existing

Kind: TypeAlias = Literal["polygons", "centerlines"]
"""What is drawn of the foreground."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreground(Options):
    """Which pixels of the raster are foreground: threshold, sieve and filled holes."""

    threshold: float | None = option(
        None,
        "MASK holds confidences: foreground is where they are at least this.",
        SHARE,
        pixels=True,
    )
    sieve: int = option(
        0,
        "First take out regions of fewer than N pixels, then fill holes of fewer than N.",
        Number(whole=True, least=0),
        pixels=True,
        metavar="N",
    )
    fill_holes: float = option(
        0.0,
        "First fill holes smaller than this many square metres.",
        AMOUNT,
        pixels=True,
        metavar="M2",
    )


def _simplify() -> Any:
    return option(
        0.0,
        "Remove corners. A corner of a polygon is removed if its triangle with both neighbours is "
        "smaller than a square with a side of this many metres; a corner of a line, if that moves "
        "the line by less.",
        AMOUNT,
        pixels=True,
        metavar="M",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygons(Options):
    """Options of polygons, which are the 4-connected regions along the edges of pixels.

    Lengths and areas are in the units of the attributes: metres, if the CRS has a known unit.
    """

    kind: ClassVar[Kind] = "polygons"
    min_area: float = option(
        0.0,
        "Leave out polygons smaller than this many square metres.",
        AMOUNT,
        pixels=True,
        metavar="M2",
    )
    smooth: bool = option(
        False,
        "Smooth the stair-shaped outlines of polygons, which move by at most half a pixel. Lines "
        "are always smooth.",
        FLAG,
        pixels=True,
    )
    simplify: float = _simplify()
    """A corner is removed if its triangle with both neighbours is smaller than a square with this
    side, the smallest triangle first. Polygons that touch still touch, and do not overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centerlines(Options):
    """Options of centrelines, which run from node to node; units are those of `Polygons`."""

    kind: ClassVar[Kind] = "centerlines"
    min_length: float = option(
        0.0,
        "Leave out centrelines shorter than this many metres that do not connect others.",
        AMOUNT,
        pixels=True,
        metavar="M",
    )
    spur: float = option(
        1.0,
        "Take off centrelines that end and are shorter than this many widths of the road where "
        "they begin; 0 keeps all.",
        AMOUNT,
        pixels=True,
        metavar="WIDTHS",
    )
    simplify: float = _simplify()
    bridge_gaps: float = option(
        0.0,
        "Join ends of centrelines that lie opposite to each other within this many metres, where "
        "the confidence says that the road goes on.",
        AMOUNT,
        pixels=True,
        metavar="M",
    )
    bridge_confidence: float = option(
        0.1,
        "What the confidence never falls below on the way over a gap.",
        SHARE,
        pixels=True,
        metavar="C",
    )
    nodes: bool = option(
        False,
        "Also write where centrelines end and meet, as a layer NAME_nodes.",
        FLAG,
        pixels=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorWriting(Options):
    """Layer, format and CRS of a vector output, and what happens to an existing file."""

    layer: str | None = option(
        None,
        "Layer to write.  [default: made from the output's name, with --append from MASK's]",
        Text(),
        metavar="NAME",
    )
    format: str | None = option(
        None,
        "Format of the output.  [default: by its ending]",
        Choice(tuple(one.name for one in FORMATS)),
    )
    dst_crs: str | None = option(
        None,
        "CRS of the output, such as EPSG:4326.  [default: MASK's own]",
        Text(),
        metavar="CRS",
    )
    """Lengths and areas are still measured in the mask's own CRS."""
    allow_pixel_coords: bool = option(
        False, "Write columns and rows where MASK has no georeference.", FLAG
    )
    style: bool = style_option()
    append: bool = option(False, "Add the layer to an output that exists; others stay in it.", FLAG)
    overwrite_layer: bool = option(False, "The same, and replace a layer of that name.", FLAG)
    parents: bool = mkdir_option()
    overwrite: bool = overwrite_option()

    def __post_init__(self) -> None:
        check(self)
        if self.layer is not None:
            check_layer_name(self.layer)
        if self.overwrite and (self.append or self.overwrite_layer):
            raise UsageError(
                "`overwrite` replaces the whole file, `append` and `overwrite_layer` keep its "
                "other layers; give one of them"
            )

    @property
    def existing(self) -> Existing:
        """What happens to an existing output."""
        if self.overwrite_layer:
            return Existing.REPLACE_LAYER
        if self.append:
            return Existing.ADD
        return Existing.REPLACE if self.overwrite else Existing.REFUSE
