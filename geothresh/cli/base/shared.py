"""Options of the commands that train base networks."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import click

from geothresh.base.config import BasePlan, BaseRecipe, ImageData
from geothresh.cli import options
from geothresh.cli.fields import Command, options_of
from geothresh.cli.values import PATH


def training_options(command: Command) -> Command:
    """Add the options of data and training; the command receives `ImageData` and `BasePlan`."""

    @wraps(command)
    def with_plan(
        *arguments: Any,
        data: tuple[Path, ...],
        images: dict[str, Any],
        plan: dict[str, Any],
        recipe: BaseRecipe,
        **values: Any,
    ) -> Any:
        return command(
            *arguments,
            data=ImageData(folders=data, **images),
            plan=BasePlan(recipe=recipe, **plan),
            **values,
        )

    decorated: Command = with_plan
    for decorate in (
        options.common,
        options.as_json,
        options.progress,
        options.device,
        options_of(ImageData, "images", make=dict),
        options_of(BaseRecipe, "recipe"),
        options_of(BasePlan, "plan", make=dict),
        click.argument("data", type=PATH, nargs=-1, required=True),
    ):
        decorated = decorate(decorated)
    return decorated
