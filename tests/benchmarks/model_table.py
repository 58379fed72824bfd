r"""The table of a model card: what a model gains by default on maps of places it has not seen.

    python tests/benchmarks/model_table.py roads --data DATA --maps MAPS --ids RUN/held-out \
        --gsd roads-cil=0.387 --gsd roads-massachusetts=1 -o table.json

MODEL is a packaged name or a file, DATA and MAPS are as for make_maps.py. Each row is printed as
soon as it is known, as Markdown; what is in the JSON file is not measured again. With ``--card``,
the table and what it comes to are put into a model card, between its two marks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import ids_file, ids_of, map_folders, maps_parser, put_between

import geothresh
from geothresh.evaluation.options import Maps, Scoring
from geothresh.options import Compute

HEAD = """\
| maps | n | miou: cut at 0.5 | best single* | bound* | **refined** | gain (s.e.) | over single | \
share of the bound | Boundary IoU: cut | best single* | **refined** | gain (s.e.) | lose more than \
1 point |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def measured(arguments: argparse.Namespace, masks: Path, folder: Path) -> dict[str, Any]:
    """The report of one set and network."""
    size = dict(pair.split("=") for pair in arguments.gsd).get(masks.name)
    report = geothresh.evaluate(
        masks,
        model=arguments.model,
        maps=Maps(
            confidence=[folder], ids=ids_file(arguments.ids, masks.name), skip_unpaired=True,
            ground_sample_distance=() if size is None else [float(size)],
        ),
        scoring=Scoring(),
        compute=Compute(device="cpu"),
    )  # fmt: skip
    (source,) = report.sources
    values = source.as_dict()
    return {key: values[key] for key in ("n", "resampling", "rows", "changes")}


def line(name: str, values: dict[str, Any]) -> str:
    """A row in Markdown."""
    rows, changes = values["rows"], values["changes"]
    cut, refined = rows["cut"], rows["refined"]
    single, edge = rows["single"], rows["single_boundary"]
    bound = rows["regions"]["miou"] - cut["miou"]
    gain = refined["miou"] - cut["miou"]
    figures = [
        name, str(values["n"]),
        *(f"{100 * row['miou']:.1f}" for row in (cut, single, rows["regions"])),
        f"**{100 * refined['miou']:.1f}**",
        f"{100 * gain:+.1f} ({100 * (changes['iou']['standard_error'] or 0):.1f})",
        f"{100 * (refined['miou'] - single['miou']):+.1f}",
        f"{100 * gain / bound:.0f} %" if bound > 0 else "-",
        *(f"{100 * row['boundary_iou']:.1f}" for row in (cut, edge)),
        f"**{100 * refined['boundary_iou']:.1f}**",
        f"{100 * (refined['boundary_iou'] - cut['boundary_iou']):+.1f} "
        f"({100 * (changes['boundary_iou']['standard_error'] or 0):.1f})",
        f"{changes['iou']['n_worse_by_a_point']} "
        f"({100 * changes['iou']['n_worse_by_a_point'] / values['n']:.0f} %)",
    ]  # fmt: skip
    return f"| {' | '.join(figures)} |"


def summary(known: dict[str, dict[str, Any]]) -> str:
    """What the rows come to, beside what is wanted of a packaged model."""

    def gains(measure: str, kind: str) -> list[float]:
        rows = [values["rows"] for values in known.values()]
        return [100 * (row["refined"][measure] - row[kind][measure]) for row in rows]

    sizes = [values["n"] for values in known.values()]
    worse = [values["changes"]["iou"]["n_worse_by_a_point"] for values in known.values()]
    miou, edge, over = (
        gains("miou", "cut"), gains("boundary_iou", "cut"), gains("miou", "single"),
    )  # fmt: skip
    bound = [gain - rest for gain, rest in zip(miou, gains("miou", "regions"), strict=True)]
    large = [i for i, n in enumerate(sizes) if n >= 25]
    enough = sum(min(miou[i], edge[i]) >= 2.5 for i in large)
    few = sum(w <= 0.1 * n for w, n in zip(worse, sizes, strict=True))
    half = sum(g >= b / 2 for g, b in zip(miou, bound, strict=True))
    return (
        f"Of {len(known)} rows {sum(g > 0 for g in miou)} gain over the cut at 0.5 in miou "
        f"({min(miou):+.1f} to {max(miou):+.1f} points) and {sum(g > 0 for g in edge)} in Boundary "
        f"IoU, {sum(g > 0 for g in over)} lie above the best single threshold, and {half} reach "
        f"half of what optimal region-specific thresholds would gain. Of {len(large)} rows with 25 "
        f"maps or more {enough} gain 2.5 points or more in both measures. {sum(worse)} of "
        f"{sum(sizes)} maps ({100 * sum(worse) / sum(sizes):.0f} %) lose more than a point; in "
        f"{few} of the rows at most 10 % do."
    )


def main() -> None:
    """Print the table."""
    parser = maps_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--theme", action="append")
    parser.add_argument("--gsd", action="append", default=[], metavar="SET=METRES")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--card", type=Path, help="model card, a Markdown file with marks")
    arguments = parser.parse_args()
    known = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    print(HEAD)
    for masks in sorted(arguments.data.glob("*-*")):
        theme = masks.name.split("-")[0]
        if arguments.theme and theme not in arguments.theme:
            continue
        wanted = ids_of(arguments.ids, masks.name)
        for folder in map_folders(arguments.data, arguments.maps, masks.name):
            name = f"{masks.name}/{folder.name}"
            if not any(path.stem in wanted for path in folder.glob("*.png")):
                continue
            if name not in known:
                known[name] = measured(arguments, masks, folder)
                arguments.output.write_text(json.dumps(known, indent=1) + "\n")
            print(line(name, known[name]), flush=True)
    print(f"\n{summary(known)}")
    if arguments.card:
        rows = "\n".join(line(*row) for row in sorted(known.items()))
        text = f"{HEAD}\n{rows}\n\n{summary(known)}"
        put_between(arguments.card, text, mark="measured")


if __name__ == "__main__":
    main()
