"""Train a packaged model on the maps of make_maps.py, on places that nothing is reported on.

    python tests/benchmarks/train_packaged.py roads --data DATA --maps MAPS -o RUN --steps 1600

DATA holds folders of masks (``roads-cil/<id>_mask.png``), and perhaps further maps, as
``confidence/<set>/<network>/<id>.png``; MAPS is what make_maps.py has written. RUN gets
``held-out/SET.txt``, the ids that the model is judged on later, ``data/`` and ``maps/``, links to
all others, and the model. The same command goes on with a run that was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from measuring import script_parser

#: Sizes of pixels on the ground in metres; sets without a known size have none.
PIXELS = {
    "roads-cil": "0.3,0.5",
    "roads-handannotated": "0.3,0.5",
    "roads-massachusetts": "1",
    "roads-newyork": "1.06",
    "roads-penang": "0.6,1.2",
    "landslides-bijie": "0.8",
    "landslides-hrgldd": "3",
    "landslides-sichuan": "0.5",
    "landslides-uav": "0.05",
}
THEMES = {
    "roads": ("roads",),
    "landslides": ("landslides",),
    "general": ("landslides", "objects", "polyps", "roads"),
}


def _tail(share: float) -> Callable[[list[str]], list[str]]:
    """The last ids in order of their numbers: neighbours stay on one side but at one border."""
    return lambda ids: ids[len(ids) - round(share * len(ids)) :]


def _like(*patterns: str) -> Callable[[list[str]], list[str]]:
    return lambda ids: [i for i in ids if any(fnmatchcase(i, p) for p in patterns)]


#: What is held out of each set: by the original split where there is one, else by neighbourhood.
HELD_OUT: dict[str, Callable[[list[str]], list[str]]] = {
    "roads-massachusetts": _like("testing_*", "validation_*"),
    "roads-newyork": _like("val_*"),
    "landslides-mars": _like("val_*"),
    "landslides-uav": _tail(1.0),
    # The last six sequences of an endoscopy: frames of one show one polyp.
    "polyps-clinicdb": lambda ids: [i for i in ids if int(i) >= 467],
}


def _numbers(name: str) -> tuple[int, str]:
    digits = "".join(c for c in name if c.isdigit())
    return (int(digits or 0), name)


def held_out(dataset: str, ids: list[str], split: Path | None) -> list[str]:
    """The ids of a set that the model must not see."""
    theme = dataset.partition("-")[0]
    # Those that an earlier packaged model of the theme, ``roads.split.json``, has not seen either.
    # Its ids are without their set, and sets of several themes number their places alike.
    if split is not None and split.name.startswith(theme):
        known = set(json.loads(split.read_text())["validation"])
        if known & set(ids):
            return sorted(known & set(ids))
    return HELD_OUT.get(dataset, _tail(0.25))(sorted(ids, key=_numbers))


def lay(arguments: argparse.Namespace, themes: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Link masks and maps that may be seen; the folders of masks, and those of maps."""
    data = arguments.output / "data"
    folders, maps = [], []
    kept = arguments.output / "held-out"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for source in sorted(arguments.data.iterdir()):
        dataset = source.name
        left_out = any(fnmatchcase(dataset, p) for p in arguments.leave_set)
        if dataset.split("-")[0] not in themes:
            continue
        found = [
            *sorted((arguments.data / "confidence" / dataset).glob("*")),
            *sorted((arguments.maps / dataset.split("-")[0] / dataset).glob("*")),
        ]
        found = [f for f in found if f.name[0] != "." and any(f.glob("*.png"))]
        found = [f for f in found if not any(fnmatchcase(f.name, p) for p in arguments.leave_out)]
        if not found:
            continue
        masks = {p.name.removesuffix("_mask.png"): p for p in source.glob("*_mask.png")}
        away = list(masks) if left_out else held_out(dataset, list(masks), arguments.split)
        (kept / f"{dataset}.txt").write_text("\n".join(sorted(away)) + "\n")
        if len(away) == len(masks):
            continue
        folder = data / dataset
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        seen = masks.keys() - set(away)
        for name in seen:  # sets share names such as 001
            (folder / f"{dataset}.{name}_mask.png").symlink_to(masks[name].resolve())
        folders.append(folder)
        for network in found:
            copy = arguments.output / "maps" / dataset / network.name
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
            for path in network.glob("*.png"):
                if path.stem in seen:
                    (copy / f"{dataset}.{path.name}").symlink_to(path.resolve())
            maps.append(copy)
    return folders, maps


def main() -> None:
    """Lay the data out and train."""
    parser = script_parser(__doc__)
    parser.add_argument("theme", choices=sorted(THEMES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", type=Path, help="manifest whose validation ids stay held out")
    parser.add_argument("--init", default="roads", help="model to start from; empty = none")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--chip-size", type=int, default=320)
    parser.add_argument("--leave-out", action="append", default=[], help="networks, by pattern")
    parser.add_argument("--leave-set", action="append", default=[], help="sets, by pattern")
    parser.add_argument("--learning-rate", default="4e-4")
    parser.add_argument("--zoom", default="3")
    parser.add_argument("--balance", default="0.6")
    parser.add_argument("--harm-weight", default="0")
    parser.add_argument("--jitter", default="0.5")
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    folders, maps = lay(arguments, THEMES[arguments.theme])
    sizes = [PIXELS.get(folder.name) for folder in folders]
    command = ["train", *map(str, folders)]
    if all(sizes):
        command += [part for size in sizes for part in ("--gsd", str(size))]
    for folder in maps:
        command += ["--confidence", str(folder)]
    command += [
        "--skip-unpaired", "--recipe", "best", "--zoom", arguments.zoom,
        "--balance", arguments.balance, "--chip-size", str(arguments.chip_size),
        "--learning-rate", arguments.learning_rate, "--harm-weight", arguments.harm_weight,
        "--jitter", arguments.jitter,
        "--seed", arguments.seed, "--epochs", "1",
        "--chips-per-epoch", str(8 * arguments.steps), "--validation-fraction", "0.02",
        "--device", "cpu", "-o", str(arguments.output / f"{arguments.theme}.safetensors"),
    ]  # fmt: skip
    if arguments.init:
        command += ["--init", arguments.init]
    print(" ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", "geothresh", *command], check=True)


if __name__ == "__main__":
    main()
