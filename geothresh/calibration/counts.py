"""Count labelled maps as histograms, to which thresholds and calibrations are fitted.

A map is counted at the 256 levels of 8 bits, and every cut lies half-way between two levels. So the
counts of 8-bit maps are exact at any threshold, and those of other maps at the cuts. A map takes 4
kB, whatever its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from geothresh.errors import InputError
from geothresh.evaluation.scoring import Sample
from geothresh.metrics import Counts
from geothresh.nn.transformation import Transformation
from geothresh.thresholding import region_target
from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array

N_LEVELS = 256
LEVELS: Float32Array = (np.arange(N_LEVELS) / 255).astype(np.float32)
"""The confidence that each level stands for."""
CUTS: Float32Array = ((np.arange(N_LEVELS) - 0.5) / 255).astype(np.float32)
"""Threshold of each cut: cut k takes level k and above, cut 0 everything."""
HALF = 128
"""The cut at 0.5."""
MOST_MAPS = 4000
"""The most maps that are accepted. A few hundred are enough, and each takes 4 kB for each source:
there are 17 sources with four models."""


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Confidences to transform and cut: the maps themselves, or mixes with refined ones."""

    model: str = ""
    """Name of the model; empty = the maps as they are."""
    strength: float = 0.0
    """Share of the refined logit in the mix; 0 without a model."""


INPUT = Source()
"""The maps as they are."""


def level_counts(
    confidence: Float32Array, truth: BoolArray, before: BoolArray, valid: BoolArray | None = None
) -> Int64Array:
    """Count the pixels of a map.

    Args:
        confidence: (H, W) in [0, 1].
        truth: (H, W), True = foreground.
        before: (H, W), True = foreground of the input, cut at 0.5.
        valid: (H, W), True = counted; all pixels if left out.

    Returns:
        (2, 2, 256) pixels by class in the input, true class (background, foreground) and level.
    """
    kinds = (confidence * np.float32(255) + np.float32(0.5)).astype(np.intp)
    kinds += truth * N_LEVELS + before * (2 * N_LEVELS)
    counted = kinds.ravel() if valid is None else kinds[valid]
    return np.bincount(counted, minlength=4 * N_LEVELS).reshape(2, 2, N_LEVELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedMaps:
    """Histograms of labelled maps, from every source."""

    ids: Sequence[str]
    """Unique id of each map."""
    places: Sequence[str]
    """Place of each map. Maps of one place are held out together, and have one weight."""
    counts: Mapping[Source, Int64Array]
    """(M, 2, 2, 256) from each source, see `level_counts`."""
    regions: Float64Array
    """(M,) IoU of the cut at the best threshold of each region (an oracle)."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds for a megapixel by model; "" stands for reading alone."""
    megapixels: float = 0.0
    """Megapixels of all maps together."""

    def of(self, which: Sequence[int]) -> CountedMaps:
        """Select maps by index."""
        numbers = np.asarray(which, np.intp)
        return replace(
            self,
            ids=[self.ids[k] for k in numbers],
            places=[self.places[k] for k in numbers],
            counts={source: of_maps[numbers] for source, of_maps in self.counts.items()},
            regions=self.regions[numbers],
        )

    def with_sources(
        self, counts: Mapping[Source, Int64Array], seconds: Mapping[str, float]
    ) -> CountedMaps:
        """Add further sources of the same maps."""
        return replace(self, counts={**self.counts, **counts}, seconds={**self.seconds, **seconds})

    @property
    def weights(self) -> Float64Array:
        """(M,) weights of a mean over places, which sum to 1; maps of a place share its weight."""
        _, place, number = np.unique(self.places, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / (len(number) * number[place]))

    def by_place(self, values: Float64Array) -> Float64Array:
        """(P, ...) means of values (M, ...) over the maps of each place."""
        _, place, number = np.unique(self.places, return_inverse=True, return_counts=True)
        sums = np.zeros((len(number), *values.shape[1:]))
        np.add.at(sums, place, values)
        return np.asarray((sums.T / number).T)


def iou_at_cuts(counts: Int64Array) -> Float64Array:
    """(M, 256) IoU of maps (M, 2, 2, 256) at every cut; empty against empty is 1."""
    by_truth = counts.sum(axis=1, dtype=np.int64)
    reached = by_truth[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return iou(reached[:, 1], reached[:, 0], by_truth[:, 1].sum(axis=-1)[:, None])


def iou_of_mask(counts: Int64Array, mask: BoolArray) -> Float64Array:
    """(M,) IoU of maps (M, 2, 2, 256) if the levels (2, 256) of a mask are foreground.

    The first row of the mask is for pixels that are background in the input.
    """
    found = np.einsum("mbtl,bl->mt", counts, mask.astype(np.int64))
    return iou(found[:, 1], found[:, 0], counts[:, :, 1].sum(axis=(1, 2)))


def iou(hits: Int64Array, false_alarms: Int64Array, foreground: Int64Array) -> Float64Array:
    """Foreground IoU of counts; empty against empty is 1."""
    union = foreground + false_alarms
    return np.where(union > 0, hits / np.maximum(union, 1), 1.0)


def require_few(maps: int) -> None:
    """Raise InputError if there are more maps than `MOST_MAPS`."""
    if maps > MOST_MAPS:
        raise InputError(
            f"{maps} maps, and at most {MOST_MAPS} are calibrated on; a few hundred tell all: name "
            "some of them with `ids`"
        )


class MapCounter:
    """Counts labelled maps one by one, and does not keep them."""

    def __init__(self, patch: int) -> None:
        """Start with no map; regions have a side of `patch` pixels."""
        self._patch = patch
        self._counts: dict[Source, dict[str, Int64Array]] = {INPUT: {}}
        self._regions: dict[str, float] = {}
        self.pixels = 0
        """Number of pixels of the maps so far."""

    def add(self, sample: Sample) -> None:
        """Count a map itself, and the IoU of its best thresholds by region."""
        truth, valid = sample.truth, sample.valid
        self._put(INPUT, sample, sample.confidence)
        target = region_target(sample.confidence, truth, patch=self._patch, valid=valid)
        self._regions[sample.id] = Counts.of(prediction=target, target=truth, valid=valid).iou()
        self.pixels += truth.size

    def add_refined(self, sample: Sample, model: str, strengths: Sequence[float]) -> None:
        """Count the mixes of a map and its refined form.

        Raises:
            ValueError: the map is not refined.
        """
        if sample.refined is None:
            raise ValueError(f"{sample.id} is not refined")
        for strength in strengths:
            mix = Transformation(strength=strength).mixed(sample.confidence, sample.refined)
            self._put(Source(model, strength), sample, mix)

    def counted(self, place_of: Mapping[str, str], seconds: Mapping[str, float]) -> CountedMaps:
        """Return all maps counted so far, sorted by id.

        Args:
            place_of: the place of each map, by its id.
            seconds: see `CountedMaps`.
        """
        ids = sorted(self._regions)
        return CountedMaps(
            ids=ids,
            places=[place_of[i] for i in ids],
            counts=self.sources(ids),
            regions=np.array([self._regions[i] for i in ids]),
            seconds=seconds,
            megapixels=self.pixels / 1e6,
        )

    def sources(self, ids: Sequence[str]) -> dict[Source, Int64Array]:
        """Histograms (M, 2, 2, 256) from each source, in the order of the ids."""
        return {
            source: np.stack([of_maps[i] for i in ids])
            for source, of_maps in self._counts.items()
            if of_maps
        }

    def _put(self, source: Source, sample: Sample, confidence: Float32Array) -> None:
        before = sample.confidence >= np.float32(0.5)
        counts = level_counts(confidence, sample.truth, before, sample.valid)
        self._counts.setdefault(source, {})[sample.id] = counts.astype(np.int32)
