"""``geothresh base``: train base networks and predict with them. One file per command."""

from __future__ import annotations

import click

from geothresh.cli import options
from geothresh.cli.lazy import LazyGroup

COMMANDS = {
    "crossfit": "geothresh.cli.base.crossfit",
    "predict": "geothresh.cli.base.predict",
    "train": "geothresh.cli.base.train",
}


@click.group(name="base", cls=LazyGroup, homes=COMMANDS)
@options.common
def base() -> None:
    """Train base networks on images and predict confidences with them.

    The networks come from segmentation-models-pytorch: pip install 'geothresh[base]'. If you have
    a segmentation network already, you need none of this: `refine` takes the raster of any.
    """
