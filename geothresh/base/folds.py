"""Folds by place: every network predicts places that it has not seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from geothresh.errors import UsageError
from geothresh.raster.image_pairs import ImageFacts, ImagePair
from geothresh.splitting import places_of


def folds_of(
    pairs: Sequence[ImagePair],
    facts: Mapping[str, ImageFacts],
    *,
    folds: int,
    place_pattern: str | None = None,
    seed: int = 0,
) -> list[tuple[str, ...]]:
    """Deal the places of each data set out to folds of nearly equal size.

    Args:
        pairs: all images.
        facts: of each id: those that share a mark are one place; empty = not known yet, so that
            whatever is wrong with the options is found before the images are read.
        folds: at least 2.
        place_pattern: regular expression whose first group names the place of an id.
        seed: of the draw.

    Returns:
        The sorted ids of each fold; they are disjoint and cover all ids.

    Raises:
        UsageError: there are fewer places than folds, or the pattern makes no sense.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds: give at least 2, one to train on and one to predict")
    by_id = {pair.id: pair.dataset for pair in pairs}
    places = places_of(by_id, {i: facts[i].marks if facts else () for i in by_id}, place_pattern)
    if len(places) < folds:
        raise UsageError(
            f"{folds} folds of {len(places)} places ({len(by_id)} images); give fewer `folds`"
        )
    by_dataset: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for place in places:
        by_dataset[by_id[place[0]]].append(place)
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for number, dataset in enumerate(sorted(by_dataset)):
        sizes = [0] * folds
        some = by_dataset[dataset]
        for k in np.random.default_rng([seed, number]).permutation(len(some)):
            # To the fold with the fewest images of this data set, then of all.
            least = min(range(folds), key=lambda f: (sizes[f], len(dealt[f]), f))
            dealt[least] += some[k]
            sizes[least] += len(some[k])
    return [tuple(sorted(ids)) for ids in dealt]
