"""Labelled maps in folders: select them, find their pixel sizes, and refine them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from geothresh.errors import UsageError
from geothresh.evaluation.options import Maps
from geothresh.evaluation.samples import CELL, Refine, choose, pair_samples, read_ids
from geothresh.evaluation.scoring import Sample
from geothresh.mosaic import (
    ChunkSink,
    RasterReader,
    Refiner,
    RefinerSource,
    Sink,
    load_refiner,
    mosaic,
    mosaic_array,
)
from geothresh.options import Progress, Tiling
from geothresh.raster.pairs import Pair, by_dataset, find_pairs
from geothresh.run.models import Choose, ChosenModel
from geothresh.thresholding import median_width
from geothresh.windows import RasterSize

# About how many maps of a data set are read to measure the width of the foreground.
_SAMPLED = 32


def chosen_pairs(folders: Sequence[Path], maps: Maps) -> list[Pair]:
    """Find the selected maps and their masks.

    Raises:
        InputError: maps or masks are missing, or none of the ids exists.
    """
    map_folders = [Path(folder) for folder in maps.confidence]
    pairs = find_pairs(
        folders, map_folders, skip_unpaired=maps.skip_unpaired, layout=maps.layout,
        resize=maps.resize,
    )  # fmt: skip
    if maps.ids is None:
        return pairs
    return choose(pairs, read_ids(Path(maps.ids), maps.split))


def pixel_sizes(folders: Sequence[Path], maps: Maps, *, as_raster: bool) -> dict[str, float]:
    """Ground sample distances in metres by data set, as the user gave them.

    Raises:
        UsageError: a distance is given for a raster, or their number is neither 1 nor that of the
            folders.
    """
    # A range is reduced to its geometric mean, as in training.
    given = [
        math.sqrt(size[0] * size[-1]) if isinstance(size, tuple) else size
        for size in maps.ground_sample_distance
    ]
    if as_raster and given:
        raise UsageError("a raster tells the size of its pixels; leave out the distance")
    if not given:
        return {}
    if len(given) not in (1, len(folders)):
        raise UsageError(
            f"{len(given)} ground sample distances for {len(folders)} folders; give one for all "
            "of them, or one for each in the same order"
        )
    each = list(given) * len(folders) if len(given) == 1 else given
    return by_dataset(folders, each)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRefinement:
    """How the maps of a data set are refined."""

    refine: Refine
    """Refines one map."""
    refiner: Refiner | RefinerSource
    """The model."""
    resampling: float
    """Pixels of the model along one pixel of the maps."""

    @classmethod
    def of(
        cls,
        model: Choose,
        metres: float | None,
        pairs: Sequence[Pair],
        tiling: Tiling,
    ) -> MapRefinement:
        """Choose the model's resolution for a data set.

        Args:
            model: chooses the model for ``metres`` and ``width``, see `choose_model`.
            metres: ground sample distance of the data set; None = unknown.
            pairs: the maps of the data set; some are read if the width of the foreground is needed.
            tiling: how maps are cut into tiles.
        """
        chosen = model(metres=metres, width=partial(_width, pairs))
        grid = chosen.grid(RasterSize(height=1, width=1), tiling)
        refine = partial(
            mosaic_array,
            refiner=chosen.refiner,
            tile=grid.tile,
            overlap=grid.overlap,
            blend=tiling.blend,
            batch_size=chosen.batch_size,
        )
        return cls(refine=refine, refiner=chosen.refiner, resampling=chosen.resampling)

    def samples(self, pairs: Sequence[Pair]) -> Iterator[Sample]:
        """Refine maps, with their truth; several at once, because most are a single tile."""
        at_once = load_refiner(self.refiner).parallel_calls
        return pair_samples(pairs, self.refine, at_once=at_once)


def refine_in_cells(
    scene: RasterReader,
    chosen: ChosenModel,
    tiling: Tiling,
    store: ChunkSink,
    progress: Progress | None = None,
) -> None:
    """Refine a raster, and pass chunks of whole cells to `store`, so that it can score each."""
    mosaic(
        scene, chosen.refiner, Sink(store, chunk_height=CELL, chunk_width=8 * CELL),
        grid=chosen.grid(scene.size, tiling), blend=tiling.blend, batch_size=chosen.batch_size,
        progress=progress,
    )  # fmt: skip


def _width(pairs: Sequence[Pair]) -> float | None:
    """Median width in pixels of the foreground in a sample of a data set's maps."""
    sample = pairs[:: max(1, len(pairs) // _SAMPLED)]
    return median_width(pair.read_map() >= 0.5 for pair in sample)
