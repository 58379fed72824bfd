"""``geothresh model``: what is in a model file, without loading its weights."""

from __future__ import annotations

import click

from geothresh.cli import options


@click.group()
@options.common
def model() -> None:
    """List the packaged models, or show what one is."""
