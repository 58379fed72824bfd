"""What the benchmarks share: arguments, the machine in one line, cases in turn, memory, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


def script_parser(text: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments of a script, whose help begins with the script's own text."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)


def maps_parser(text: str | None) -> argparse.ArgumentParser:
    """`script_parser` with where data and maps are, and which ids are judged."""
    parser = script_parser(text)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--ids", type=Path, required=True, help="see `ids_file`")
    return parser


def map_folders(data: Path, maps: Path, dataset: str) -> list[Path]:
    """Folders with maps of a set, one a network: those of `data`, then those of make_maps.py."""
    return [
        *sorted((data / "confidence" / dataset).glob("*")),
        *sorted((maps / dataset.split("-")[0] / dataset).glob("[!.]*")),
    ]


def ids_file(ids: Path, dataset: str) -> Path:
    """The file with the ids of a set: ``ids/SET.txt`` in a folder, or `ids` itself, for all sets.

    Sets number their maps alike, so that one file is for ids of sets whose names differ.
    """
    return ids / f"{dataset}.txt" if ids.is_dir() else ids


def ids_of(ids: Path, dataset: str) -> set[str]:
    """The ids of a set, none where there is no file for it; see `ids_file`."""
    file = ids_file(ids, dataset)
    return set(file.read_text().split()) if file.exists() else set()


def machine(*packages: str) -> str:
    """What a table was measured on: processor, cores, how busy they are, versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores, {platform.machine()}{_instructions()}, "
        f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
    )


def _instructions() -> str:
    """What of the processor decides how fast a network is, as far as Linux tells."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX"}
    names = [name for flag, name in known.items() if flag in flags]
    return f" with {' and '.join(names)}" if names else ""


@dataclass(frozen=True, slots=True)
class Seconds:
    """What something took."""

    wall: float
    """By the clock."""
    cpu: float
    """Of processors, in all threads of this process."""


def timed(call: Callable[[], object]) -> Seconds:
    """What a call takes, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(cases: Mapping[str, Callable[[], Seconds]], repeat: int) -> dict[str, list[Seconds]]:
    """Measure all cases one after the other, and that so many times.

    A machine that is busy with other things hurts all of them alike: ratios of the same round are
    what to look at.
    """
    found: dict[str, list[Seconds]] = {name: [] for name in cases}
    for _ in range(repeat):
        for name, case in cases.items():
            found[name].append(case())
    return found


def ratio(over: Sequence[Seconds], under: Sequence[Seconds], *, of: str = "wall") -> float:
    """Median over rounds of what one case takes over what another one takes."""
    return statistics.median(
        getattr(a, of) / getattr(b, of) for a, b in zip(over, under, strict=True)
    )


def least(runs: Sequence[Seconds]) -> Seconds:
    """The least wall and the least processor time of several runs."""
    return Seconds(min(run.wall for run in runs), min(run.cpu for run in runs))


def peak_megabytes() -> float:
    """Highest resident size of this process so far, from Linux's /proc.

    `resource.getrusage` would not do: what it tells begins with the size of the parent process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def in_process(file: str, *words: str | int) -> dict[str, float]:
    """Run `python file words ...` and read the figures that it prints as JSON in its last line."""
    command = [sys.executable, file, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def put_between(file: Path, text: str, *, mark: str) -> None:
    """Replace what stands between the marks ``<!-- mark -->`` and ``<!-- end -->`` of a file."""
    begin, end = f"<!-- {mark} -->", "<!-- end -->"
    before, rest = file.read_text().split(begin)
    _, after = rest.split(end, 1)
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
