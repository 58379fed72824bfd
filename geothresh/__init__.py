"""Correct the confidence raster of a binary segmentation network with ThreshNet.

The names below are loaded when they are first used, so that ``import geothresh`` waits neither for
torch nor for GDAL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geothresh._version import __version__

if TYPE_CHECKING:
    from geothresh.api.arrays import refine_array
    from geothresh.api.demo import DemoResult, demo
    from geothresh.api.evaluate import evaluate
    from geothresh.api.models import load_model
    from geothresh.api.refine import RefineResult, refine
    from geothresh.api.vectorize import VectorizeResult, vectorize
    from geothresh.errors import (
        ClusterError,
        DeviceLostError,
        GeothreshError,
        GeothreshWarning,
        InputError,
        ModelError,
        OutputError,
        UsageError,
    )
    from geothresh.evaluation import Report
    from geothresh.mosaic import Refiner, RefinerSource
    from geothresh.options import Compute, Outputs, Reading, Refining, Tiling, Writing
    from geothresh.training import TrainResult, train

_HOMES = {
    "ClusterError": "geothresh.errors",
    "Compute": "geothresh.options",
    "DemoResult": "geothresh.api.demo",
    "DeviceLostError": "geothresh.errors",
    "GeothreshError": "geothresh.errors",
    "GeothreshWarning": "geothresh.errors",
    "InputError": "geothresh.errors",
    "ModelError": "geothresh.errors",
    "OutputError": "geothresh.errors",
    "Outputs": "geothresh.options",
    "Reading": "geothresh.options",
    "RefineResult": "geothresh.api.refine",
    "Refiner": "geothresh.mosaic",
    "RefinerSource": "geothresh.mosaic",
    "Refining": "geothresh.options",
    "Report": "geothresh.evaluation",
    "Tiling": "geothresh.options",
    "TrainResult": "geothresh.training",
    "UsageError": "geothresh.errors",
    "VectorizeResult": "geothresh.api.vectorize",
    "Writing": "geothresh.options",
    "demo": "geothresh.api.demo",
    "evaluate": "geothresh.api.evaluate",
    "load_model": "geothresh.api.models",
    "refine": "geothresh.api.refine",
    "refine_array": "geothresh.api.arrays",
    "train": "geothresh.training",
    "vectorize": "geothresh.api.vectorize",
}

__all__ = [
    "ClusterError",
    "Compute",
    "DemoResult",
    "DeviceLostError",
    "GeothreshError",
    "GeothreshWarning",
    "InputError",
    "ModelError",
    "OutputError",
    "Outputs",
    "Reading",
    "RefineResult",
    "Refiner",
    "RefinerSource",
    "Refining",
    "Report",
    "Tiling",
    "TrainResult",
    "UsageError",
    "VectorizeResult",
    "Writing",
    "__version__",
    "demo",
    "evaluate",
    "load_model",
    "refine",
    "refine_array",
    "train",
    "vectorize",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562) and keep it here."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
