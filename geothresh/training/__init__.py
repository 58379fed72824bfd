"""Training: data to chips, chips to a model. The recipes are read for the help, without torch."""

from geothresh.training.recipe import RECIPES, Recipe, recipe_of

__all__ = ["RECIPES", "Recipe", "recipe_of"]
