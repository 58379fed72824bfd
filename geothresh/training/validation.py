"""Scores of a network on whole held-out maps, per data set and base network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from geothresh.chipping import pad_to
from geothresh.errors import ModelError
from geothresh.metrics import MapScore, Summary
from geothresh.nn.network import ThreshNet
from geothresh.nn.resampling import ResampledRefiner
from geothresh.nn.resolution import resampled_patch
from geothresh.nn.tiles import TileRefiner
from geothresh.training.blocks import seen_side
from geothresh.training.sources import ValidationMap


class _InTraining:
    """The network as `refine` knows one: numpy in, numpy out."""

    name = "in training"
    digest = ""

    def __init__(self, network: ThreshNet, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        self.patch = network.config.patch

    @torch.no_grad()
    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tiles (B, T, T), refined."""
        device = next(self.network.parameters()).device
        batch = torch.from_numpy(np.ascontiguousarray(tiles))[:, None].to(device)
        with torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return np.asarray(self.network.refine(batch)[:, 0].float().cpu().numpy())


def refine_map(
    network: ThreshNet,
    confidence: NDArray[np.float32],
    *,
    dtype: torch.dtype,
    factor: float = 1.0,
) -> NDArray[np.float32]:
    """A whole map (H, W) refined in abutting tiles: quicker than `refine`, and seams are few.

    `factor` is how many pixels of the network go along one of the map, which is resampled as by
    `refine` if they differ.
    """
    refine: TileRefiner = _InTraining(network, dtype)
    patch = resampled_patch(refine.patch, factor)
    side = seen_side(refine.patch, factor)
    if patch != refine.patch:
        refine = ResampledRefiner(refine, patch=patch)
    height, width = confidence.shape
    n_rows, n_cols = -(-height // side), -(-width // side)
    padded = pad_to(confidence, n_rows * side, n_cols * side)
    refined = np.empty_like(padded)
    for row in range(0, n_rows * side, side):
        for col in range(0, n_cols * side, side):
            window = np.s_[row : row + side, col : col + side]
            refined[window] = refine(padded[window][None])[0]
    return refined[:height, :width]


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
        refined = refine_map(network, confidence, dtype=dtype, factor=one.factor)
        if not np.isfinite(refined).all():
            raise ModelError(
                f"the network's confidences of {one.dataset}/{one.source} are not finite; lower "
                "--learning-rate and start anew"
            )
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
