r"""What following the advice of ``calibrate`` is worth on places that it does not come from.

    python tests/benchmarks/study_calibrate.py DATA/roads-cil=MAPS/roads-cil/pspnet \
        DATA/polyps-clinicdb=MAPS/polyps-clinicdb/fcn8s:25 --model roads -o study.json

Each argument is a folder of masks, a folder of maps, and after a colon how many frames in a row
are one place, if more than one. Places are halved at random, ten times: the advice that one half
gives is followed on the other, and the gain over the cut at 0.5 is averaged by place over all
times that it was not learned from. A row is printed as soon as it is known, as Markdown; what is in
the JSON file is not measured again. `--most` takes so many maps of each set, evenly spread;
`--unseen` leaves out the maps whose ids a model was trained on, by the manifests beside the models.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import script_parser

from geothresh import Calibrating, Compute, Maps, Tiling
from geothresh.calibration.candidates import Candidate, image_free, of_model
from geothresh.calibration.choosing import Choice
from geothresh.calibration.counts import CountedMaps
from geothresh.nn.packaged import find_model
from geothresh.raster.pairs import Pair, find_pairs
from geothresh.run.labelled import FolderMaps, count_maps
from geothresh.run.models import ChosenModel, choose_model

TIMES = 10
MOST_TOLD = 3  # advices of a row by name
HEAD = """\
| maps | n | places | cut at 0.5 | bound | following the advice (s.e.) | lose more than a point | \
advice, times of 20 |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What packaged models were trained on."""

    ids: Mapping[str, frozenset[str]]
    """Ids by the name of the model; those of `general` begin with the name of their set."""

    @classmethod
    def by(cls, models: Sequence[str]) -> Seen:
        """Read the manifests beside the models."""
        files = {name: find_model(name).with_suffix(".split.json") for name in models}
        return cls({k: frozenset(json.loads(f.read_text())["train"]) for k, f in files.items()})

    def holds(self, pair: Pair) -> bool:
        """Whether a model was trained on a map of this place."""
        theme = pair.dataset.partition("-")[0]
        return any(
            f"{pair.dataset}.{pair.id}" in ids
            # Sets of several themes number their places alike.
            or (name.partition("-")[0] == theme and pair.id in ids)
            for name, ids in self.ids.items()
        )


def linked(argument: str, most: int, folder: Path, seen: Seen) -> tuple[Path, Path]:
    """Folders of links to masks and maps, whose names begin with their place."""
    masks, _, rest = argument.partition("=")
    maps, _, frames = rest.partition(":")
    every = find_pairs(masks, [maps], skip_unpaired=True)
    first = {pair.id: number for number, pair in enumerate(every)}
    pairs = [pair for pair in every if not seen.holds(pair)]
    data, confidence = folder / Path(masks).name, folder / Path(maps).name
    for each in (data, confidence):
        each.mkdir()
    for pair in pairs[:: max(1, math.ceil(len(pairs) / most))]:
        name = f"{first[pair.id] // int(frames or 1)}+{pair.id}"
        (data / f"{name}_mask{pair.mask.suffix}").symlink_to(pair.mask.resolve())
        target = confidence / f"{name}{pair.confidence.suffix}"
        target.symlink_to(pair.confidence.resolve())
    return data, confidence


def counted(data: Path, confidence: Path, models: dict[str, ChosenModel]) -> CountedMaps:
    """The maps of a set, as `calibrate` counts them."""
    maps = FolderMaps.of([data], Maps(confidence=[confidence]))
    choose = {
        name: partial(choose_model, name, Compute(), resolution="auto") for name in models
    }  # fmt: skip
    return count_maps(
        maps, choose, Tiling(), Calibrating(place_pattern=r"^(\d+)\+"), progress=None
    )[0]  # fmt: skip


def folds_of(places: list[str], rng: np.random.Generator, number: int) -> list[list[int]]:
    """Numbers of maps, place by place dealt to so many folds."""
    names = sorted(set(places))
    fold = dict(zip(names, rng.permutation(len(names)) % number, strict=True))
    return [[k for k, place in enumerate(places) if fold[place] == one] for one in range(number)]


def followed(maps: CountedMaps, candidates: list[Candidate]) -> dict[str, Any]:
    """Halve, learn, and score on the other half."""
    nothing = candidates[0].fit(maps).iou(maps)
    sums, times = np.zeros(len(maps.ids)), 0
    advice: Counter[str] = Counter()
    for seed in range(TIMES):
        rng = np.random.default_rng(seed)
        halves = folds_of(list(maps.places), rng, 2)
        for learned, unseen in (halves, halves[::-1]):
            some = maps.of(learned)
            number = min(5, len(set(some.places)))
            choice = Choice.of(some, candidates, folds_of(list(some.places), rng, number))
            advice[choice.best.label] += 1
            sums[unseen] += choice.fitted.iou(maps.of(unseen)) - nothing[unseen]
        times += 1
    gains = sums / times
    by_place = maps.by_place(gains)
    return {
        "n": len(maps.ids),
        "places": len(by_place),
        "cut": float(maps.weights @ nothing),
        "bound": float(maps.weights @ maps.regions),
        "gain": float(by_place.mean()),
        "error": float(by_place.std(ddof=1) / math.sqrt(len(by_place))),
        "share_worse": float((gains < -0.01).mean()),
        "advice": dict(advice.most_common()),
    }


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    counts = sorted(found["advice"].items(), key=lambda one: -one[1])
    shown, others = counts[:MOST_TOLD], sum(number for _, number in counts[MOST_TOLD:])
    told = "; ".join(f"{label} {number}" for label, number in shown)
    told += f"; others {others}" if others else ""
    return (
        f"| {name} | {found['n']} | {found['places']} | {100 * found['cut']:.2f} "
        f"| {100 * found['bound']:.2f} | {100 * found['gain']:+.2f} ({100 * found['error']:.2f}) "
        f"| {100 * found['share_worse']:.0f} % | {told} |"
    )


def main() -> None:
    """Measure each set."""
    parser = script_parser(__doc__)
    parser.add_argument("sets", nargs="+", metavar="MASKS=MAPS[:FRAMES]")
    parser.add_argument("--model", action="append", default=[], help="packaged; may be repeated")
    parser.add_argument("--most", type=int, default=120, help="maps of each set")
    parser.add_argument("--unseen", action="store_true", help="maps that no model learned from")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON")
    arguments = parser.parse_args()
    known = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    models = {name: choose_model(name, Compute()) for name in arguments.model}
    candidates = image_free()
    for name, model in models.items():
        candidates += of_model(name, model.scope.keep)
    seen = Seen.by(arguments.model if arguments.unseen else [])
    print(HEAD)
    for argument in arguments.sets:
        masks, _, rest = argument.partition("=")
        name = f"{Path(masks).name}/{Path(rest.partition(':')[0]).name}"
        if name not in known:
            with tempfile.TemporaryDirectory() as folder:
                data, confidence = linked(argument, arguments.most, Path(folder), seen)
                known[name] = followed(counted(data, confidence, models), candidates)
            arguments.output.write_text(json.dumps(known, indent=1) + "\n")
        print(row(name, known[name]), flush=True)


if __name__ == "__main__":
    main()
