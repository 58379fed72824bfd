"""The split of confidence maps: by id, so that the maps of several base networks stay together.

Ids whose masks are equal pixel by pixel are one place under two names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from geothresh.raster.pairs import MaskFacts, Pair
from geothresh.splitting import Split, split_ids

__all__ = ["Split", "split_pairs"]


def split_pairs(
    pairs: Sequence[Pair],
    facts: Mapping[str, MaskFacts],
    *,
    fraction: float,
    hold_out: Sequence[str] = (),
    place_pattern: str | None = None,
    seed: int = 0,
) -> Split:
    """Split the ids of the pairs by place.

    Args:
        pairs: all of them.
        facts: of each id's mask; empty = not known yet, so that whatever is wrong with the options
            is found before the masks are read.
        fraction, hold_out, place_pattern, seed: as for `split_ids`.

    Raises:
        UsageError: as `split_ids` does.
    """
    by_dataset: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        by_dataset[pair.dataset].add(pair.id)
    return split_ids(
        by_dataset,
        {pair.id: facts[pair.id].marks if facts else () for pair in pairs},
        fraction=fraction,
        hold_out=hold_out,
        place_pattern=place_pattern,
        seed=seed,
    )
