"""Train ThreshNets. This module imports no torch, as the help shows the recipes."""

from geothresh.training.recipe import RECIPES, Recipe, recipe_of

__all__ = ["RECIPES", "Recipe", "recipe_of"]
