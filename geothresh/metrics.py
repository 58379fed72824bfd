"""Metrics of masks and confidence maps: counts are added up first, ratios are taken last.

Counts of maps, tiles or batches add up to the counts of the whole, so that no metric needs more
than one map in memory. The result of the empty case (no foreground in prediction and truth) is a
parameter of the ratio, not a smoothing constant.

Names of the means (section 4.1 of the paper does not define "mIoU", so each mean has its own name):

- ``miou``: foreground IoU of each map, averaged over maps; empty against empty is 1.
- ``iou_pooled``: foreground IoU of the counts of all maps together.
- ``miou_two_class``: mean of foreground and background IoU of the counts of all maps together.
- ``boundary_iou``, ``boundary_iou_pooled``: like the first two, for the pixels near contours.
- ``mae``: mean of abs(confidence - truth) within each map, averaged over maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geothresh.options import Metric
from geothresh.types import BoolArray, UInt8Array

DIAGONAL_SHARE = 0.02
"""Distance of Boundary IoU, as a share of the raster's diagonal."""

PAPER_SIDE, PAPER_DISTANCE = 512, 15
"""The paper's constant: 15 pixels at 512 x 512, where 2 % of the diagonal would be 14.48."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers of pixels by predicted and true class; counts of tiles or maps can be added."""

    tp: int = 0
    """Foreground in prediction and truth."""
    fp: int = 0
    """Foreground in the prediction, background in the truth."""
    fn: int = 0
    """Background in the prediction, foreground in the truth."""
    tn: int = 0
    """Background in prediction and truth."""

    @classmethod
    def of(
        cls, *, prediction: BoolArray, target: BoolArray, valid: BoolArray | None = None
    ) -> Counts:
        """Count the pixels of a prediction against its target.

        Args:
            prediction: boolean, any shape, True = foreground.
            target: boolean, the same shape, True = foreground.
            valid: boolean, the same shape, True = the pixel counts; None = all count.

        Raises:
            ValueError: shapes differ or an array is not boolean.
        """
        _check(prediction=prediction, target=target, valid=valid)
        if valid is not None:
            prediction, target = prediction & valid, target & valid
        total = prediction.size if valid is None else int(np.count_nonzero(valid))
        tp = int(np.count_nonzero(prediction & target))
        fp = int(np.count_nonzero(prediction)) - tp
        fn = int(np.count_nonzero(target)) - tp
        return cls(tp=tp, fp=fp, fn=fn, tn=total - tp - fp - fn)

    def __add__(self, other: Counts | int) -> Counts:
        """Add counts; adding 0 changes nothing, so that ``sum`` works."""
        if isinstance(other, Counts):
            return Counts(
                tp=self.tp + other.tp,
                fp=self.fp + other.fp,
                fn=self.fn + other.fn,
                tn=self.tn + other.tn,
            )
        return self if other == 0 else NotImplemented

    __radd__ = __add__

    @property
    def total(self) -> int:
        """Number of counted pixels."""
        return self.tp + self.fp + self.fn + self.tn

    def iou(self, empty: float = 1.0) -> float:
        """Foreground intersection over union, 0 to 1; ``empty`` where the union is empty."""
        return _ratio(self.tp, self.tp + self.fp + self.fn, empty)

    def background_iou(self, empty: float = 1.0) -> float:
        """Background intersection over union, 0 to 1; ``empty`` where the union is empty."""
        return _ratio(self.tn, self.tn + self.fp + self.fn, empty)

    def two_class_iou(self, empty: float = 1.0) -> float:
        """Mean of foreground and background IoU, 0 to 1."""
        return (self.iou(empty) + self.background_iou(empty)) / 2

    def precision(self, empty: float = 1.0) -> float:
        """Share of the predicted foreground that is right; ``empty`` where none is predicted."""
        return _ratio(self.tp, self.tp + self.fp, empty)

    def recall(self, empty: float = 1.0) -> float:
        """Share of the true foreground that is found; ``empty`` where there is none."""
        return _ratio(self.tp, self.tp + self.fn, empty)

    def as_dict(self) -> dict[str, int]:
        """The four counts by name."""
        return asdict(self)


def boundary_distance(height: int, width: int) -> int:
    """Distance of Boundary IoU in pixels for a raster of a size, at least 1.

    It is 15 at 512 x 512, the paper's constant, and 2 % of the diagonal, rounded, at every other
    size (11 at 400 x 400, 29 at 1024 x 1024).

    Raises:
        ValueError: a side is less than 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a raster of {height} x {width} pixels has no diagonal; give sides >= 1")
    if height == width == PAPER_SIDE:
        return PAPER_DISTANCE
    return max(1, round(DIAGONAL_SHARE * math.hypot(height, width)))


def erode(values: UInt8Array, distance: int, metric: Metric = "chessboard") -> UInt8Array:
    """Erode: minimum within ``distance`` pixels of each pixel; values outside the raster are 0.

    Args:
        values: (height, width), a mask as 0 and 1 or grey values.
        distance: pixels, at least 1.
        metric: see `Metric`.

    Raises:
        ValueError: the distance is less than 1, the metric is unknown, or the array is not 2-D.
    """
    if distance < 1 or values.ndim != 2 or metric not in get_args(Metric):
        raise ValueError(
            f"boundary of a {values.ndim}-D mask at distance {distance} ({metric}); give a 2-D "
            f"mask, at least 1 pixel, and one of {', '.join(get_args(Metric))}"
        )
    # At the length of the longer side, every pixel reaches the border, so everything is eroded.
    distance = min(distance, max(values.shape, default=1))
    if metric == "chessboard":
        # d steps are one minimum over a square of 2 d + 1 pixels, which is separable: its cost does
        # not grow with the distance.
        eroded = ndimage.minimum_filter(values, size=2 * distance + 1, mode="constant", cval=0)
        return np.asarray(eroded, dtype=np.uint8)
    framed = np.pad(values, 1)
    for _ in range(distance):  # a diamond is not separable; its steps are cheap
        inner = np.minimum(framed[:-2, 1:-1], framed[2:, 1:-1])
        np.minimum(inner, framed[1:-1, :-2], out=inner)
        np.minimum(inner, framed[1:-1, 2:], out=inner)
        np.minimum(inner, framed[1:-1, 1:-1], out=framed[1:-1, 1:-1])
    return framed[1:-1, 1:-1]


def boundary_band(mask: BoolArray, distance: int, metric: Metric = "chessboard") -> BoolArray:
    """The foreground pixels of a mask within ``distance`` of its contour.

    These are the pixels that ``distance`` erosions by a 3 x 3 square remove. The outside of the
    raster counts as background, so a mask has a contour where the raster's border cuts it, as in
    Cheng et al., "Boundary IoU", 2021.

    Args:
        mask: boolean (height, width), True = foreground.
        distance: pixels, at least 1.
        metric: see `Metric`.

    Raises:
        ValueError: the distance is less than 1 or the mask is not a boolean image.
    """
    _check(prediction=mask, target=mask, valid=None)
    core: BoolArray = erode(mask.view(np.uint8), distance, metric).view(np.bool_)
    return mask & ~core


def boundary_counts(
    *,
    prediction: BoolArray,
    target: BoolArray,
    valid: BoolArray | None = None,
    distance: int,
    metric: Metric = "chessboard",
) -> Counts:
    """Counts whose ``iou()`` is Boundary IoU: they compare the boundary bands of two masks.

    A pixel is a true positive if it lies in the band of both masks, a false positive if only in
    the prediction's, a false negative if only in the target's. Invalid pixels belong to neither
    mask and are not counted: a hole in the data acts like the raster's border.

    Args:
        prediction: boolean (height, width), True = foreground.
        target: boolean (height, width), True = foreground.
        valid: boolean (height, width), True = the pixel counts; None = all count.
        distance: reach of the bands in pixels, see `boundary_distance`.
        metric: see `Metric`.

    Raises:
        ValueError: shapes differ, an array is not boolean, or the distance is less than 1.
    """
    _check(prediction=prediction, target=target, valid=valid)
    if valid is not None:
        prediction, target = prediction & valid, target & valid
    return Counts.of(
        prediction=boundary_band(prediction, distance, metric),
        target=boundary_band(target, distance, metric),
        valid=valid,
    )


def absolute_error(
    *, confidence: NDArray[Any], target: BoolArray, valid: BoolArray | None = None
) -> float:
    """Mean of abs(confidence - truth) over the valid pixels, 0 to 1; 0 if no pixel is valid.

    Args:
        confidence: float, any shape, [0, 1]; values of invalid pixels do not matter.
        target: boolean, the same shape, True = foreground.
        valid: boolean, the same shape, True = the pixel counts; None = all count.

    Raises:
        ValueError: shapes differ or target or valid is not boolean.
    """
    _check(prediction=target, target=target, valid=valid)
    if confidence.shape != target.shape:
        raise ValueError(f"confidence is {confidence.shape}, target {target.shape}; align them")
    error = np.abs(np.asarray(confidence, dtype=np.float32) - target)
    if valid is not None:
        error = error[valid]
    return float(error.mean(dtype=np.float64)) if error.size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapScore:
    """Scores of one predicted mask against its truth."""

    counts: Counts
    """Counts over the whole mask."""
    boundary: Counts
    """Counts over the boundary bands, see `boundary_counts`."""
    mae: float | None = None
    """Mean of abs(confidence - truth), 0 to 1; None if there is no confidence for the mask."""

    @classmethod
    def of(
        cls,
        *,
        prediction: BoolArray,
        target: BoolArray,
        valid: BoolArray | None = None,
        confidence: NDArray[Any] | None = None,
        distance: int | None = None,
        metric: Metric = "chessboard",
    ) -> MapScore:
        """Score a mask (height, width); ``distance`` None stands for `boundary_distance`.

        Raises:
            ValueError: shapes differ or an array has the wrong dtype.
        """
        if distance is None:
            distance = boundary_distance(prediction.shape[0], prediction.shape[1])
        return cls(
            counts=Counts.of(prediction=prediction, target=target, valid=valid),
            boundary=boundary_counts(
                prediction=prediction,
                target=target,
                valid=valid,
                distance=distance,
                metric=metric,
            ),
            mae=None
            if confidence is None
            else absolute_error(confidence=confidence, target=target, valid=valid),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Metrics of a set of maps, 0 to 1; the top of the module defines them."""

    n: int
    """Number of maps in the set."""
    miou: float
    iou_pooled: float
    miou_two_class: float
    boundary_iou: float
    boundary_iou_pooled: float
    mae: float | None
    """None unless all maps have one."""

    @classmethod
    def of(cls, scores: Sequence[MapScore]) -> Summary:
        """Summarise a set of maps.

        Raises:
            ValueError: the set is empty.
        """
        if not scores:
            raise ValueError("a summary of 0 maps has no mean; give at least one")
        pooled = sum((s.counts for s in scores), Counts())
        boundary = sum((s.boundary for s in scores), Counts())
        errors = [s.mae for s in scores if s.mae is not None]
        return cls(
            n=len(scores),
            miou=math.fsum(s.counts.iou() for s in scores) / len(scores),
            iou_pooled=pooled.iou(),
            miou_two_class=pooled.two_class_iou(),
            boundary_iou=math.fsum(s.boundary.iou() for s in scores) / len(scores),
            boundary_iou_pooled=boundary.iou(),
            mae=math.fsum(errors) / len(errors) if len(errors) == len(scores) else None,
        )

    def as_dict(self) -> dict[str, int | float | None]:
        """The metrics by name."""
        return asdict(self)


def _ratio(part: int, whole: int, empty: float) -> float:
    return part / whole if whole else empty


def _check(*, prediction: BoolArray, target: BoolArray, valid: BoolArray | None) -> None:
    arrays = {"prediction": prediction, "target": target}
    if valid is not None:
        arrays["valid"] = valid
    for name, array in arrays.items():
        if array.dtype != np.bool_:
            raise ValueError(
                f"{name} is {array.dtype}, not boolean; compare with a threshold first"
            )
        if array.shape != prediction.shape:
            raise ValueError(f"{name} is {array.shape}, prediction {prediction.shape}; align them")
