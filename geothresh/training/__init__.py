"""Training: data to pairs, pairs to chips, chips to a model."""

from geothresh.training.recipe import Recipe
from geothresh.training.run import TrainResult, train

__all__ = ["Recipe", "TrainResult", "train"]
