r"""The paper's tables, each by one command, every row beside the paper's figure.

    python tests/benchmarks/reproduce.py 2 --data KVASIR-SEG -o RUN --resize 512

TABLE is 1 (roads), 2 (polyps), 3 (saliency), 4 (branches), 5 (losses), 6 (parts of the regional
loss), 7 (memory) or figure5 (patches). For each base network of the table, `geothresh base
crossfit` makes out-of-fold maps; places are split once, ThreshNet is trained on one side
(`geothresh train`, recipes paper and best, last epoch, so that nothing is chosen by what is
reported), and all is scored on the other side: the cut at 0.5, DenseCRF with its grid searched on
the training side, CascadePSP where its weights are named, ThreshNet. What is done is kept in the
folder and not done again; other options want another folder.

Where DATA is not the paper's, say so with --stand-in, which the table then says. --frames N makes N
images in a row one place, --most takes so many of them, evenly spread. --steps, --epochs and
--chips-per-epoch shorten trainings; the table says how long they were. --maps takes out-of-fold
maps of another network in place of the table's; then masks are enough, and without images there is
no DenseCRF.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import in_process, machine, peak_megabytes, table
from paper_tables import MEMORY, TABLES, Network, Table, Variant

from geothresh.errors import GeothreshError, InputError
from geothresh.metrics import MapScore, Summary
from geothresh.nn.config import PRESETS
from geothresh.raster.image_pairs import find_images
from geothresh.raster.layouts import find_pictures_of
from geothresh.raster.pairs import Pair, find_pairs
from geothresh.rivals.cascadepsp import CascadePSP
from geothresh.rivals.densecrf import DenseCRF, search
from geothresh.rivals.protocol import Rival
from geothresh.training.sizes import DEFAULT_PRESET

PLACES = r"^(\d+)\+"
MEASURE = "--measure"  # in place of a table: a row of table 7, in a process of its own
SEARCHED = 4  # maps of the training side that DenseCRF's grid is searched on


class Run:
    """What a table is made with, and the folder that keeps what is done."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.output: Path = arguments.output
        self.output.mkdir(parents=True, exist_ok=True)
        self._require_same()
        self.data = self._linked()

    def _require_same(self) -> None:
        """Steps are kept by name: a folder is of one set of options."""
        free = ("table", "network", "output", "cascadepsp", "stand_in")
        told = {key: str(value) for key, value in vars(self.given).items() if key not in free}
        file = self.output / "run.json"
        if file.exists():
            before = json.loads(file.read_text())
            keys = sorted(told.keys() | before.keys())
            # An option that a folder's run did not have yet was not given.
            differing = [k for k in keys if told.get(k, "None") != before.get(k, "None")]
            if differing:
                what = ", ".join(differing)
                raise SystemExit(f"{self.output}: made with another {what}; choose another folder")
        file.write_text(json.dumps(told, indent=1) + "\n")

    def _linked(self) -> Path:
        """A folder of links in the plain layout, whose ids begin with their place."""
        given = self.given
        folder = self.output / "data" / given.data.name
        every = list(self._files(folder))
        step = max(1, math.ceil(len(every) / (given.most or len(every))))
        for number, (name, files) in list(enumerate(every))[::step]:
            for target, file in files.items():
                link = target / f"{number // given.frames}+{name}{file.suffix}"
                target.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
        return folder

    def _files(self, folder: Path) -> Iterator[tuple[str, dict[Path, Path]]]:
        """The files of each place, by the folders that they are linked into."""
        given, images, masks = self.given, folder / "image", folder / "mask"
        if given.maps is None:
            for found in find_images(given.data, layout=given.layout):
                yield found.id, {images: found.image, masks: found.mask}
            return
        pictures = find_pictures_of(given.data, given.layout)
        for pair in find_pairs(given.data, [given.maps], layout=given.layout):
            image = {images: pictures[pair.id]} if pair.id in pictures else {}
            yield pair.id, {**image, masks: pair.mask, self.ready: pair.confidence}

    @property
    def ready(self) -> Path:
        """The links to maps that are given."""
        return self.output / "maps" / str(self.given.maps.name)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of a step, made once."""
        file = self.output / "done" / f"{name.replace(' ', '-').replace(',', '')}.json"
        if not file.exists():
            made = make()
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(made, indent=1) + "\n")
        return json.loads(file.read_text())

    def command(self, *words: str) -> dict[str, Any]:
        """What a command of geothresh prints as JSON; the same goes on where it was stopped."""
        # What refines nothing takes no device.
        device = [] if "--no-refine" in words else ["--device", self.given.device]
        call = [sys.executable, "-m", "geothresh", *words, *device, "--json"]
        print("$ geothresh", shlex.join(call[3:]), file=sys.stderr, flush=True)
        done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:  # it has said why
            raise SystemExit(f"`geothresh {words[0]}` ended with exit code {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def pixel(self) -> int:
        """Pixels of a tile under one of the deepest level, of which a patch is a multiple."""
        return PRESETS[self.given.preset or DEFAULT_PRESET].multiple

    @property
    def sizes(self) -> list[str]:
        """The option of size, for every command."""
        return [] if self.given.resize is None else ["--resize", str(self.given.resize)]

    def maps(self, network: str) -> Path:
        """Out-of-fold maps of a base network."""
        given, words = self.given, []
        if given.maps is not None:
            return self.ready
        for name in ("encoder", "encoder_weights", "steps", "crop_size", "learning_rate"):
            if getattr(given, name) is not None:
                words += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
        if network in ("resunet", "resunetpp"):  # of one piece, from random numbers
            words = [w for k, w in enumerate(words) if not _of_encoder(words, k)]
        made = self.kept(
            f"maps {network}",
            lambda: self.command(
                "base", "crossfit", str(self.data), "-o", str(self.output / "maps"), "--network",
                network, "--folds", str(given.folds), "--place-pattern", PLACES, *self.sizes,
                *words,
            ),
        )  # fmt: skip
        (folders,) = list(made["maps"].values())[-1:]
        return Path(folders[0])

    def trained(self, network: str, maps: Path, variant: Variant) -> Path:
        """The last epoch of a ThreshNet; beside it stands the split, the same for all."""
        model = self.output / f"{network}-{variant.row.replace(' ', '').replace(',', '-')}"
        given, words = self.given, []
        for name in ("epochs", "chips_per_epoch", "preset", "chip_size"):
            if getattr(given, name) is not None:
                words += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
        self.kept(
            f"model {network} {variant.row}",
            lambda: self.command(
                "train", str(self.data), "--confidence", str(maps), "-o", f"{model}.safetensors",
                "--place-pattern", PLACES, "--validation-fraction", str(given.held), *self.sizes,
                *words, *variant.arguments,
            ),
        )  # fmt: skip
        return model.with_name(f"{model.name}.last.safetensors")

    def evaluated(self, name: str, maps: Path, split: Path, *words: str) -> dict[str, Any]:
        """The rows of `geothresh evaluate` on the held-out side."""
        made = self.kept(
            name,
            lambda: self.command(
                "evaluate", str(self.data), "--confidence", str(maps), "--ids", str(split),
                *self.sizes, *words,
            ),
        )  # fmt: skip
        (source,) = made["sources"]
        rows: dict[str, Any] = source["rows"]
        if source["changes"]:
            rows["refined"] |= {"change": source["changes"]["iou"]}
        return rows

    def pairs(self, maps: Path, ids: set[str]) -> Iterator[tuple[Pair, Any]]:
        """Maps with the images of the same ids, in the order of the ids."""
        size = self.given.resize
        images = {pair.id: pair for pair in find_images(self.data, resize=size)}
        for pair in find_pairs(self.data, [maps], resize=size):
            if pair.id in ids:
                yield pair, images[pair.id].read_image()

    def rival(self, make: Callable[[], Rival], maps: Path, ids: set[str]) -> dict[str, Any]:
        """What a refiner scores, or why it cannot be had."""
        if not (self.data / "image").is_dir():
            return {"reason": "it reads the image, and there are none"}
        try:
            refine = make()
        except GeothreshError as error:
            return {"reason": str(error)}
        scores = []
        for pair, image in self.pairs(maps, ids):
            confidence, truth = pair.read()
            found = refine(confidence, image)
            scores.append(MapScore.of(prediction=found >= 0.5, target=truth, confidence=found))
        return Summary.of(scores).as_dict()


def _of_encoder(words: list[str], k: int) -> bool:
    return words[k].startswith("--encoder") or (k > 0 and words[k - 1].startswith("--encoder"))


def network_rows(run: Run, of: Table, network: Network) -> Iterator[tuple[str, dict[str, Any]]]:
    """Row by row what a base network and its refiners score on the held-out places."""
    maps = run.maps(network.name)
    possible = [one for one in of.variants if one.patch is None or one.patch % run.pixel == 0]
    models = {one.row: run.trained(network.name, maps, one) for one in possible}
    first = next(iter(models.values()))
    split = first.with_name(first.name.replace(".last.safetensors", ".split.json"))
    sides = json.loads(split.read_text())
    train, held = set(sides["train"]), set(sides["validation"])
    base = run.evaluated(f"base {network.name}", maps, split, "--no-refine")
    yield "base", base["cut"]
    yield "bound*", base["regions"]
    if of.rivals:
        crf = partial(run.rival, lambda: _crf(run, maps, train), maps, held)
        cascade = partial(run.rival, lambda: _cascade(run), maps, held)
        asked = "" if run.given.cascadepsp is None else " asked for"
        yield "DenseCRF", run.kept(f"densecrf {network.name}", crf)
        yield "CascadePSP", run.kept(f"cascadepsp {network.name}{asked}", cascade)
    for row, model in models.items():
        words = ("-m", str(model), "--resolution", "native")
        rows = run.evaluated(f"refined {network.name} {row}", maps, split, *words)
        yield row, rows["refined"]
    for one in of.variants:
        if one not in possible:
            reason = f"a pixel of the deepest level is {run.pixel} wide; it wants --preset full"
            yield one.row, {"reason": reason}


def _crf(run: Run, maps: Path, train: set[str]) -> DenseCRF:
    some = set(sorted(train)[:: max(1, len(train) // SEARCHED)][:SEARCHED])
    found = run.pairs(maps, some)
    samples = [(pair.read_map(), image, pair.read_truth()) for pair, image in found]
    return DenseCRF(settings=search(samples))


def _cascade(run: Run) -> CascadePSP:
    if run.given.cascadepsp is None:
        raise InputError("its weights are not named, with --cascadepsp")
    return CascadePSP(run.given.cascadepsp, device=run.given.device)


def lines(network: Network, found: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[list[str]]:
    """Rows as text: ours beside the paper's."""
    for row, figures in found:
        paper = (*network.paper.get(row, ()), None, None, None)[:3]
        if "reason" in figures:
            ours = ["not had: " + figures["reason"], "", "", ""]
        else:
            ours = [
                f"{100 * figures['miou']:.1f}", _gain(figures.get("change")),
                f"{100 * figures['boundary_iou']:.1f}",
                f"{figures['mae']:.4f}" if figures["mae"] is not None else "-",
            ]  # fmt: skip
        yield [network.name, row, *ours, *("-" if p is None else f"{p:g}" for p in paper)]


def _gain(change: dict[str, Any] | None) -> str:
    """Mean gain in IoU over the cut at 0.5 with its standard error over maps, in points."""
    if change is None:
        return "-"
    error = change["standard_error"]
    return (
        f"{100 * change['mean_difference']:+.1f} ({'-' if error is None else f'{100 * error:.1f}'})"
    )


HEAD = (
    "base network", "", "mIoU", "gain (s.e.)", "mBA", "MAE", "paper mIoU", "paper mBA", "paper MAE"
)  # fmt: skip


def heading(name: str, of: Table, given: argparse.Namespace, held: int) -> str:
    """What the figures are of."""
    which = of.data if given.stand_in is None else f"{given.stand_in}, a stand-in for {of.data}"
    base = ("encoder", "steps", "folds", "crop_size")
    trained = ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key in (
            *(base if given.maps is None else ()),
            "epochs", "chips_per_epoch", "chip_size", "preset", "resize", "most",
        )
        if (value := getattr(given, key)) is not None
    )  # fmt: skip
    if given.maps is not None:
        which += f", maps of {given.maps.name}, which is no network of the table"
    return f"Table {name}: {of.title.lower()}. Data: {which}; {held} maps held out; {trained}."


def memory(run: Run) -> str:
    """Table 7: peak memory of refining one map of 512 x 512."""
    on = "of the device" if run.given.device.startswith("cuda") else "of the process"
    rows = []
    for name in ("nothing", "ThreshNet", "CascadePSP"):
        weights = str(run.given.cascadepsp or "")
        if name == "CascadePSP" and not weights:
            rows.append([name, "not had: name its weights with --cascadepsp", MEMORY[name]])
            continue
        case = partial(in_process, __file__, MEASURE, name, run.given.device, weights)
        found = run.kept(f"memory {name}", case)
        rows.append([name, f"{found['peak']:.0f} MB", MEMORY.get(name, "-")])
    return f"Table 7: peak memory {on}, one map of 512 x 512.\n\n" + table(
        ("", "here", "paper, of the GPU"), rows
    )


def measure(name: str, device: str, weights: str) -> None:
    """Refine one map in this process, print its peak of memory as JSON."""
    import torch

    from geothresh.nn.config import NetworkConfig
    from geothresh.nn.network import ThreshNet

    confidence = np.random.default_rng(0).random((512, 512), np.float32)
    with torch.inference_mode():
        if name == "ThreshNet":
            network = ThreshNet(NetworkConfig()).to(device).eval()  # the paper's, whole
            network(torch.from_numpy(confidence)[None, None].to(device))
        elif name == "CascadePSP":
            CascadePSP(weights, device=device)(confidence, np.zeros((512, 512, 3), np.uint8))
    on_gpu = device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_megabytes()
    print(json.dumps({"peak": peak}))


def main() -> None:
    """Make a table, or measure what a row of table 7 takes in this process."""
    if sys.argv[1:2] == [MEASURE]:
        measure(*sys.argv[2:])
        return
    if sys.argv[1:2] == ["case"]:
        measure(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=[*TABLES, "7"])
    parser.add_argument("--data", type=Path, required=True, help="folder of images and masks")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--stand-in", metavar="NAME", help="what DATA is, if not the paper's")
    networks = parser.add_mutually_exclusive_group()
    networks.add_argument("--network", action="append", help="of the table; may be repeated")
    networks.add_argument("--maps", type=Path, help="out-of-fold maps of another network")
    parser.add_argument("--frames", type=int, default=1, help="images in a row of one place")
    parser.add_argument("--most", type=int, help="images, evenly spread")
    parser.add_argument("--held", type=float, default=0.2, help="share of places held out")
    parser.add_argument("--resize", type=int, help="the paper's: 512")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cascadepsp", type=Path, help="its weights")
    for name in ("encoder", "encoder-weights", "preset", "learning-rate"):
        parser.add_argument(f"--{name}")
    for name in ("steps", "crop-size", "epochs", "chips-per-epoch", "chip-size"):
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_args()
    try:
        make(given)
    except GeothreshError as error:
        raise SystemExit(f"Error: {error}") from error


def _networks(of: Table, given: argparse.Namespace) -> list[Network]:
    """The networks whose rows are made."""
    if given.maps is not None:
        return [Network(name=given.maps.name)]
    names = [network.name for network in of.networks]
    strange = [name for name in given.network or () if name not in names]
    if strange:
        raise InputError(f"table {given.table} has no network {strange[0]}, but {', '.join(names)}")
    return [n for n in of.networks if not given.network or n.name in given.network]


def make(given: argparse.Namespace) -> None:
    """Make the table that is asked for, print it and keep it."""
    run = Run(given)
    print(machine("torch", "numpy"), file=sys.stderr)
    if given.table == "7":
        text = memory(run)
    else:
        of = TABLES[given.table]
        chosen = _networks(of, given)
        rows, held = [], 0
        for network in chosen:
            found = list(network_rows(run, of, network))
            held = int(found[0][1]["n"])
            for line in lines(network, found):
                print(" | ".join(line), flush=True)
                rows.append(line)
        text = heading(given.table, of, given, held) + "\n\n" + table(HEAD, rows)
    (run.output / f"table-{given.table}.md").write_text(text + "\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
