"""One damaged file through one command, and what must hold whatever the damage is.

A case is told by the seed of the run, its kind and its number: the same three make the same files.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geothresh.cli import main
from geothresh.nn import refiner
from tests.fuzz.mutations import mutated, mutated_name
from tests.fuzz.seeds import parts_of
from tests.support.cli_runner import runner

ALLOWED = {0, 3, 4, 5}
"""Exit codes of damaged files."""
WITH_USAGE = {0, 2, 3, 4, 5}
"""And of names of files, which the user types."""
# Where the structure of a GeoTIFF and of a GeoPackage is.
_HEAD = 1024


@dataclass(slots=True, kw_only=True)
class Case:
    """What is run."""

    arguments: list[str]
    """Of the command line."""
    outputs: list[str] = field(default_factory=list)
    """Files that there are after exit code 0, besides those that were there."""
    allowed: set[int] = field(default_factory=lambda: set(ALLOWED))
    """Exit codes."""
    check: Callable[[str], str | None] | None = None
    """After exit code 0, given stdout: what is wrong with the outputs, None if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a case ended."""

    kind: str
    number: int
    command: str
    """Its name, for the table."""
    code: int
    """Exit code; -n where signal n ended the process."""
    problem: str | None
    """What broke the rules; None if nothing did."""
    seconds: float


Maker = Callable[[np.random.Generator, dict[str, list[str]]], Case]


def _pick(rng: np.random.Generator, paths: list[str]) -> Path:
    return Path(paths[int(rng.integers(len(paths)))])


def _damage(source: Path, name: str, rng: np.random.Generator, head: int | None = _HEAD) -> None:
    Path(name).write_bytes(mutated(source.read_bytes(), rng, head=head))


def geotiff(rng: np.random.Generator, seeds: dict[str, list[str]]) -> Case:
    """A damaged raster, or a whole one with a damaged file beside it."""
    small = ["-m", seeds["models"][0], "--tile-size", "64", "--overlap", "16"]
    refine = ["refine", "x.tif", "-o", "m.tif", "--confidence-out", "c.tif", *small]
    what = rng.choice(["refine", "vectorize", "info", "evaluate", "pictures", "beside"],
                      p=[0.55, 0.17, 0.08, 0.06, 0.07, 0.07])  # fmt: skip
    if what == "vectorize":
        _damage(_pick(rng, seeds["masks"]), "x.tif", rng)
        lines = ["--kind", "centerlines"] if rng.random() < 0.3 else []
        return Case(
            arguments=["vectorize", "x.tif", "-o", "v.gpkg", "--json", *lines],
            outputs=["v.gpkg"],
            check=_layer_is_whole("v.gpkg"),
        )
    if what == "beside":
        shutil.copy(_pick(rng, seeds["scenes"]), "x.tif")
        text = b"<PAMDataset><SRS>EPSG:32632</SRS><GeoTransform>5e5,2,0,5e6,0,-2</GeoTransform>"
        text += b'<PAMRasterBand band="1"><NoDataValue>0</NoDataValue><Scale>0.1</Scale>'
        text += b"</PAMRasterBand></PAMDataset>"
        ending, content = [
            (".msk", _pick(rng, seeds["masks"]).read_bytes()),
            (".ovr", _pick(rng, seeds["scenes"]).read_bytes()),
            (".aux.xml", text),
        ][int(rng.integers(3))]
        Path(f"x.tif{ending}").write_bytes(mutated(content, rng, head=_HEAD))
        return Case(
            arguments=refine, outputs=["m.tif", "c.tif", "m.manifest.json"], check=_grid_is_kept
        )
    _damage(_pick(rng, seeds["scenes"]), "x.tif", rng)
    if what == "info":
        return Case(arguments=["info", "x.tif", "--json"], check=_is_json)
    if what == "evaluate":
        truth = seeds["masks"][0]
        arguments = ["evaluate", "x.tif", "--mask", truth, "--no-refine", "--json"]
        return Case(arguments=arguments, check=_is_json)
    if what == "pictures":
        Path("data/confidence").mkdir(parents=True)
        shutil.move("x.tif", "data/confidence/a.tif")
        shutil.copy(seeds["masks"][1], "data/a_mask.tif")
        return Case(arguments=["evaluate", "data", "--no-refine", "--json"], check=_is_json)
    if rng.random() < 0.15:
        return Case(
            arguments=[*refine, "--vector-out", "v.gpkg"],
            outputs=["m.tif", "c.tif", "v.gpkg", "m.manifest.json"],
            check=_grid_is_kept,
        )
    return Case(
        arguments=refine, outputs=["m.tif", "c.tif", "m.manifest.json"], check=_grid_is_kept
    )


def checkpoint(rng: np.random.Generator, seeds: dict[str, list[str]]) -> Case:
    """A damaged model file."""
    is_base = rng.random() < 0.1 and bool(seeds["bases"])
    source = _pick(rng, seeds["bases" if is_base else "models"])
    content = source.read_bytes()
    _damage(source, "m.safetensors", rng, head=8 + int.from_bytes(content[:8], "little"))
    if is_base:
        colour = next(path for path in seeds["scenes"] if path.endswith("colour.tif"))
        shutil.copy(colour, "x.tif")
        return Case(
            arguments=["base", "predict", "x.tif", "-m", "m.safetensors", "-o", "m.tif"],
            outputs=["m.tif"],
            check=lambda out: _grid_is_kept(out, outputs=("m.tif",)),
        )
    if rng.random() < 0.15:
        return Case(arguments=["model", "show", "m.safetensors", "--json"], check=_is_json)
    shutil.copy(next(path for path in seeds["scenes"] if path.endswith("tiles.tif")), "x.tif")
    return Case(
        arguments=["refine", "x.tif", "-m", "m.safetensors", "-o", "m.tif", "--confidence-out",
                   "c.tif", "--tile-size", "64", "--overlap", "0"],
        outputs=["m.tif", "c.tif", "m.manifest.json"],
        check=_grid_is_kept,
    )  # fmt: skip


def geopackage(rng: np.random.Generator, seeds: dict[str, list[str]]) -> Case:
    """A damaged GeoPackage where layers are to be added, damaged vectors, names of files."""
    what = rng.choice(["add", "read", "name"], p=[0.4, 0.3, 0.3])
    if what == "add":
        _damage(_pick(rng, seeds["geopackages"]), "v.gpkg", rng, head=8192)
        mode = str(rng.choice(["--append", "--overwrite-layer", "--overwrite"]))
        return Case(
            arguments=["vectorize", seeds["masks"][0], "-o", "v.gpkg", "--layer", "out", mode,
                       "--json"],
            check=_layer_is_whole("v.gpkg"),
        )  # fmt: skip
    if what == "read":
        source = _pick(rng, seeds["vectors"])
        parts = list(parts_of(source))
        broken = int(rng.integers(len(parts)))
        for number, part in enumerate(parts):
            if number == broken:
                _damage(part, part.name, rng)
            else:
                shutil.copy(part, part.name)
        return Case(
            arguments=["evaluate", source.name, "--mask", seeds["vectors"][0], "--json"],
            # A damaged file may well hold two layers, or none of the name.
            allowed=WITH_USAGE,
            check=_is_json,
        )
    name = mutated_name(str(rng.choice(["v.gpkg", "x.tif", "out.geojson", "m.tif"])), rng)
    kind = rng.choice(["output", "vector", "input", "labels"])
    if kind == "output":
        # A name may be no name, or end otherwise: what is written has that name, and nothing else.
        arguments = ["vectorize", seeds["masks"][0], f"--output={name}", "--json"]
        return Case(
            arguments=arguments, outputs=[name], allowed=WITH_USAGE, check=_layer_is_whole(name)
        )
    if kind == "vector":
        shutil.copy(next(path for path in seeds["scenes"] if path.endswith("tiles.tif")), "x.tif")
        return Case(
            arguments=["refine", "x.tif", "-o", "m.tif", "--vector-out", name, "-m",
                       seeds["models"][0], "--tile-size", "64", "--overlap", "16"],
            outputs=["m.tif", "m.manifest.json", name],
            allowed=WITH_USAGE,
            check=lambda out: _grid_is_kept(out, outputs=("m.tif",)),
        )  # fmt: skip
    copied = seeds["scenes"][2] if kind == "input" else seeds["vectors"][0]
    if rng.random() < 0.7 and "/" not in name and name not in ("", ".", ".."):
        # Too long for a file: it is missing then, which is a case too.
        with suppress(OSError):
            shutil.copy(copied, name)
    if kind == "input":
        return Case(arguments=["info", "--json", "--", name], allowed=WITH_USAGE, check=_is_json)
    return Case(
        arguments=["evaluate", "--json", f"--mask={seeds['vectors'][0]}", "--", name],
        allowed=WITH_USAGE,
        check=_is_json,
    )


KINDS: dict[str, Maker] = {
    "geotiff": geotiff,
    "checkpoint": checkpoint,
    "geopackage": geopackage,
}


def run_case(
    kind: str, number: int, *, seed: int, seeds: dict[str, list[str]], folder: Path
) -> Outcome:
    """Run one case in an empty folder, which becomes the working directory and stays as it is."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
    case = KINDS[kind](rng, seeds)
    (folder.parent / f"{folder.name}.json").write_text(json.dumps(case.arguments))
    before = _contents()
    started = time.perf_counter()
    result = runner().invoke(main, case.arguments)
    seconds = time.perf_counter() - started
    problem = _problem(case, result, before)
    return Outcome(
        kind=kind,
        number=number,
        command=case.arguments[0],
        code=result.exit_code,
        problem=problem,
        seconds=seconds,
    )


def _contents() -> dict[str, bytes]:
    """Every file below this directory."""
    return {
        f"{top}/{name}": Path(top, name).read_bytes()
        for top, _, names in os.walk(".")
        for name in names
    }


def _problem(case: Case, result: Any, before: dict[str, bytes]) -> str | None:
    """The first rule that the case broke."""
    code, said = result.exit_code, result.stderr
    if code not in case.allowed:
        return f"exit code {code}: {said[-500:]}"
    if "Traceback" in said or "Traceback" in result.stdout:
        return f"traceback: {said[-500:]}"
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    if errors != (lines[-1:] if code else []):
        return f"{len(errors)} lines of errors at exit code {code}: {said[-500:]}"
    if any(not (c.isprintable() or c in "\n\t") for c in said):
        return f"control characters: {said[-500:]!r}"
    if code and result.stdout and not _is_told(result.stdout, case, code):
        return f"a result at exit code {code}: {result.stdout[:200]!r}"
    after = _contents()
    expected = {f"./{name}" for name in case.outputs} if code == 0 else set()
    # Beside them lie what they look like, and names of classes.
    sides = {name for name in after if name.endswith((".qml", ".tif.aux.xml"))}
    new = after.keys() - before.keys() - (sides - expected if code == 0 else set())
    if new != expected - before.keys():
        return f"files {sorted(new)}, expected {sorted(expected)}"
    changed = {name for name in before if after.get(name) != before[name]}
    if code and changed:
        return f"exit code {code} changed {sorted(changed)}"
    if code == 0 and case.check is not None:
        return case.check(result.stdout)
    return None


def _is_told(out: str, case: Case, code: int) -> bool:
    """Whether what is on stdout is the error as JSON, which was asked for."""
    if "--json" not in case.arguments:
        return False
    try:
        told = json.loads(out)
    except ValueError:
        return False
    return bool(told.keys() == {"error", "exit_code"} and told["exit_code"] == code)


def _is_json(out: str) -> str | None:
    try:
        json.loads(out)
    except ValueError as error:
        return f"no JSON on stdout ({error}): {out[:200]}"
    return None


def _grid_is_kept(out: str, outputs: tuple[str, ...] = ("m.tif", "c.tif")) -> str | None:
    """Each output opens, is on the grid of x.tif, and can be decoded to the last block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open("x.tif", driver="GTiff") as scene:
            for name in outputs:
                with rasterio.open(name, driver="GTiff") as made:
                    if made.shape != scene.shape:
                        return f"{name} has {made.shape}, the scene {scene.shape}"
                    if tuple(made.transform) != tuple(scene.transform):
                        return f"{name} has {made.transform!r}, the scene {scene.transform!r}"
                    if made.crs != scene.crs:
                        return f"{name} has the CRS {made.crs}, the scene {scene.crs}"
                    values = np.unique(made.read(1))
                    if name == "m.tif" and len(outputs) > 1 and set(values) - {0, 1, 255}:
                        return f"the mask holds {values}"
    return None


def _layer_is_whole(name: str) -> Callable[[str], str | None]:
    """The layer that the JSON on stdout tells of is in the file, with all its features."""

    def check(out: str) -> str | None:
        told = json.loads(out)
        kinds = {str(layer) for layer, _ in pyogrio.list_layers(f"./{name}")}
        if name.lower().endswith(".gpkg") and told["layer"] not in kinds:
            return f"no layer {told['layer']} in {kinds}"
        layer = told["layer"] if name.lower().endswith(".gpkg") else None
        found = len(pyogrio.raw.read(f"./{name}", layer=layer)[2])
        if found != told["features"]:
            return f"{found} features, {told['features']} were told"
        if told["area"] is not None and not math.isfinite(told["area"]):
            return f"an area of {told['area']}"
        return None

    return check


def load_models_once() -> None:
    """Keep whole models in memory: thousands of cases refine with the same."""
    refiner.ModelSource.load = lru_cache(maxsize=2)(refiner.ModelSource.load)  # type: ignore[method-assign]
