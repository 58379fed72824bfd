"""Checkerboards of transposed convolutions in confidence maps, before and after refinement.

    python tests/benchmarks/checkerboard.py DATA --confidence MAPS --gsd 1 --most 40

DATA is a folder with masks, MAPS one base network's maps. For maps as they are, and for maps whose
logits were smoothed by 1 2 1 along both axes, which leaves nothing of period two, it prints what
refining makes of them: miou and Boundary IoU, the mean amplitude of what alternates from pixel to
pixel, and specks, foreground of four pixels and less, before and after.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measuring import script_parser
from numpy.typing import NDArray
from scipy import ndimage

from geothresh.api.arrays import refine_array
from geothresh.api.models import load_model
from geothresh.metrics import MapScore, Summary
from geothresh.nn.wrappers import smoothed
from geothresh.options import Refining
from geothresh.raster.pairs import find_pairs, read_confidence, read_mask

MOST_PIXELS = 4
"""Of a speck."""


def alternation(confidence: NDArray[np.float32]) -> float:
    """Mean amplitude, in points of confidence, of what changes its sign from column to column."""
    signs = (-1.0) ** np.arange(confidence.shape[1])
    alone = confidence - ndimage.gaussian_filter(confidence, 1.5)
    return 100 * float(np.abs(ndimage.gaussian_filter(signs * alone, 4)).mean())


def specks(confidence: NDArray[np.float32]) -> int:
    """Pieces of the map cut at 0.5 that have at most `MOST_PIXELS` pixels."""
    pieces, _ = ndimage.label(confidence >= 0.5)
    return int((np.bincount(pieces.ravel())[1:] <= MOST_PIXELS).sum())


def main() -> None:
    """Refine the maps twice and print a table."""
    parser = script_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--confidence", type=Path, required=True)
    parser.add_argument("--model", default="roads")
    parser.add_argument("--gsd", type=float, help="metres of a pixel; without it, read as it is")
    parser.add_argument("--most", type=int, default=40, help="maps")
    arguments = parser.parse_args()
    pairs = find_pairs(arguments.data, [arguments.confidence], skip_unpaired=True)
    order = np.random.default_rng(0).permutation(len(pairs))[: arguments.most]
    model = load_model(arguments.model)
    refining = Refining() if arguments.gsd else Refining(resolution="native")
    for name, prepare in (("as they are", np.asarray), ("smoothed", smoothed)):
        scores, counts = [], []
        for k in order:
            before = prepare(read_confidence(pairs[k].confidence))
            after = refine_array(
                before, model=model, refining=refining, ground_sample_distance=arguments.gsd
            )
            scores.append(MapScore.of(prediction=after >= 0.5, target=read_mask(pairs[k].mask)))
            counts.append([f(m) for f in (alternation, specks) for m in (before, after)])
        summary, total = Summary.of(scores), np.array(counts)
        print(
            f"{name:12} {summary.n} maps: miou {100 * summary.miou:.2f}, Boundary IoU "
            f"{100 * summary.boundary_iou:.2f}; alternation {total[:, 0].mean():.3f} -> "
            f"{total[:, 1].mean():.3f}, specks {total[:, 2].sum():.0f} -> {total[:, 3].sum():.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
