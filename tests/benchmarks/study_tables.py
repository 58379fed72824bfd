"""The results of a study as Markdown, in points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

MEASURES = {
    "miou": ("miou", "single", "iou"),
    "Boundary IoU": ("boundary_iou", "single_boundary", "boundary_iou"),
}
"""Title: its name in a row, the row of the threshold that is best for it, its name in changes."""

COLUMNS = (
    "run", "maps", "seen in training", "n", "measure", "at 0.5", "best single threshold",
    "best of each map", "bound", "refined", "gain over 0.5 (s.e.)", "over best single",
    "maps that lose > 1",
)  # fmt: skip


def page(title: str, text: str, results: Sequence[Mapping[str, Any]], *, command: str) -> str:
    """All of a study: what it is, the gains at a glance, every figure, where they come from."""
    parts = [f"# {title}", text, "## Gain over the cut at 0.5", _gains(results)]
    if len(results) > 1 and len({_but_seed(r) for r in results}) == 1:
        parts += ["## Spread over seeds", _spread(results)]
    parts += ["## All figures", _figures(results), "## How", _how(results, command)]
    return "\n\n".join(parts) + "\n"


def _gains(results: Sequence[Mapping[str, Any]]) -> str:
    names = list(results[0]["scores"])
    lines = _table_head(["run", *names, "mean", "mean of *", "of *, maps that lose > 1"])
    for result in results:
        cells = []
        for name in names:
            gains = [_gain(result, name, measure) for measure in MEASURES]
            mark = "" if _seen(result, name) == "yes" else " *"
            cells.append(" / ".join(f"{gain:+.2f}" for gain in gains) + mark)
        unseen = [name for name in names if _seen(result, name) != "yes"]
        cells += [_mean_gain(result, names), _mean_gain(result, unseen), _losses(result, unseen)]
        lines.append(_line([result["run"]["name"], *cells]))
    note = "miou / Boundary IoU, in points, on the held-out ids. * = not trained on such maps."
    return "\n".join([*lines, "", note])


def _mean_gain(result: Mapping[str, Any], names: Sequence[str]) -> str:
    if not names:
        return "-"
    means = (fmean(_gain(result, name, measure) for name in names) for measure in MEASURES)
    return " / ".join(f"{mean:+.2f}" for mean in means)


def _losses(result: Mapping[str, Any], names: Sequence[str]) -> str:
    scores = [result["scores"][name] for name in names]
    lost = sum(score["changes"]["iou"]["n_worse_by_a_point"] for score in scores)
    return f"{lost} of {sum(score['n'] for score in scores)}" if scores else "-"


def _spread(results: Sequence[Mapping[str, Any]]) -> str:
    lines = _table_head(["maps", "measure", "mean gain over 0.5", "standard deviation", "all"])
    for name in results[0]["scores"]:
        for measure in MEASURES:
            gains = [_gain(result, name, measure) for result in results]
            every = ", ".join(f"{gain:+.2f}" for gain in gains)
            lines.append(
                _line([name, measure, f"{fmean(gains):+.2f}", f"{stdev(gains):.2f}", every])
            )
    return "\n".join(lines)


def _figures(results: Sequence[Mapping[str, Any]]) -> str:
    lines = _table_head(COLUMNS)
    for result in results:
        for name, score in result["scores"].items():
            for measure, (key, single, change) in MEASURES.items():
                rows, changes = score["rows"], score["changes"][change]
                error = changes["standard_error"]
                values = [rows[row][key] for row in ("cut", single, "per_map", "regions")]
                refined = rows["refined"][key]
                lost = changes["n_worse_by_a_point"]
                lines.append(
                    _line(
                        [
                            result["run"]["name"],
                            name,
                            _seen(result, name),
                            str(score["n"]),
                            measure,
                            *(f"{100 * value:.2f}" for value in values),
                            f"**{100 * refined:.2f}**",
                            f"{_gain(result, name, measure):+.2f}"
                            + (f" ({100 * error:.2f})" if error is not None else ""),
                            f"{100 * (refined - rows[single][key]):+.2f}",
                            f"{lost} ({100 * lost / score['n']:.0f} %)",
                        ]
                    )
                )
    note = (
        "Best thresholds and bound (region-specific thresholds, P = the model's) are chosen with "
        "the truth of these very maps at hand. Standard errors are over maps."
    )
    return "\n".join([*lines, "", note])


def _how(results: Sequence[Mapping[str, Any]], command: str) -> str:
    lines = [f"```\n{command}\n```", ""]
    lines += _table_head(["run", "trained on", "patch", "seed", "steps", "seconds", "machine"])
    for result in results:
        run = result["run"]
        lines.append(
            _line(
                [
                    run["name"],
                    ", ".join(run["trained_on"]),
                    str(run["patch"]),
                    str(run["recipe"]["seed"]),
                    str(result["steps"]),
                    f"{result['train_seconds']:.0f}",
                    result["machine"],
                ]
            )
        )
    return "\n".join(lines)


def _gain(result: Mapping[str, Any], name: str, measure: str) -> float:
    key = MEASURES[measure][0]
    rows = result["scores"][name]["rows"]
    return float(100 * (rows["refined"][key] - rows["cut"][key]))


def _seen(result: Mapping[str, Any], name: str) -> str:
    """Whether a run was trained on maps of this data set by this network, of other places."""
    trained = result["run"]["trained_on"]
    if name in trained:
        return "yes"
    dataset, network = name.split("/")
    if dataset not in {other.split("/")[0] for other in trained}:
        return "no such labels"
    return "no such network" if network not in {o.split("/")[1] for o in trained} else "neither"


def _but_seed(result: Mapping[str, Any]) -> str:
    run = result["run"]
    recipe = {key: value for key, value in run["recipe"].items() if key != "seed"}
    return repr((run["trained_on"], run["patch"], recipe))


def _table_head(titles: Sequence[str]) -> list[str]:
    return [_line(titles), "|" + "---|" * len(titles)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
