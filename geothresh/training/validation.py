"""Score a network on whole held-out maps, by data set and base network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch

from geothresh.errors import ModelError
from geothresh.metrics import MapScore
from geothresh.mosaic import Threads, mosaic_array
from geothresh.nn.device import full_memory_reported
from geothresh.nn.network import ThreshNet
from geothresh.nn.scope import resampled_patch
from geothresh.nn.wrappers import wrapped
from geothresh.training.data import Cut, ValidationMap, seen_side
from geothresh.types import Float32Array


class _InTraining:
    """The network in training as a `Refiner` of the engine."""

    name = "in training"
    digest = ""

    def __init__(self, network: ThreshNet, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        self.patch = network.config.patch

    @torch.no_grad()
    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles (B, T, T)."""
        device = next(self.network.parameters()).device
        batch = torch.from_numpy(np.ascontiguousarray(tiles))[:, None].to(device)
        with torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return np.asarray(self.network.refine(batch)[:, 0].float().cpu().numpy())


def refine_map(
    network: ThreshNet,
    confidence: Float32Array,
    *,
    dtype: torch.dtype,
    factor: float = 1.0,
    smooth: bool = False,
    strength: float = 1.0,
) -> Float32Array:
    """Refine a whole map (H, W) by the engine, in tiles without overlap.

    This is quicker than `refine`, with some seams. It runs in the training thread, because torch
    shares cores badly among several threads.

    Args:
        network: the network, in evaluation mode.
        confidence: (H, W) in [0, 1].
        dtype: number format inside the network.
        factor: pixels of the network per pixel of the map, which is resampled as by `refine`.
        smooth: whether the map is smoothed first.
        strength: share of the refined logit, see `geothresh.nn.scope.ModelScope`.
    """
    refiner = _InTraining(network, dtype)
    patch = resampled_patch(refiner.patch, factor)
    return mosaic_array(
        confidence,
        wrapped(refiner, patch=patch, strength=strength, smooth=smooth),
        tile=seen_side(refiner.patch, factor),
        overlap=0,
        where=Threads(0),
    )


class Figures(NamedTuple):
    """Scores of one held-out map."""

    group: str
    """``<data set>/<base network>``."""
    iou: float
    """IoU of the foreground, 0 to 1; empty against empty is 1."""
    boundary_iou: float
    """IoU of the pixels near the contours, 0 to 1."""


def score_network(
    network: ThreshNet,
    maps: Sequence[ValidationMap],
    *,
    dtype: torch.dtype,
    smooth: bool,
    strength: float = 1.0,
) -> list[Figures]:
    """Refine every map, cut it at 0.5 and score it; for the options see `refine_map`.

    The network is in evaluation mode during the call.

    Raises:
        ModelError: an output of the network is not finite, or a map does not fit in memory.
        DeviceLostError: the GPU has failed.
    """
    device = next(network.parameters()).device
    with full_memory_reported(device, "the validation"):
        return _scored(network, maps, dtype=dtype, smooth=smooth, strength=strength)


def _scored(
    network: ThreshNet,
    maps: Sequence[ValidationMap],
    *,
    dtype: torch.dtype,
    smooth: bool,
    strength: float,
) -> list[Figures]:
    was_training = network.training
    network.eval()
    found = []
    for held_map in maps:
        cut = held_map.read()
        try:
            refined = refine_map(
                network, cut.confidence, dtype=dtype, factor=held_map.factor, smooth=smooth,
                strength=strength,
            )  # fmt: skip
        except ModelError as error:
            raise ModelError(
                f"the network's confidences of {held_map.dataset}/{held_map.source} are not "
                "finite; lower `learning_rate` and start anew"
            ) from error
        found.append(_score(held_map, refined, cut))
    network.train(was_training)
    return found


def score_unrefined(maps: Sequence[ValidationMap]) -> list[Figures]:
    """Cut every map at 0.5 without refining it, and score it."""
    cuts = ((held_map, held_map.read()) for held_map in maps)
    return [_score(held_map, cut.confidence, cut) for held_map, cut in cuts]


def means(figures: Sequence[Figures]) -> dict[str, float]:
    """Means over the maps of each group, and the means of these over the groups.

    Returns:
        ``miou/<group>``, ``boundary_iou/<group>``, ``miou`` and ``boundary_iou``.
    """
    by_group: dict[str, list[Figures]] = defaultdict(list)
    for figure in figures:
        by_group[figure.group].append(figure)
    found: dict[str, float] = {}
    for group, members in sorted(by_group.items()):
        found[f"miou/{group}"] = fmean(figure.iou for figure in members)
        found[f"boundary_iou/{group}"] = fmean(figure.boundary_iou for figure in members)
    for name in ("miou", "boundary_iou"):
        found[name] = fmean(v for k, v in found.items() if k.startswith(f"{name}/"))
    return found


def _score(held_map: ValidationMap, confidence: Float32Array, cut: Cut) -> Figures:
    score = MapScore.of(prediction=confidence >= 0.5, target=cut.truth, valid=cut.valid)
    group = f"{held_map.dataset}/{held_map.source}"
    return Figures(group, score.counts.iou(), score.boundary.iou())
