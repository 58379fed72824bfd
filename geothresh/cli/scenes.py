"""The options of training on scenes: where the labels are, and what of a scene counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.values import PATH

#: What is for scenes alone: fields of `SceneData` and of its `Reading`.
SCENE_OPTIONS = ("labels", "layer", "buffer", "width_field", "aoi", "bidx", "scale", "nodata")
_NAMES = (*SCENE_OPTIONS, "validation_aoi", "block_size")

_DECORATORS = (
    click.option(
        "--labels", type=PATH, multiple=True, metavar="FILE",
        help="Labels of the scenes in DATA: vectors (GeoPackage, shapefile, GeoJSON, FlatGeobuf) "
        "or a mask on the same grid. One for all, or repeated, one for each in the same order.",
    ),
    click.option("--layer", metavar="NAME", help="Layer of the vectors, where there are several."),
    click.option(
        "--buffer", type=click.FloatRange(min=0, min_open=True), metavar="METRES",
        help="Distance from lines and points to each side: half of their full width.",
    ),
    click.option(
        "--width-field", metavar="NAME",
        help="Attribute with the full width of lines and points in metres; --buffer stands in "
        "where it is missing or not above 0.",
    ),
    click.option(
        "--aoi", type=PATH, metavar="FILE",
        help="Polygons in which the labels are complete: all else is ignored.",
    ),
    click.option(
        "--validation-aoi", type=PATH, metavar="FILE",
        help="Polygons to validate on, in place of blocks drawn at random.",
    ),
    click.option(
        "--block-size", type=click.IntRange(min=1), metavar="PIXELS",
        help="Side of the blocks of which some are kept to validate; the default is 2048, or less "
        "so that there are about twelve.",
    ),
    options.bidx,
    options.scale,
    options.nodata,
)  # fmt: skip


def scenes(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--labels`` and what goes with it; the command gets a dict of them as ``scenes``."""

    @wraps(command)
    def with_scenes(*arguments: Any, **values: Any) -> Any:
        return command(*arguments, scenes={name: values.pop(name) for name in _NAMES}, **values)

    decorated: Callable[..., Any] = with_scenes
    for decorate in reversed(_DECORATORS):
        decorated = decorate(decorated)
    return decorated
