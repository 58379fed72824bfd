"""Images that base networks are trained on, and folds of them by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geothresh.base.config import ImageData
from geothresh.raster.image_pairs import ImageFacts, ImagePair, find_images
from geothresh.splitting import deal_places, places_of


def images_of(data: ImageData) -> list[ImagePair]:
    """The images and masks of folders: errors as `find_images`."""
    return find_images(
        data.folders, skip_unpaired=data.skip_unpaired, layout=data.layout, resize=data.resize
    )


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
    by_id = {pair.id: pair.dataset for pair in pairs}
    places = places_of(by_id, {i: facts[i].marks if facts else () for i in by_id}, place_pattern)
    return deal_places(places, by_id, folds=folds, seed=seed)
