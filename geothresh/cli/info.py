"""``geothresh info``: what a confidence raster is, and how it would be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.terminal import give
from geothresh.options import READ_WHOLE, Reading


@click.command(
    cls=HelpfulCommand,
    examples={
        "How a scene would be read": "geothresh info scene.tif",
        "The same as JSON, of values from 0 to 100": (
            "geothresh info scene.tif --scale 100 --json"
        ),
    },
)
@click.argument("scene")
@options.model
@options_of(Reading, "reading", only=READ_WHOLE)
@options.as_json
@options.common
def info(scene: str, model: str, reading: Reading, as_json: bool) -> None:
    """Show what SCENE is and how `geothresh refine` would read it.

    Its size, type, blocks, georeference and the size of its pixels on the ground, where data is
    missing, how its values become confidences, and whether the model reads such pixels; with the
    options of `refine`, as they would change that.
    """
    from geothresh.api.info import info as look

    facts = look(scene, reading, model=model).as_dict()
    if as_json:
        options.print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        give(f"{name.replace('_', ' '):{width}}  {_shown(name, value, facts)}")


def _shown(name: str, value: Any, facts: Mapping[str, Any]) -> str:
    """A fact for people."""
    match name:
        case "transform":
            return ", ".join(f"{number:.12g}" for number in value)
        case "pixel_size" if value is not None:
            return " x ".join(f"{side:.3g}" for side in value) + " m on the ground"
        case "nodata" if facts["dtype"].startswith("float"):
            number = f"{value}, and " if isinstance(value, float) else ""
            return f"{number}NaN and infinities"
        case "data_share":
            return f"{100 * value:.4g} % of the pixels that were looked at"
        case "fits":
            return "not known" if value is None else "yes" if value else "no"
    return "none" if value is None else str(value)
