"""Read and write calibration files: JSON with a version."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from geothresh.errors import InputError, UsageError
from geothresh.files import file_digest, write_text
from geothresh.nn.transformation import Transformation
from geothresh.options import Resolution, Tta
from geothresh.splitting import read_manifest

FORMAT = "geothresh calibration"
VERSION = 1
"""Version of the format; increased when older programs could not follow a new file."""
_NUMBERS = ("strength", "slope", "bias", "threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How to transform and cut the confidences of a base network, and why."""

    candidate: str
    """Label of the candidate that was advised."""
    advice: str
    """The advice in words."""
    model: str | None
    """Name of the model; None = without a model."""
    model_sha256: str
    """SHA-256 of the model's file; empty without a model."""
    model_file: str | None = None
    """Name of that file beside the calibration; None = a packaged model."""
    tta: Tta = "none"
    """Test-time augmentation of the model."""
    resolution: Resolution = "auto"
    """Resolution at which the model reads, see `Refining`."""
    transformation: Transformation
    figures: Mapping[str, Any]
    """The measured figures by name; `refine` does not use them."""

    @property
    def text(self) -> str:
        """The candidate and what it does, in words; once if both are the same: ``cut at 0.5``."""
        what = self.transformation.text()
        return what if what == self.candidate else f"{self.candidate}: {what}"

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(path, json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")

    def as_dict(self) -> dict[str, Any]:
        """The content of the file."""
        change = self.transformation
        model = None
        if self.model is not None:
            model = {
                "name": self.model, "sha256": self.model_sha256, "file": self.model_file,
                "tta": self.tta, "resolution": self.resolution,
            }  # fmt: skip
        return {
            "format": FORMAT,
            "version": VERSION,
            "advice": self.advice,
            "candidate": self.candidate,
            "model": model,
            "transformation": {
                **{name: getattr(change, name) for name in _NUMBERS},
                "keep": change.keep,
                "curve": [list(point) for point in change.curve],
            },
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFile:
    """A calibration that was read from a file."""

    path: Path
    sha256: str
    """SHA-256 of the file."""
    calibration: Calibration

    @classmethod
    def load(cls, path: Path) -> CalibrationFile:
        """Read a file that `geothresh calibrate` wrote.

        Raises:
            InputError: the file is unreadable, damaged, no calibration, or of a newer version.
        """
        try:
            values = read_manifest(path)
            _require_version(path, values)
            calibration = _calibration(values)
        except (
            ValueError, KeyError, TypeError, AttributeError, OverflowError, UsageError
        ) as error:  # fmt: skip
            raise InputError(
                f"{path}: no calibration, or a damaged one ({_reason(error)}); make it again with "
                "`geothresh calibrate`"
            ) from error
        return cls(path=path, sha256=file_digest(path), calibration=calibration)


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _require_version(path: Path, values: Mapping[str, Any]) -> None:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    version = values["version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"its version is {version!r}")
    if version > VERSION:
        raise InputError(
            f"{path}: version {version}, and this geothresh reads up to {VERSION}: it was made by "
            "a newer one; update geothresh, or calibrate again with this one"
        )


def _calibration(values: Mapping[str, Any]) -> Calibration:
    model = values["model"]
    named: dict[str, Any] = {"model": None, "model_sha256": ""}
    if model is not None:
        named = {
            "model": _text(model["name"]),
            "model_sha256": _text(model["sha256"]),
            "model_file": None if model["file"] is None else _file_name(model["file"]),
            "tta": model["tta"],
            "resolution": model["resolution"],
        }
        if named["tta"] not in get_args(Tta):
            raise ValueError(f"its tta is {named['tta']!r}")
        if named["resolution"] not in ("auto", "native"):
            named["resolution"] = _number(named["resolution"])
            if named["resolution"] <= 0:
                raise ValueError(f"its resolution is {named['resolution']:g} m")
    change = values["transformation"]
    transformation = Transformation(
        **{name: _number(change[name]) for name in _NUMBERS},
        keep=None if change["keep"] is None else _number(change["keep"]),
        curve=tuple((_number(x), _number(y)) for x, y in change["curve"]),
    )
    if model is None and transformation.strength:
        raise ValueError("it mixes with a model and names none")
    return Calibration(
        candidate=_text(values["candidate"]),
        advice=_text(values["advice"]),
        transformation=transformation,
        figures=values["figures"],
        **named,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} stands where a number should")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} stands where a text should")
    return value


def _file_name(value: object) -> str:
    """A file name without a folder, so that a calibration cannot name files elsewhere."""
    name = _text(value)
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a file beside it")
    return name
