"""Scores of a network on whole held-out maps, per data set and base network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch

from geothresh.errors import ModelError
from geothresh.metrics import MapScore, Summary
from geothresh.mosaic import Threads, mosaic_array
from geothresh.nn.network import ThreshNet
from geothresh.nn.scope import resampled_patch
from geothresh.nn.wrappers import ResampledRefiner
from geothresh.training.data import ValidationMap, seen_side
from geothresh.types import Float32Array


class _InTraining:
    """The network as `refine` knows one: numpy in, numpy out."""

    name = "in training"
    digest = ""

    def __init__(self, network: ThreshNet, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        self.patch = network.config.patch

    @torch.no_grad()
    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Tiles (B, T, T), refined."""
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
) -> Float32Array:
    """A whole map (H, W) refined by the engine in abutting tiles.

    Quicker than `refine`, and seams are few. In the thread that trains: torch shares the cores out
    badly among several.

    `factor` is how many pixels of the network go along one of the map, which is resampled as by
    `refine` if they differ.
    """
    refiner = _InTraining(network, dtype)
    patch = resampled_patch(refiner.patch, factor)
    return mosaic_array(
        confidence,
        refiner if patch == refiner.patch else ResampledRefiner(refiner, patch=patch),
        tile=seen_side(refiner.patch, factor),
        overlap=0,
        where=Threads(0),
    )


def validate(
    network: ThreshNet, maps: Sequence[ValidationMap], *, dtype: torch.dtype
) -> dict[str, float]:
    """Refine every map, cut it at 0.5 and score it.

    The network's mode is its own when this returns.

    Returns:
        ``miou`` and ``boundary_iou`` of each group as ``<name>/<data set>/<base network>``, and
        their means over the groups as ``miou`` and ``boundary_iou``.

    Raises:
        ModelError: a confidence that the network gives is not finite.
    """
    was_training = network.training
    network.eval()
    scores: dict[str, list[MapScore]] = defaultdict(list)
    for one in maps:
        confidence, truth, _, valid = one.read()
        try:
            refined = refine_map(network, confidence, dtype=dtype, factor=one.factor)
        except ModelError as error:
            raise ModelError(
                f"the network's confidences of {one.dataset}/{one.source} are not finite; lower "
                "`learning_rate` and start anew"
            ) from error
        score = MapScore.of(prediction=refined >= 0.5, target=truth, valid=valid)
        scores[f"{one.dataset}/{one.source}"].append(score)
    network.train(was_training)
    figures: dict[str, float] = {}
    for group, found in sorted(scores.items()):
        summary = Summary.of(found)
        figures[f"miou/{group}"] = summary.miou
        figures[f"boundary_iou/{group}"] = summary.boundary_iou
    for name in ("miou", "boundary_iou"):
        figures[name] = fmean(v for k, v in figures.items() if k.startswith(f"{name}/"))
    return figures
