"""Warnings about the result of a run, such as more foreground removed than on training maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from geothresh.nn.packaged import GENERAL, packaged_besides
from geothresh.nn.scope import ModelScope
from geothresh.raster.scene import INFINITIES
from geothresh.run.changes import ChangeCounts
from geothresh.run.models import ChosenModel

#: Share of the foreground that is removed; of sets of road and landslide maps 0.2 at most.
MOST_REMOVED = 1 / 3
#: Share of all pixels that are changed; few sets of such maps have a larger one, up to 0.23.
MOST_CHANGED = 1 / 10
#: Foreground this many times wider or narrower than the model's range is unlike the maps of any of
#: the networks that it was trained on. Of 500 single maps of New York, one is farther off.
MOST_WIDER = 3
#: With fewer foreground pixels, shares mean nothing.
LEAST_FOREGROUND = 1000


def remarks(
    total: Callable[[str], int], chosen: ChosenModel, *, empty: str, width: float | None = None
) -> list[str]:
    """Warnings about a finished run, each without the name of the raster.

    Args:
        total: gives the sum of a count over the run, by name: fields of `ChangeCounts`,
            ``infinities``.
        chosen: the model.
        empty: the warning if no pixel has data.
        width: see `doubts`.
    """
    counts = ChangeCounts.of(total)
    doubt = doubts(
        counts, model=chosen.name, scope=chosen.scope, others=packaged_besides(chosen.name),
        width=width,
    )  # fmt: skip
    texts = (INFINITIES if total("infinities") else None, None if counts.valid else empty, doubt)
    return [text for text in texts if text is not None]


def doubts(
    counts: ChangeCounts,
    *,
    model: str,
    scope: ModelScope,
    others: Sequence[str] = (GENERAL,),
    width: float | None = None,
) -> str | None:
    """A warning if the result differs from those on nearly all training maps.

    Args:
        counts: counts over the whole run.
        model: name of the model.
        scope: what the model was trained for.
        others: names of the other packaged models.
        width: width of the foreground in the input, in pixels of the model; None = unknown.

    Returns:
        The warning; None if there is nothing to warn of, or the model has no theme.

    Example:
        >>> counts = ChangeCounts(
        ...     valid=10**6, foreground_before=90_000, foreground_after=13_000, changed=79_000
        ... )
        >>> print(doubts(counts, model="roads", scope=ModelScope(theme="roads and streets")))
        refinement removed 87 % of the foreground, unlike on most maps of its training: the model \
roads is for roads and streets; if this is something else, name another with `model` (general \
fits any binary map)
    """
    before = counts.foreground_before
    if not scope.theme or before < LEAST_FOREGROUND:
        return None
    changes = []
    if counts.removed > MOST_REMOVED * before:
        changes.append(f"removed {100 * counts.removed / before:.0f} % of the foreground")
    if counts.changed_share > MOST_CHANGED:
        changes.append(f"changed {100 * counts.changed_share:.0f} % of all pixels")
    reasons = []
    if changes:
        reasons.append(f"refinement {' and '.join(changes)}, unlike on most maps of its training")
    if width is not None and scope.widths is not None:
        ratio = scope.widths.ratio(width)
        if max(ratio, 1 / ratio) > MOST_WIDER:
            reasons.append(
                f"the foreground is some {width:.2g} pixels wide as the model reads it, far from "
                f"the {scope.widths.least:g} to {scope.widths.greatest:g} of its training"
            )
    if not reasons:
        return None
    what = f"{'; '.join(reasons)}: the model {model} is for {scope.theme}"
    if model == GENERAL:
        return (
            f"{what}, but look at the mask; with labels, `geothresh calibrate` tells what is best"
        )
    if GENERAL in others:
        choice = f" ({GENERAL} fits any binary map)"
    else:
        choice = f" (there: {', '.join(others)})" if others else ""
    return f"{what}; if this is something else, name another with `model`{choice}"
