"""Transform confidences pixel by pixel, as a calibration defines: mix, rescale, threshold.

torch is not imported: a calibration may have no model at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from geothresh.errors import UsageError
from geothresh.nn.config import LOGIT_MARGIN
from geothresh.types import Float32Array


def clipped_logit(confidence: Float32Array) -> Float32Array:
    """Logits of confidences clipped to [`LOGIT_MARGIN`, 1 - `LOGIT_MARGIN`].

    All code uses this one margin, so that refining 0 to 0 is no change.
    """
    inside = np.clip(confidence, np.float32(LOGIT_MARGIN), np.float32(1 - LOGIT_MARGIN))
    return np.asarray(logit(inside), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformation:
    """Mix of input and refined logit, a monotone change of the mix, and thresholds.

    Each pixel is transformed on its own, so there are no seams between tiles.
    """

    strength: float = 1.0
    """Share of the refined logit in the mix; the rest is the input's. 0 needs no model."""
    slope: float = 1.0
    """Factor of the mixed logit: 1 / temperature."""
    bias: float = 0.0
    """Number that is added to the scaled logit."""
    curve: tuple[tuple[float, float], ...] = ()
    """Points (before, after) in rising order, joined by straight lines; they replace slope and
    bias."""
    threshold: float = 0.5
    """Pixels of at least this transformed confidence are foreground."""
    keep: float | None = None
    """Threshold for pixels that are foreground in the input, see `cut_mask`; None = the same."""

    def __post_init__(self) -> None:
        shares = {"strength": self.strength, "threshold": self.threshold}
        if self.keep is not None:
            shares["keep"] = self.keep
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{name} {value:g} of a transformation: give 0 to 1")
        if not (0 < self.slope < math.inf and math.isfinite(self.bias)):
            raise UsageError(
                f"slope {self.slope:g} and bias {self.bias:g} of a transformation: give a slope "
                "above 0 and a finite bias"
            )
        if self.curve:
            self._check_curve()

    def _check_curve(self) -> None:
        before, after = np.array(self.curve, np.float64).T
        inside = (before >= 0).all() and (before <= 1).all()
        inside &= bool((after >= 0).all() and (after <= 1).all())
        if not inside or (np.diff(before) <= 0).any() or (np.diff(after) < 0).any():
            raise UsageError("the curve of a transformation does not rise within 0 and 1")
        if (self.slope, self.bias) != (1.0, 0.0):
            raise UsageError("a transformation has a curve, or a slope and a bias; give one")

    @property
    def is_cut_only(self) -> bool:
        """Whether confidences are not changed, so that only the thresholds may differ."""
        return self.strength == 1 and not self._changes

    @property
    def _changes(self) -> bool:
        return bool(self.curve) or (self.slope, self.bias) != (1.0, 0.0)

    def mixed(self, confidence: Float32Array, refined: Float32Array) -> Float32Array:
        """Mix input and refined confidences, of equal shape, in [0, 1]."""
        if self.strength == 1:
            return refined
        if self.strength == 0:
            return confidence
        share = np.float32(self.strength)
        mix = share * clipped_logit(refined) + (1 - share) * clipped_logit(confidence)
        return np.asarray(expit(mix), np.float32)

    def calibrated(self, mixed: Float32Array) -> Float32Array:
        """Apply the monotone change to mixed confidences in [0, 1]."""
        if not self._changes:
            return mixed
        if self.curve:
            before, after = np.array(self.curve, np.float64).T
            return np.asarray(np.interp(mixed, before, after), np.float32)
        return np.asarray(
            expit(np.float32(self.slope) * clipped_logit(mixed) + np.float32(self.bias)), np.float32
        )

    def __call__(self, confidence: Float32Array, refined: Float32Array) -> Float32Array:
        """Mix input and refined confidences, of equal shape in [0, 1], and calibrate the mix."""
        return self.calibrated(self.mixed(confidence, refined))

    def text(self, digits: int = 9) -> str:
        """Describe the transformation in words; by default with all digits of a float32."""
        parts = [] if self.strength in (0, 1) else [f"strength {self.strength:.{digits}g}"]
        if self.curve:
            parts.append(f"an isotonic curve of {len(self.curve)} points")
        elif self._changes:
            parts.append(f"logit x {self.slope:.{digits}g} {self.bias:+.{digits}g}")
        parts.append(f"cut at {self.threshold:.{digits}g}")
        if self.keep is not None and self.keep < self.threshold:
            parts.append(f"foreground of the input kept down to {self.keep:.{digits}g}")
        return ", ".join(parts)
