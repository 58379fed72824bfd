"""The option ``--recipe``, and an option for each number of a recipe, which overrides it."""

from __future__ import annotations

from functools import wraps
from typing import Any

import click

from geothresh.cli.fields import Command, option_of
from geothresh.cli.helping import HEADINGS, HeadedOption
from geothresh.fields import known
from geothresh.nn.config import LossWeights
from geothresh.training.recipe import DEFAULT_RECIPE, RECIPES, Recipe, recipe_of, usual_recipe

_HOMES: dict[str, type[Recipe] | type[LossWeights]] = {
    name: kind for kind in (Recipe, LossWeights) for name in known(kind)
}


def recipe(command: Command) -> Command:
    """Add ``--recipe`` and an option for each number; the command receives one `Recipe`.

    Applied below the options of `NetworkChoice`, as the default recipe depends on ``--init``.
    """

    @wraps(command)
    def with_recipe(
        *arguments: Any, recipe: str | None, network: dict[str, Any], **values: Any
    ) -> Any:
        changes = {name: values.pop(name) for name in _HOMES}
        chosen = recipe_of(recipe or usual_recipe(network["init"]), **changes)
        return command(*arguments, recipe=chosen, network=network, **values)

    decorated: Command = with_recipe
    for name, kind in reversed(_HOMES.items()):
        text = f"{known(kind)[name].help}  [{_shown(name)}]"
        decorated = option_of(kind, name, help=text, default=None)(decorated)
    return click.option(
        "--recipe", cls=HeadedOption, heading=HEADINGS["Recipe"], type=click.Choice(list(RECIPES)),
        help="Defaults of the options below: those of the paper's section 4.2 (paper), those that "
        "measure better (best), or those for fine-tuning on a few maps (tune). An option that is "
        "given overrides its recipe.  [default: best; with --init tune]",
    )(decorated)  # fmt: skip


def _shown(name: str) -> str:
    """The recipes' values of one number, for the help."""
    values = {recipe: _value(numbers, name) for recipe, numbers in RECIPES.items()}
    if len(set(values.values())) == 1:
        return f"default: {values[DEFAULT_RECIPE]}"
    return ", ".join(f"{recipe}: {value}" for recipe, value in values.items())


def _value(numbers: Recipe, name: str) -> str:
    value = getattr(numbers.loss if _HOMES[name] is LossWeights else numbers, name)
    words = {None: "as many as maps", True: "on", False: "off"}
    # Checked by type first, as 0 equals False.
    return words[value] if value is None or isinstance(value, bool) else f"{value}"
