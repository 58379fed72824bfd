"""``geothresh info``: what a confidence raster is, and how it would be read."""

from __future__ import annotations

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
@options_of(Reading, "reading", only=READ_WHOLE)
@options.as_json
@options.common
def info(scene: str, reading: Reading, as_json: bool) -> None:
    """Show what SCENE is and how `geothresh refine` would read it.

    Its size, type, blocks, georeference and the size of its pixels on the ground, where data is
    missing, and how its values become confidences; with the options of `refine`, as they would
    change that.
    """
    from geothresh.api.info import info as look

    facts = look(scene, reading).as_dict()
    if as_json:
        options.print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = "none" if value is None else value
        if name == "transform":
            shown = ", ".join(f"{number:.12g}" for number in value)
        elif name == "pixel_size" and value is not None:
            shown = " x ".join(f"{side:.3g}" for side in value) + " m on the ground"
        give(f"{name.replace('_', ' '):{width}}  {shown}")
