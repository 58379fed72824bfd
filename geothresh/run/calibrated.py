"""Apply a calibration file: its model, options and transformation in place of those given."""

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

# Digits of a sha256 that are shown.
_DIGITS = 12
_USUAL_TILING = Tiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedCalibration:
    """Model, options and transformation of a run, after a calibration was applied."""

    model: Model
    refining: Refining
    """The options with those that the calibration decides; its own `calibration` is None."""
    transformation: Transformation | None = None
    """What the calibration does to each tile; None = there is none."""
    described: Mapping[str, str]
    """Its entries in tags and fingerprints."""

    def choose(
        self,
        compute: Compute,
        *,
        metres: float | None = None,
        width: Callable[[], float | None] | None = None,
        size: RasterSize | None = None,
        tiling: Tiling = _USUAL_TILING,
    ) -> ChosenModel:
        """Choose the model; arguments and errors as of `choose_model`."""
        return choose_model(
            self.model, compute, tta=self.refining.tta, resolution=self.refining.resolution,
            metres=metres, width=width, size=size, tiling=tiling,
            transformation=self.transformation,
        )  # fmt: skip


def apply_calibration(model: Model, refining: Refining) -> AppliedCalibration:
    """Apply the calibration in `refining`; without one everything stays as given.

    Args:
        model: as given; the default means that of the calibration.
        refining: options, with the calibration if there is one.

    Raises:
        InputError: the calibration is missing, damaged, or of a newer version.
        ModelError: it is of another model, or its model is not to be found.
        UsageError: it needs no model, and one is given.
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
            # Set even where it is the threshold: else that of the model card would be used.
            keep_threshold=change.threshold if change.keep is None else change.keep,
        ),
        transformation=change,
        described={
            "calibration": calibration.text,
            "calibration_sha256": file.sha256,
        },
    )


def _model(file: CalibrationFile, model: Model) -> Model:
    """The model of a calibration: as given, or found by its name."""
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
        path = _found(file, calibration.model)
    digest = file_digest(path)
    if digest != wanted:
        raise ModelError(
            f"{file.path}: is of the model {calibration.model} (sha256 {wanted[:_DIGITS]}...), and "
            f"{path.name} is another (sha256 {digest[:_DIGITS]}...); give the one that was "
            "calibrated, or calibrate again"
        )
    return path


def _found(file: CalibrationFile, name: str) -> Path:
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
