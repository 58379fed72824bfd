"""Confidence maps of pictures: what `base predict` makes of a folder, and `base crossfit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geothresh.base.predictor import BasePredictor
from geothresh.raster.images import read_rgb


def predict_picture(predictor: BasePredictor, image: Path) -> NDArray[np.uint8]:
    """The confidence map (H, W) of a picture: confidence x 255, of the picture's size.

    Raises:
        InputError: the picture cannot be read.
    """
    return map_values(predictor.image(read_rgb(image)))


def map_values(confidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Confidences in [0, 1] in 8 bits: x 255, rounded."""
    return np.rint(confidence * 255).astype(np.uint8)
