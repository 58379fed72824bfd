"""Scores of a network on whole held-out maps, per data set and base network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from geothresh.chipping import pad_to
from geothresh.metrics import MapScore, Summary
from geothresh.nn.network import ThreshNet
from geothresh.training.sources import ValidationMap

TILE = 512


@torch.no_grad()
def refine_map(
    network: ThreshNet, confidence: NDArray[np.float32], *, dtype: torch.dtype
) -> NDArray[np.float32]:
    """A whole map (H, W) refined in abutting tiles: quicker than `refine`, and seams are few."""
    height, width = confidence.shape
    n_rows, n_cols = -(-height // TILE), -(-width // TILE)
    padded = pad_to(confidence, n_rows * TILE, n_cols * TILE)
    device = next(network.parameters()).device
    refined = np.empty_like(padded)
    for row in range(0, n_rows * TILE, TILE):
        for col in range(0, n_cols * TILE, TILE):
            window = np.s_[row : row + TILE, col : col + TILE]
            tile = torch.from_numpy(padded[window])[None, None].to(device)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                refined[window] = network.refine(tile)[0, 0].float().cpu().numpy()
    return refined[:height, :width]


def validate(
    network: ThreshNet, maps: Sequence[ValidationMap], *, dtype: torch.dtype
) -> dict[str, float]:
    """Refine every map, cut it at 0.5 and score it.

    The network's mode is its own when this returns.

    Returns:
        ``miou`` and ``boundary_iou`` of each group as ``<name>/<data set>/<base network>``, and
        their means over the groups as ``miou`` and ``boundary_iou``.
    """
    was_training = network.training
    network.eval()
    scores: dict[str, list[MapScore]] = defaultdict(list)
    for one in maps:
        confidence, truth, _, valid = one.read()
        refined = refine_map(network, confidence, dtype=dtype)
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
