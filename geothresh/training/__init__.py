"""Training of ThreshNets. What is imported here needs no torch: the help shows the recipes."""

from geothresh.training.recipe import RECIPES, Recipe, recipe_of

__all__ = ["RECIPES", "Recipe", "recipe_of"]
