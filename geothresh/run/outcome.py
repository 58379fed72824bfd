"""Whether what refinement did to a raster is like what it did to the maps of its training."""

from __future__ import annotations

from collections.abc import Sequence

from geothresh.nn.packaged import GENERAL
from geothresh.nn.scope import ModelScope

#: Of the foreground, more than this share gone is unlike any set of training maps.
MOST_REMOVED = 1 / 3
#: Of all pixels, likewise, more than this share changed.
MOST_CHANGED = 1 / 10
#: Foreground so many times wider or narrower than the model's range is unlike the maps of any of
#: the networks that it was trained on: of 500 single maps of New York, one has more.
MOST_WIDER = 3
#: Below so many pixels of foreground, shares say nothing.
LEAST_FOREGROUND = 1000


def doubts(
    *,
    valid: int,
    before: int,
    after: int,
    changed: int,
    width: float | None = None,
    model: str,
    scope: ModelScope,
    others: Sequence[str] = (GENERAL,),
) -> str | None:
    """What to warn of; None where the outcome is as in training, or the model tells no theme.

    Args:
        valid: pixels with data.
        before: of these, foreground in the input.
        after: foreground in the mask.
        changed: foreground before or after, but not both.
        width: of the foreground in the input, in pixels as the model reads them; None = unknown.
        model: its name.
        scope: what it is for.
        others: names of the packaged models besides this one.

    Example:
        >>> told = doubts(valid=10**6, before=90_000, after=13_000, changed=79_000,
        ...               model="roads", scope=ModelScope(theme="roads and streets"))
        >>> print(told)
        refinement removed 87 % of the foreground, unlike on any map of its training: the model \
roads is for roads and streets; if this is something else, name another with `model` (general \
fits any binary map)
    """
    if not scope.theme or before < LEAST_FOREGROUND:
        return None
    removed = (changed - (after - before)) // 2
    told = []
    if removed > MOST_REMOVED * before:
        told.append(f"removed {100 * removed / before:.0f} % of the foreground")
    if changed > MOST_CHANGED * valid:
        told.append(f"changed {100 * changed / valid:.0f} % of all pixels")
    found = [f"refinement {' and '.join(told)}, unlike on any map of its training"] if told else []
    if width is not None and scope.widths is not None:
        ratio = scope.widths.ratio(width)
        if max(ratio, 1 / ratio) > MOST_WIDER:
            found.append(
                f"the foreground is some {width:.2g} pixels wide as the model reads it, far from "
                f"the {scope.widths.least:g} to {scope.widths.greatest:g} of its training"
            )
    if not found:
        return None
    what = f"{'; '.join(found)}: the model {model} is for {scope.theme}"
    if model == GENERAL:
        return (
            f"{what}, but look at the mask; with labels, `geothresh calibrate` tells what is best"
        )
    if GENERAL in others:
        there = f" ({GENERAL} fits any binary map)"
    else:
        there = f" (there: {', '.join(others)})" if others else ""
    return f"{what}; if this is something else, name another with `model`{there}"
