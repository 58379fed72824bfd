r"""What a model gains on held-out maps, at several scales, keep thresholds and strengths.

    python tests/benchmarks/judge.py MODEL --data DATA --maps MAPS --ids RUN/held-out \
        --theme roads --keep 0.5 --keep 0.2 --scale 1 --scale 0.5

For each set and network a row: maps, IoU of the cut at 0.5, the best single threshold and the bound
(region-specific thresholds, P = 64), and for each scale and keep threshold the gain in miou over
the cut at 0.5 with its standard error, and the share of maps that lose more than a point. A scale
of 0.5 reads the map at half its size, a strength of 0.5 is the mean of the input's logit and the
refined one (a strength in the model's own card is not looked at). Several models are an ensemble:
the mean of their confidences counts, and all are read as the first one's card says. Choosing by
these figures makes them kinder than those of maps never looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ids_of, map_folders, maps_parser
from scipy.special import expit, logit

from geothresh.api.models import load_model
from geothresh.metrics import Counts
from geothresh.mosaic import mosaic_array
from geothresh.nn.scope import resampled_patch
from geothresh.nn.transformation import Transformation
from geothresh.nn.wrappers import smoothed, wrapped
from geothresh.raster.pairs import read_confidence, read_mask
from geothresh.thresholding import THRESHOLDS, cut_mask, region_target
from geothresh.types import BoolArray, Float32Array


def maps_of(arguments: argparse.Namespace) -> Iterator[tuple[str, str, list[Path], Path]]:
    """Set, network, maps that are judged, and the folder of masks."""
    for masks in sorted(arguments.data.glob(f"{arguments.theme}-*")):
        wanted = ids_of(arguments.ids, masks.name)
        for folder in map_folders(arguments.data, arguments.maps, masks.name):
            if arguments.network and folder.name not in arguments.network:
                continue
            found = sorted(p for p in folder.glob("*.png") if p.stem in wanted)
            if found:
                step = max(1, len(found) // arguments.most)
                yield masks.name, folder.name, found[::step][: arguments.most], masks


def iou(mask: BoolArray, truth: BoolArray) -> float:
    """Of one map; 1 of two empty ones."""
    return Counts.of(prediction=mask, target=truth).iou()


def gain(values: list[float], base: list[float]) -> tuple[float, float, float]:
    """Mean gain, its standard error and the share that loses more than 0.01; in points, percent."""
    difference = np.subtract(values, base)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return 100 * difference.mean(), 100 * error, 100 * float((difference < -0.01).mean())


def main() -> None:
    """Print the table, and write it as JSON where that is asked for."""
    parser = maps_parser(__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--theme", default="roads")
    parser.add_argument("--network", action="append")
    parser.add_argument("--keep", type=float, action="append")
    parser.add_argument("--scale", type=float, action="append")
    parser.add_argument("--shift", type=float, action="append", help="added to the logits")
    parser.add_argument("--strength", type=float, action="append", help="of the refined logit")
    parser.add_argument("--most", type=int, default=10**6, help="maps of a row at most")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keeps, scales = arguments.keep or [0.5, 0.2], arguments.scale or [1.0]
    shifts, strengths = arguments.shift or [0.0], arguments.strength or [1.0]
    models = [load_model(name, device="cpu") for name in arguments.models]
    rows: list[dict[str, Any]] = []
    for dataset, network, files, masks in maps_of(arguments):
        base: list[float] = []
        single: list[list[float]] = []
        bound: list[float] = []
        refined: dict[tuple[float, float, float, float], list[float]] = {}
        agreement = dict.fromkeys(product(scales, shifts), Counts())
        for file in files:
            confidence, truth = read_confidence(file), read_mask(masks / f"{file.stem}_mask.png")
            before = confidence >= 0.5
            base.append(iou(before, truth))
            single.append([iou(confidence >= t, truth) for t in THRESHOLDS])
            bound.append(iou(region_target(confidence, truth, patch=64), truth))
            for scale, shift in product(scales, shifts):
                biased = shifted(confidence, shift)
                result = refine(models, biased, scale)
                agreement[scale, shift] += Counts.of(prediction=result >= 0.5, target=biased >= 0.5)
                seen = smoothed(biased) if models[0].scope.smooth else biased
                for strength, keep in product(strengths, keeps):
                    mixed = Transformation(strength=strength).mixed(seen, result)
                    mask = cut_mask(mixed, before, threshold=0.5, keep=keep)
                    name = (scale, keep, shift, strength)
                    refined.setdefault(name, []).append(iou(mask, truth))
        best = np.mean(single, axis=0)
        row: dict[str, Any] = {
            "set": dataset, "network": network, "n": len(files), "cut": 100 * np.mean(base),
            "single": 100 * best.max(), "at": float(THRESHOLDS[best.argmax()]),
            "bound": 100 * np.mean(bound),
            "gains": {key(*name): gain(v, base) for name, v in refined.items()},
            "agreement": {f"{s:g}/{b:+g}": counts.iou() for (s, b), counts in agreement.items()},
        }  # fmt: skip
        rows.append(row)
        print(
            f"{dataset:20} {network:32} n {row['n']:3}  cut {row['cut']:5.1f}  "
            f"single {row['single']:5.1f} at {row['at']:.2f}  bound {row['bound']:5.1f}  "
            + "  ".join(
                f"{k}: {g:+5.1f} ({e:.1f}) {w:2.0f} %" for k, (g, e, w) in row["gains"].items()
            )
            + (f"  agreement {'  '.join(agreements(row))}" if arguments.shift else ""),
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def key(scale: float, keep: float, shift: float, strength: float) -> str:
    """Name of a column."""
    name = f"{scale:g}/{keep:g}" + (f"/{shift:+g}" if shift else "")
    return name if strength == 1 else f"{name} x {strength:g}"


def agreements(row: dict[str, Any]) -> list[str]:
    """Of each scale and shift, as text."""
    return [f"{name}: {value:.2f}" for name, value in row["agreement"].items()]


def shifted(confidence: Float32Array, shift: float) -> Float32Array:
    """With a number added to the logits; what is certain is taken as half a level of uint8 off."""
    if not shift:
        return confidence
    level = 0.5 / 255
    return expit(logit(np.clip(confidence, level, 1 - level)) + shift).astype(np.float32)


def refine(models: Sequence[Any], confidence: Float32Array, scale: float) -> Float32Array:
    """As `geothresh.refine_array` does, at a scale of the map's pixels; the mean of the models."""
    own, smooth = models[0].patch, models[0].scope.smooth
    patch = resampled_patch(own, scale)
    tile, overlap = 512 // own * patch, 128 // own * patch
    refined = [
        mosaic_array(
            confidence,
            wrapped(model, patch=patch, smooth=smooth),
            tile=tile,
            overlap=overlap,
            batch_size=1,
        )
        for model in models
    ]
    return np.mean(refined, axis=0, dtype=np.float32)


if __name__ == "__main__":
    main()
