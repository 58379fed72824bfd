"""Decide once for a raster how stored values become confidences.

The decision is made from the band's type, its scale tags and a sample of its values. A pixel that
does not fit it later is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geothresh.errors import InputError, UsageError, warn
from geothresh.options import ScaleOption
from geothresh.windows import PixelWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Resampled probabilities may overshoot [0, 1] by this much. Values farther outside are not
# confidences.
_TOLERANCE = 0.01
# Overshoot by float32 rounding, which needs no warning.
_ROUNDING = 1e-6
# Larger values are markers of missing data, not logits, percent or counts.
_SENTINEL = 9000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BandFacts:
    """The facts that decide the scaling of one band."""

    name: str
    """The raster's name in messages."""
    dtype: np.dtype[Any]
    """Type of the stored numbers."""
    scale: float = 1.0
    """The band's scale tag; 1 where there is none."""
    offset: float = 0.0
    """The band's offset tag; 0 where there is none."""
    bits: int | None = None
    """The NBITS tag: bits per pixel, if fewer than the type has; None without the tag."""
    sample: NDArray[Any]
    """Stored values of valid, finite pixels, 1-D, evenly spread over the raster; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How values become confidences: value / divisor + offset, then logistic if `logit`.

    The value is divided, not multiplied by the inverse, so that 127 / 254 is 0.5 to the last bit.
    """

    divisor: float = 1.0
    offset: float = 0.0
    logit: bool = False
    text: str
    """The decision in words, for the user."""

    def apply(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Turn stored values into confidences in [0, 1]; 0 where `valid` is False.

        Raises:
            Contradiction: a valid value lies outside [-0.01, 1.01] after scaling.
        """
        # Values of missing data may be anything, including inf and 1e300.
        with np.errstate(over="ignore", invalid="ignore"):
            # Convert first: a division that also converts takes twice as long.
            scaled: NDArray[np.float32] = values.astype(np.float32)
            if self.divisor != 1.0:
                scaled /= np.float32(self.divisor)
            if self.offset != 0.0:
                scaled += np.float32(self.offset)
        if not valid.all():
            scaled[~valid] = 0.0
        if self.logit:
            return logistic(scaled, valid)
        if self._always_fits(values.dtype):
            return scaled
        low, high = float(scaled.min()), float(scaled.max())
        if low < -_TOLERANCE or high > 1.0 + _TOLERANCE:
            outside = (scaled < -_TOLERANCE) | (scaled > 1.0 + _TOLERANCE)
            raise Contradiction.at(values, outside)
        if low < 0.0 or high > 1.0:
            np.clip(scaled, 0.0, 1.0, out=scaled)
        return scaled

    def confidences(
        self, stored: NDArray[Any], valid: NDArray[np.bool_], *, name: str, window: PixelWindow
    ) -> NDArray[np.float32]:
        """Turn the stored values of a window into confidences, like `apply`.

        Args:
            stored: the stored values of the window.
            valid: True where they are data.
            name: name of the raster, for messages.
            window: the window.

        Raises:
            InputError: a value does not fit the scaling, which was decided from a sample.
        """
        try:
            return self.apply(stored, valid)
        except Contradiction as contradiction:
            raise self._error(contradiction, stored.dtype, name, window) from None

    def _error(
        self, wrong: Contradiction, dtype: np.dtype[Any], name: str, window: PixelWindow
    ) -> InputError:
        if dtype == np.uint8 and self.divisor == 1.0:
            hint = "use `scale=255` if the values run from 0 to 255"
        else:
            hint = _hint(np.array([wrong.value])) or (
                "force another reading with `scale=N` or `scale=logit`"
            )
        row, column = window.row + wrong.row, window.col + wrong.column
        return InputError(
            f"{name}: the value {wrong.value:.6g} at row {row}, column {column} (in {window.text}) "
            f"contradicts the scaling decided from a sample, {self.text}; {hint}"
        )

    def _always_fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether every value of the type is a confidence, so that none needs a check."""
        if not np.issubdtype(dtype, np.integer):
            return False
        limits = np.iinfo(dtype)
        ends = (np.float32(end) / np.float32(self.divisor) for end in (limits.min, limits.max))
        return all(0.0 <= end + np.float32(self.offset) <= 1.0 for end in ends)


def telling_values(values: NDArray[Any]) -> NDArray[Any]:
    """The few of many valid values, 1-D, that decide the scaling.

    For uint8 these are the distinct values. For other types they are minimum and maximum, with and
    without markers of missing data.
    """
    if values.dtype == np.uint8:
        return np.flatnonzero(np.bincount(values, minlength=256)).astype(np.uint8)
    near = values[np.abs(values.astype(np.float64)) < _SENTINEL]
    ends = [part for part in (values, near) if part.size]
    return np.array([end for part in ends for end in (part.min(), part.max())], values.dtype)


class Contradiction(Exception):
    """A value that does not fit the scaling, with its row and column in the array."""

    def __init__(self, value: float, row: int, column: int) -> None:
        super().__init__(value, row, column)
        self.value = value
        self.row = row
        self.column = column

    @classmethod
    def at(cls, values: NDArray[Any], wrong: NDArray[np.bool_]) -> Contradiction:
        """The first of the `wrong` values, in raster order."""
        row, column = np.argwhere(wrong)[0]
        return cls(values[row, column].item(), int(row), int(column))


def logistic(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) in float32 without overflow; 0 where `valid` is False.

    It replaces `scipy.special.expit`, three in ten of whose values differ in the last bit, which
    would change the outputs of all scenes of logits.
    """
    decay = np.exp(-np.abs(values))
    confidence: NDArray[np.float32] = np.where(values >= 0, 1.0, decay).astype(np.float32)
    confidence /= 1.0 + decay
    confidence[~valid] = 0.0
    return confidence


def decide_scaling(facts: BandFacts, option: ScaleOption = "auto") -> Scaling:
    """Decide how the values of a band become confidences.

    Args:
        facts: type, tags and sample of the band.
        option: "auto" decides from `facts`; a number N divides by it; "logit" applies the logistic
            function (after the scale and offset tags, if the band has them).

    Raises:
        UsageError: `option` is none of these.
        InputError: the values are not confidences; the message names the option to use.
    """
    if np.issubdtype(facts.dtype, np.complexfloating):
        raise InputError(
            f"{facts.name}: the band is {facts.dtype}; a confidence is a real number: "
            "write its real part or modulus to a new file"
        )
    if option == "logit":
        return Scaling(
            divisor=_tag_divisor(facts),
            offset=facts.offset,
            logit=True,
            text="logistic function of the value",
        )
    if option != "auto":
        return _divided(facts, option)
    if (facts.scale, facts.offset) != (1.0, 0.0):
        return _tagged(facts)
    if facts.bits == 1:
        return Scaling(text="1-bit values taken as 0 and 1")
    if facts.dtype == np.uint8:
        return _uint8(facts)
    if np.issubdtype(facts.dtype, np.integer):
        raise InputError(
            f"{facts.name}: the band is {facts.dtype} without a scale tag, "
            f"{_range(facts.sample)}; say what stands for confidence 1: "
            f"{_hint(facts.sample) or 'use `scale=N`'}"
        )
    return _floating(facts)


def _tag_divisor(facts: BandFacts) -> float:
    """1 / scale tag, made a whole number if it differs from one only by rounding."""
    sound = math.isfinite(facts.scale) and math.isfinite(facts.offset) and facts.scale != 0.0
    if not (sound and _in_float32(1.0 / facts.scale)):
        raise InputError(
            f"{facts.name}: the scale and offset tags ({facts.scale:g}, {facts.offset:g}) mean "
            "nothing; correct them with gdal_edit.py -scale 1 -offset 0, or give `scale=N`"
        )
    inverse = 1.0 / facts.scale
    whole = round(inverse)
    return float(whole) if whole and abs(inverse - whole) <= 1e-9 * abs(inverse) else inverse


def _in_float32(divisor: float) -> bool:
    """Whether float32 holds a divisor: others would give NaN, or 0 for every value."""
    limits = np.finfo(np.float32)
    return float(limits.tiny) <= abs(divisor) <= float(limits.max)


def _divided(facts: BandFacts, divisor: float | str) -> Scaling:
    if isinstance(divisor, str) or not (divisor > 0 and _in_float32(divisor)):
        raise UsageError(
            f"scale {divisor!r} is not 'auto', 'logit' or a positive number; "
            "give the value that stands for confidence 1"
        )
    scaling = Scaling(divisor=float(divisor), text=f"value / {divisor:g}, as asked")
    _require_fit(facts, scaling, f"`scale={divisor:g}` does not fit")
    return scaling


def _tagged(facts: BandFacts) -> Scaling:
    scaling = Scaling(
        divisor=_tag_divisor(facts),
        offset=facts.offset,
        text=f"value * {facts.scale:.9g} + {facts.offset:g}, from the band's scale and offset tags",
    )
    _require_fit(
        facts,
        scaling,
        f"the scale and offset tags ({facts.scale:g}, {facts.offset:g}) do not give confidences",
    )
    return scaling


def _uint8(facts: BandFacts) -> Scaling:
    highest = int(facts.sample.max()) if facts.sample.size else 0
    if highest == 1:
        warn(
            f"{facts.name}: uint8 that holds only 0 and 1 is taken as confidence 0 and 1; "
            "use `scale=255` if it is 1/255"
        )
        return Scaling(text="uint8 that holds only 0 and 1, taken as such")
    if highest == 100:
        warn(
            f"{facts.name}: the highest value of the uint8 band is 100; "
            "it is divided by 255, use `scale=100` if it is a percentage"
        )
    # np.unique would load numpy's masked arrays.
    cut = highest == 255 and facts.sample.min() == 0
    if cut and not ((facts.sample > 0) & (facts.sample < 255)).any():
        warn(
            f"{facts.name}: uint8 that holds only 0 and 255 looks like a mask that has been cut; "
            "give the confidences that it was cut from: of a mask refining changes next to nothing"
        )
    return Scaling(divisor=255.0, text="uint8 / 255")


def _floating(facts: BandFacts) -> Scaling:
    scaling = Scaling(text=f"{facts.dtype} in [0, 1], as it is")
    _require_fit(facts, scaling, "no confidences in [0, 1]")
    if facts.sample.size:
        low, high = float(facts.sample.min()), float(facts.sample.max())
        if low < -_ROUNDING or high > 1.0 + _ROUNDING:
            warn(f"{facts.name}: values from {low:.6g} to {high:.6g} are clipped to [0, 1]")
    return scaling


def _require_fit(facts: BandFacts, scaling: Scaling, complaint: str) -> None:
    sample = facts.sample
    if not sample.size:
        return
    ends = [float(sample.min()), float(sample.max())]
    scaled = [end / scaling.divisor + scaling.offset for end in ends]
    if min(scaled) >= -_TOLERANCE and max(scaled) <= 1.0 + _TOLERANCE:
        return
    hint = _hint(sample) or "force another reading with `scale=N` or `scale=logit`"
    raise InputError(f"{facts.name}: {complaint}: {_range(sample)}; {hint}")


def _range(sample: NDArray[Any]) -> str:
    if not sample.size:
        return "no valid value in the sample"
    low, high = sample.min().item(), sample.max().item()
    return f"values from {low:.6g} to {high:.6g}"


def _hint(sample: NDArray[Any]) -> str | None:
    """The option that would make these values confidences; None if there is no good guess."""
    if not sample.size:
        return None
    values = sample.astype(np.float64)
    far = values[np.abs(values) >= _SENTINEL]
    near = values[np.abs(values) < _SENTINEL]
    lowest_far = far.min() if far.size else 0.0
    if far.size and (lowest_far < 0 or far.max() > 65535) and np.ptp(far) == 0:
        return f"use `nodata={far[0]:.9g}` if that marks missing data"
    if not near.size or (far.size and lowest_far < 0):
        return None
    if values.min() < -_TOLERANCE:
        return "use `scale=logit` if these are logits"
    highest = values.max()
    largest = 32767 if sample.dtype == np.int16 else 65535
    for divisor, meaning in (
        (1, "0 and 1"),
        (100, "percent"),
        (255, "0 to 255"),
        (1000, "per mille"),
        (10000, "0 to 10000"),
        (largest, f"0 to {largest}"),
    ):
        if highest <= divisor * (1.0 + _TOLERANCE):
            return f"use `scale={divisor}` if these are {meaning}"
    return None
