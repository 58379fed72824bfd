"""Apply a calibration file: its model, options and transformation replace those of the user."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from geothresh.calibration.file import CalibrationFile
from geothresh.errors import ModelError, UsageError
from geothresh.files import file_digest
from geothresh.nn.packaged import DEFAULT_MODEL, find_model, packaged_models
from geothresh.nn.transformation import Transformation
from geothresh.nn.wrappers import UnchangedSource
from geothresh.options import Compute, Refining, Tiling
from geothresh.run.models import ChosenModel, Model, choose_model
from geothresh.windows import RasterSize

# Digits of a sha256 that messages show.
_DIGITS = 12
_USUAL_TILING = Tiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedCalibration:
    """Model, options and transformation of a run, after a calibration was applied."""

    model: Model
    refining: Refining
    """The options, with those that the calibration decides; its field `calibration` is None."""
    transformation: Transformation | None = None
    """Transformation of refined tiles by the calibration; None = no calibration."""
    described: Mapping[str, str]
    """Entries about the calibration in tags and fingerprints."""

    def choose(
        self,
        compute: Compute,
        *,
        metres: float | None = None,
        width: Callable[[], float | None] | None = None,
        size: RasterSize | None = None,
        tiling: Tiling = _USUAL_TILING,
    ) -> ChosenModel:
        """Choose the model; arguments and errors are those of `choose_model`."""
        return choose_model(
            self.model, compute, tta=self.refining.tta, resolution=self.refining.resolution,
            metres=metres, width=width, size=size, tiling=tiling,
            transformation=self.transformation,
        )  # fmt: skip


def apply_calibration(model: Model, refining: Refining) -> AppliedCalibration:
    """Apply the calibration in `refining`; without one, nothing is changed.

    Args:
        model: the user's model; the default stands for that of the calibration.
        refining: the options, with the calibration if there is one.

    Raises:
        InputError: the calibration is missing, damaged, or of a newer version.
        ModelError: the calibration is for another model, or its model cannot be found.
        UsageError: the calibration needs no model, but one is given.
    """
    if refining.calibration is None:
        return AppliedCalibration(model=model, refining=refining, described={})
    file = CalibrationFile.load(Path(refining.calibration))
    calibration = file.calibration
    change = calibration.transformation
    return AppliedCalibration(
        model=_model(file, model),
        refining=replace(
            refining,
            calibration=None,
            tta=calibration.tta,
            resolution=calibration.resolution,
            threshold=change.threshold,
            # Set even if it equals the threshold: otherwise that of the model card would be used.
            keep_threshold=change.threshold if change.keep is None else change.keep,
        ),
        transformation=change,
        described={
            "calibration": calibration.text,
            "calibration_sha256": file.sha256,
        },
    )


def _model(file: CalibrationFile, model: Model) -> Model:
    """The model of a calibration: the user's, or found by its name."""
    calibration, given = file.calibration, model != DEFAULT_MODEL
    if calibration.model is None:
        if given:
            raise UsageError(
                f"{file.path}: needs no model ({calibration.candidate}); leave out `model`"
            )
        return UnchangedSource()
    wanted = calibration.model_sha256
    if given and isinstance(model, str | os.PathLike):
        path = find_model(model)
    elif given:
        raise UsageError(f"{file.path}: is of a model file; give that as `model`, or nothing")
    else:
        path = _model_file(file, calibration.model)
    digest = file_digest(path)
    if digest != wanted:
        raise ModelError(
            f"{file.path}: is of the model {calibration.model} (sha256 {wanted[:_DIGITS]}...), and "
            f"{path.name} is another (sha256 {digest[:_DIGITS]}...); give the one that was "
            "calibrated, or calibrate again"
        )
    return path


def _model_file(file: CalibrationFile, name: str) -> Path:
    """The model file of a calibration: a packaged model, or a file beside the calibration."""
    beside = file.calibration.model_file
    if beside is None:
        packaged = packaged_models()
        if name in packaged:
            return packaged[name]
    else:
        path = file.path.parent / beside
        if path.is_file():
            return path
    raise ModelError(
        f"{file.path}: its model {name} is {'not packaged' if beside is None else 'not beside it'}"
        f" (sha256 {file.calibration.model_sha256[:_DIGITS]}...); name the file as `model`"
    )
