"""Correct the confidence raster of a binary segmentation network with ThreshNet.

The public names are loaded when they are first used, so that ``import geothresh`` loads neither
torch nor GDAL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geothresh._version import __version__

if TYPE_CHECKING:
    from geothresh.api.arrays import refine_array
    from geothresh.api.calibrate import calibrate
    from geothresh.api.compare import Comparison, compare
    from geothresh.api.crossfit import CrossfitResult, crossfit
    from geothresh.api.dataarrays import refine_dataarray
    from geothresh.api.demo import DemoResult, demo
    from geothresh.api.evaluate import evaluate
    from geothresh.api.export import ExportResult, export_onnx
    from geothresh.api.info import info
    from geothresh.api.lines import LineReport, evaluate_lines
    from geothresh.api.models import load_model
    from geothresh.api.predict_base import PredictResult, predict_base
    from geothresh.api.refine import RefineResult, refine
    from geothresh.api.refine_many import RefineManyResult, refine_many
    from geothresh.api.train import TrainCallbacks, TrainResult, train
    from geothresh.api.train_base import BaseTrainResult, train_base
    from geothresh.api.vectorize import VectorizeResult, vectorize
    from geothresh.base.config import BasePlan, BaseRecipe, Holdout, ImageData
    from geothresh.calibration.options import Calibrating
    from geothresh.calibration.report import CalibrationReport
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
    from geothresh.evaluation.options import Maps, Scoring
    from geothresh.evaluation.report import Report
    from geothresh.many.options import Many
    from geothresh.many.overview import ManyInfo
    from geothresh.mosaic import Refiner, RefinerSource
    from geothresh.options import BaseTiling, Compute, Outputs, Reading, Refining, Tiling, Writing
    from geothresh.run.scene_info import SceneInfo
    from geothresh.training.options import FolderData, NetworkChoice, SceneData, Splitting
    from geothresh.training.recipe import Recipe
    from geothresh.vector.options import Centerlines, Foreground, Polygons, VectorWriting

_HOMES = {
    "BasePlan": "geothresh.base.config",
    "BaseRecipe": "geothresh.base.config",
    "BaseTiling": "geothresh.options",
    "BaseTrainResult": "geothresh.api.train_base",
    "Calibrating": "geothresh.calibration.options",
    "CalibrationReport": "geothresh.calibration.report",
    "Centerlines": "geothresh.vector.options",
    "ClusterError": "geothresh.errors",
    "Comparison": "geothresh.api.compare",
    "Compute": "geothresh.options",
    "CrossfitResult": "geothresh.api.crossfit",
    "DemoResult": "geothresh.api.demo",
    "DeviceLostError": "geothresh.errors",
    "ExportResult": "geothresh.api.export",
    "FolderData": "geothresh.training.options",
    "Foreground": "geothresh.vector.options",
    "GeothreshError": "geothresh.errors",
    "GeothreshWarning": "geothresh.errors",
    "Holdout": "geothresh.base.config",
    "ImageData": "geothresh.base.config",
    "InputError": "geothresh.errors",
    "LineReport": "geothresh.api.lines",
    "Many": "geothresh.many.options",
    "ManyInfo": "geothresh.many.overview",
    "Maps": "geothresh.evaluation.options",
    "ModelError": "geothresh.errors",
    "NetworkChoice": "geothresh.training.options",
    "OutputError": "geothresh.errors",
    "Outputs": "geothresh.options",
    "Polygons": "geothresh.vector.options",
    "PredictResult": "geothresh.api.predict_base",
    "Reading": "geothresh.options",
    "Recipe": "geothresh.training.recipe",
    "RefineManyResult": "geothresh.api.refine_many",
    "RefineResult": "geothresh.api.refine",
    "Refiner": "geothresh.mosaic",
    "RefinerSource": "geothresh.mosaic",
    "Refining": "geothresh.options",
    "Report": "geothresh.evaluation.report",
    "SceneData": "geothresh.training.options",
    "SceneInfo": "geothresh.run.scene_info",
    "Scoring": "geothresh.evaluation.options",
    "Splitting": "geothresh.training.options",
    "Tiling": "geothresh.options",
    "TrainCallbacks": "geothresh.api.train",
    "TrainResult": "geothresh.api.train",
    "UsageError": "geothresh.errors",
    "VectorWriting": "geothresh.vector.options",
    "VectorizeResult": "geothresh.api.vectorize",
    "Writing": "geothresh.options",
    "calibrate": "geothresh.api.calibrate",
    "compare": "geothresh.api.compare",
    "crossfit": "geothresh.api.crossfit",
    "demo": "geothresh.api.demo",
    "evaluate": "geothresh.api.evaluate",
    "evaluate_lines": "geothresh.api.lines",
    "export_onnx": "geothresh.api.export",
    "info": "geothresh.api.info",
    "load_model": "geothresh.api.models",
    "predict_base": "geothresh.api.predict_base",
    "refine": "geothresh.api.refine",
    "refine_array": "geothresh.api.arrays",
    "refine_dataarray": "geothresh.api.dataarrays",
    "refine_many": "geothresh.api.refine_many",
    "train": "geothresh.api.train",
    "train_base": "geothresh.api.train_base",
    "vectorize": "geothresh.api.vectorize",
}

__all__ = [
    "BasePlan",
    "BaseRecipe",
    "BaseTiling",
    "BaseTrainResult",
    "Calibrating",
    "CalibrationReport",
    "Centerlines",
    "ClusterError",
    "Comparison",
    "Compute",
    "CrossfitResult",
    "DemoResult",
    "DeviceLostError",
    "ExportResult",
    "FolderData",
    "Foreground",
    "GeothreshError",
    "GeothreshWarning",
    "Holdout",
    "ImageData",
    "InputError",
    "LineReport",
    "Many",
    "ManyInfo",
    "Maps",
    "ModelError",
    "NetworkChoice",
    "OutputError",
    "Outputs",
    "Polygons",
    "PredictResult",
    "Reading",
    "Recipe",
    "RefineManyResult",
    "RefineResult",
    "Refiner",
    "RefinerSource",
    "Refining",
    "Report",
    "SceneData",
    "SceneInfo",
    "Scoring",
    "Splitting",
    "Tiling",
    "TrainCallbacks",
    "TrainResult",
    "UsageError",
    "VectorWriting",
    "VectorizeResult",
    "Writing",
    "__version__",
    "calibrate",
    "compare",
    "crossfit",
    "demo",
    "evaluate",
    "evaluate_lines",
    "export_onnx",
    "info",
    "load_model",
    "predict_base",
    "refine",
    "refine_array",
    "refine_dataarray",
    "refine_many",
    "train",
    "train_base",
    "vectorize",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562) and keep it here."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
