r"""How many labelled crops it takes to gain by fine-tuning a model: one data set, one base network.

    python tests/benchmarks/bench_finetune.py --data DATA --confidence DATA/confidence/unet \
        --counts 4,8,16,32,64 --steps 300 --seeds 0,1,2 -o finetune.json

A fixed draw of ids is kept to score on and never trained on. For every number N and every seed, N
of the others are drawn, the model is fine-tuned on them, and its weights after the last step are
scored: no epoch is chosen on the ids that are reported. The rows to compare with are the maps cut
at 0.5, at the threshold that is best on the same N maps (what the labels would be worth without a
network), and refined by the model as it is.

Ids that the model itself was trained on, by the manifest beside it or --split, are left out
altogether: on those it would gain nothing new. --gsd says how large the pixels of the maps are;
they are then refined and learnt from at --resolution, and scored as they are.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from geothresh.cli.values import SizeRange
from geothresh.metrics import MapScore, Summary
from geothresh.nn.device import pick_device
from geothresh.nn.modelfile import beside, digest, load_weights, read_card
from geothresh.nn.network import ThreshNet
from geothresh.nn.refiner import find_model
from geothresh.raster.pairs import Pair, find_pairs, read_confidence, read_mask
from geothresh.splitting import Split
from geothresh.thresholding import THRESHOLDS
from geothresh.training.data import Pixels
from geothresh.training.folder_data import pair_maps, pair_sources
from geothresh.training.loop import fit
from geothresh.training.recipe import recipe_of
from geothresh.training.threshnet import ThreshNetTask
from geothresh.training.validation import validate


def numbers(text: str) -> list[int]:
    """A list of whole numbers, ``4,8,16``."""
    return [int(part) for part in text.split(",")]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with masks")
    parser.add_argument("--confidence", type=Path, required=True, help="maps of one base network")
    parser.add_argument("--init", default="roads", help="model to fine-tune")
    parser.add_argument("--split", type=Path, help="manifest of the model's own training")
    parser.add_argument("--counts", type=numbers, default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300, help="of each run")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--chip-size", type=int, default=320)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--evaluate", type=int, default=40, help="maps kept to score on")
    parser.add_argument(
        "--gsd",
        type=lambda text: SizeRange().convert(text, None, None),
        help="pixels of the maps on the ground in metres, M or MIN,MAX",
    )
    parser.add_argument("--resolution", type=float, default=1.0, help="with --gsd, of the network")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="JSON with all of it")
    return parser.parse_args()


def unseen(pairs: Sequence[Pair], model: Path, split: Path | None) -> list[Pair]:
    """The pairs whose ids the model was not trained on, as far as a manifest tells."""
    manifest = split or beside(model, ".split.json")
    if not manifest.exists():
        print(f"{manifest} is not there: every id counts as unseen by {model.stem}")
        return list(pairs)
    known = set(Split.load(manifest).train)
    left = [pair for pair in pairs if pair.id not in known]
    print(
        f"{len(pairs) - len(left)} of {len(pairs)} maps left out: {model.stem} was trained on them"
    )
    return left


def at_threshold(pairs: Sequence[Pair], threshold: float) -> Summary:
    """Scores of maps as they are."""
    return Summary.of(
        [
            MapScore.of(
                prediction=read_confidence(pair.confidence) >= np.float32(threshold),
                target=read_mask(pair.mask),
            )
            for pair in pairs
        ]
    )


def best_threshold(pairs: Sequence[Pair]) -> float:
    """The candidate with the highest miou on these maps."""
    return float(max(THRESHOLDS, key=lambda t: at_threshold(pairs, float(t)).miou))


def factors(options: argparse.Namespace) -> dict[str, float]:
    """Pixels of the network along one of the maps', by the name of the data set."""
    if options.gsd is None:
        return {}
    pixels = Pixels.of([options.gsd], options.resolution)
    sizes = pixels.sizes([options.data])
    return {options.data.name: pixels.factors([options.data], sizes)[0]}


def refined(
    model: Path, pairs: Sequence[Pair], device: str, scale: Mapping[str, float]
) -> tuple[float, float]:
    """miou and Boundary IoU of a model's refined maps, cut at 0.5."""
    config = read_card(model).config
    network = ThreshNet(config)
    network.load_state_dict(load_weights(model, config))
    place = pick_device(device)
    scores = validate(network.to(place).eval(), pair_maps(pairs, scale), dtype=torch.float32)
    return scores["miou"], scores["boundary_iou"]


def tuned(
    model: Path, train: Sequence[Pair], held: Sequence[Pair], seed: int, options: argparse.Namespace
) -> tuple[float, float]:
    """Scores of the model after it was fine-tuned on some maps."""
    config = read_card(model).config
    recipe = recipe_of(
        "best",
        head=config.head,
        branches=config.branches,
        epochs=1,
        chips_per_epoch=options.steps * options.batch_size,
        batch_size=options.batch_size,
        chip_size=options.chip_size,
        learning_rate=options.learning_rate,
        seed=seed,
        precision="fp32",
    )
    folder = Path(tempfile.mkdtemp(prefix="finetune-"))
    try:
        # One epoch: its single validation is the score after the last step.
        output = folder / "tuned.safetensors"
        rows: list[dict[str, float]] = []
        task = ThreshNetTask(
            pair_sources(train, factors(options)),
            pair_maps(held, factors(options)),
            output,
            config=config,
            recipe=recipe,
            facts={"data": {}},
            init=model,
            device=options.device,
        )
        fit(task, output, on_epoch=lambda row: rows.append(dict(row)))
    finally:
        shutil.rmtree(folder)
    return rows[-1]["miou"], rows[-1]["boundary_iou"]


def main() -> None:
    """Run what the command line asks for and print a table."""
    options = parsed()
    model = find_model(options.init)
    pairs = unseen(find_pairs(options.data, [options.confidence]), model, options.split)
    order = np.random.default_rng(0).permutation(len(pairs))
    held = [pairs[k] for k in order[: options.evaluate]]
    rest = [pairs[k] for k in order[options.evaluate :]]
    counts = [n for n in options.counts if n <= len(rest)]
    if not counts:
        sys.exit(f"{len(rest)} maps are left to train on; fewer than {min(options.counts)}")
    if counts != options.counts:
        print(f"only {len(rest)} maps are left to train on: {counts} of {options.counts}")
    names = ("torch", "numpy")
    print(
        f"{model.stem} on {options.data.name}/{options.confidence.name}, {len(held)} maps to "
        f"score; {options.steps} steps of {options.batch_size}; {platform.machine()}, "
        f"{pick_device(options.device)}, " + ", ".join(f"{n} {version(n)}" for n in names)
    )

    def show(label: str, miou: Sequence[float], boundary: Sequence[float]) -> dict[str, object]:
        spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (miou, boundary)]
        means = [statistics.fmean(v) for v in (miou, boundary)]
        print(
            f"{label:34} miou {100 * means[0]:5.2f} +- {100 * spread[0]:4.2f}   "
            f"Boundary IoU {100 * means[1]:5.2f} +- {100 * spread[1]:4.2f}",
            flush=True,
        )
        return {"row": label, "miou": list(miou), "boundary_iou": list(boundary)}

    rows = []
    plain = at_threshold(held, 0.5)
    rows.append(show("cut at 0.5", [plain.miou], [plain.boundary_iou]))
    start = refined(model, held, options.device, factors(options))
    rows.append(show(f"{model.stem} as it is", [start[0]], [start[1]]))
    started = time.perf_counter()
    for n in counts:
        cuts: list[Summary] = []
        scores: list[tuple[float, float]] = []
        for seed in options.seeds:
            drawn = np.random.default_rng([1, seed]).permutation(len(rest))[:n]
            train = [rest[k] for k in drawn]
            cuts.append(at_threshold(held, best_threshold(train)))
            scores.append(tuned(model, train, held, seed, options))
        rows.append(
            show(
                f"{n}: one threshold from them",
                [c.miou for c in cuts],
                [c.boundary_iou for c in cuts],
            )
        )
        rows.append(
            show(f"{n}: fine-tuned on them", [s[0] for s in scores], [s[1] for s in scores])
        )
    print(f"{time.perf_counter() - started:.0f} s")
    if options.output is not None:
        told = {key: str(v) if isinstance(v, Path) else v for key, v in vars(options).items()}
        report = {
            "options": told,
            "model": digest(model),
            "held": [p.id for p in held],
            "rows": rows,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
