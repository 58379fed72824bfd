"""Thousands of damaged GeoTIFFs, model files and GeoPackages through the command line.

The rule: exit code 0, 3, 4 or 5 (2 for wrong names), one line on stderr for an error, no traceback,
no signal, no hang, nothing left behind; and after 0 an output on the grid of the input that decodes
to the last block. ``make fuzz`` runs it whole; ``--case KIND:NUMBER`` repeats one case.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.cases import KINDS, Outcome  # noqa: E402
from tests.fuzz.pool import run_all  # noqa: E402
from tests.fuzz.seeds import make_all  # noqa: E402

DEFAULTS = {"geotiff": 5000, "checkpoint": 1000, "geopackage": 500}


def fuzz(
    sizes: dict[str, int],
    *,
    seed: int,
    workers: int,
    findings: Path,
    cases: list[tuple[str, int]] | None = None,
    base: bool = True,
    say: bool = True,
) -> list[Outcome]:
    """Run so many cases of each kind, or just these cases; findings go to their folder.

    Returns:
        The outcome of every case.
    """
    tasks = cases or [(kind, number) for kind, count in sizes.items() for number in range(count)]
    # Torch and OpenBLAS read it when a process starts.
    os.environ["OMP_NUM_THREADS"] = "1"
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = Path(scratch)
        seeds = make_all(folder / "seeds", base=base)

        def keep(outcome: Outcome, place: Path) -> None:
            target = findings / f"seed{seed}-{outcome.kind}-{outcome.number}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(place, target / "files", symlinks=True)
            arguments = json.loads(place.with_name("case.json").read_text())
            told = {**asdict(outcome), "seed": seed, "arguments": arguments}
            (target / "finding.json").write_text(json.dumps(told, indent=1) + "\n")
            if say:
                print(f"\n{outcome.kind}:{outcome.number}: {outcome.problem}\n  {target}")

        started = time.monotonic()
        for outcome in run_all(
            tasks, seed=seed, seeds=seeds, folder=folder / "work", workers=workers, keep=keep
        ):
            outcomes.append(outcome)
            if say and len(outcomes) % 250 == 0:
                seconds = time.monotonic() - started
                print(f"{len(outcomes)} of {len(tasks)} cases, {seconds:.0f} s", flush=True)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Counts by kind, command and exit code."""
    codes = sorted({outcome.code for outcome in outcomes})
    lines = [
        "kind        command     cases" + "".join(f"{code:>8}" for code in codes) + "  slowest"
    ]
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.kind, outcome.command), []).append(outcome)
        groups.setdefault((outcome.kind, "all"), []).append(outcome)
    for (kind, command), some in sorted(groups.items()):
        counted = Counter(outcome.code for outcome in some)
        lines.append(
            f"{kind:<12}{command:<12}{len(some):>5}"
            + "".join(f"{counted[code]:>8}" for code in codes)
            + f"{max(outcome.seconds for outcome in some):>7.1f} s"
        )
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, count in DEFAULTS.items():
        parser.add_argument(f"--{kind}s", dest=kind, type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--case", action="append", metavar="KIND:NUMBER", help="may be repeated")
    arguments = parser.parse_args()
    cases = None
    if arguments.case:
        pairs = [text.rpartition(":") for text in arguments.case]
        cases = [(kind, int(number)) for kind, _, number in pairs]
    started = time.monotonic()
    outcomes = fuzz(
        {kind: getattr(arguments, kind) for kind in KINDS},
        seed=arguments.seed,
        workers=arguments.workers,
        findings=arguments.findings.resolve(),
        cases=cases,
    )
    print(table(outcomes))
    found = sum(outcome.problem is not None for outcome in outcomes)
    seconds = time.monotonic() - started
    print(f"{len(outcomes)} cases, seed {arguments.seed}: {found} findings; {seconds:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
