"""Labelled maps for `calibrate`: maps in folders or cells of a scene, their places and counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from geothresh.calibration.candidates import STRENGTHS
from geothresh.calibration.choosing import least_places
from geothresh.calibration.counts import CountedMaps, MapCounter, require_few
from geothresh.calibration.options import Calibrating
from geothresh.errors import InputError, UsageError, names, number_of
from geothresh.evaluation.options import Maps
from geothresh.evaluation.samples import CELL, by_source, cells, pair_samples
from geothresh.evaluation.scoring import Sample
from geothresh.options import Progress, Tiling
from geothresh.raster.pairs import Pair, check_pairs
from geothresh.run.maps import MapRefinement, chosen_pairs, pixel_sizes, refine_in_cells
from geothresh.run.models import Choose
from geothresh.run.resolution import chosen_for
from geothresh.splitting import deal_places, places_of
from geothresh.training.options import SceneData
from geothresh.training.scene_data import open_labelled
from geothresh.training.scenes import LabelledScene
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow

Take: TypeAlias = Callable[[Sample], None]
"""Called with each map."""

# A place in a scene is a square of cells: most cells along its side, and least number of places.
_SIDE, _PLACES = 4, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """The place of each map, and the folds to which places are dealt."""

    place_of: Mapping[str, str]
    """The place of each map, by id of the map."""
    folds: Sequence[Sequence[str]]
    """Ids of the maps that each fold holds out."""

    @classmethod
    def of(
        cls,
        places: Sequence[tuple[str, ...]],
        datasets: Mapping[str, str],
        calibrating: Calibrating,
        unit: str,
    ) -> Dealt:
        """Deal places to folds.

        Raises:
            InputError: there is only one place.
        """
        if len(places) < 2:
            raise InputError(
                f"{names(datasets, 2)}: {number_of(len(datasets), unit)} of one place, and what is "
                "learned at one is tried on another; label "
                f"{least_places(calibrating.folds)} places at least, better twenty"
            )
        folds = min(calibrating.folds, len(places))
        return cls(
            place_of={i: place[0] for place in places for i in place},
            folds=deal_places(places, datasets, folds=folds, seed=calibrating.seed),
        )


class LabelledMaps(Protocol):
    """Maps with their ground truth, which can be read several times."""

    unit: str
    """Name of a map in messages: "tile" or "cell"."""
    number: int
    """Number of maps."""

    def as_they_are(self, take: Take) -> None:
        """Pass each map to `take`."""
        ...

    def refined(self, choose: Choose, tiling: Tiling, take: Take) -> None:
        """Refine each map, and pass it to `take`."""
        ...

    def deal(self, calibrating: Calibrating) -> Dealt:
        """Deal the maps that were passed to places and folds; InputError if there is one place."""
        ...


@dataclass(slots=True, kw_only=True)
class FolderMaps:
    """Maps and masks in folders."""

    pairs: Sequence[Pair]
    sizes: Mapping[str, float]
    """Ground sample distance in metres by data set, as far as known."""
    marks: Mapping[str, Sequence[str]]
    """Digests that identify the place, by id."""
    number: int
    unit: str = "tile"

    @classmethod
    def of(cls, folders: Sequence[Path], maps: Maps) -> FolderMaps:
        """Find the maps and read all of them once; raises like `check_pairs`."""
        sizes = pixel_sizes(folders, maps, as_raster=False)
        pairs = chosen_pairs(folders, maps)
        require_few(len(pairs))
        facts = check_pairs(pairs)
        return cls(
            pairs=pairs,
            sizes=sizes,
            marks={i: fact.marks for i, fact in facts.items()},
            number=len(pairs),
        )

    @property
    def named(self) -> dict[str, Pair]:
        """Pairs by the id that the passed map has."""
        return {f"{s}/{pair.id}": pair for s, pairs in by_source(self.pairs) for pair in pairs}

    def as_they_are(self, take: Take) -> None:
        """See `LabelledMaps`."""
        for source, pairs in by_source(self.pairs):
            for sample in pair_samples(pairs):
                take(_named(sample, source))

    def refined(
        self, choose: Choose, tiling: Tiling, take: Take, *, only: Container[str] | None = None
    ) -> None:
        """See `LabelledMaps`; all maps of a data set decide its resolution.

        Args:
            choose, tiling, take: see `LabelledMaps`.
            only: ids of the maps to refine; None = all.
        """
        for source, pairs in by_source(self.pairs):
            dataset = pairs[0].dataset
            of_set = [pair for pair in self.pairs if pair.dataset == dataset]
            refinement = MapRefinement.of(choose, self.sizes.get(dataset), of_set, tiling)
            selected = [p for p in pairs if only is None or f"{source}/{p.id}" in only]
            for sample in refinement.samples(selected):
                take(_named(sample, source))

    def deal(self, calibrating: Calibrating) -> Dealt:
        """See `LabelledMaps`; maps of several base networks with the same id are of one place."""
        # Ids are dealt, as in training, because the pattern matches ids; their maps follow.
        datasets = {pair.id: pair.dataset for pair in self.pairs}
        places = places_of(datasets, self.marks, calibrating.place_pattern)
        by_id = Dealt.of(places, datasets, calibrating, self.unit)
        maps: dict[str, list[str]] = {i: [] for i in datasets}
        for source, pairs in by_source(self.pairs):
            for pair in pairs:
                maps[pair.id].append(f"{source}/{pair.id}")
        return Dealt(
            place_of={name: by_id.place_of[i] for i, names in maps.items() for name in names},
            folds=[[name for i in fold for name in maps[i]] for fold in by_id.folds],
        )


def _named(sample: Sample, source: str) -> Sample:
    return replace(sample, id=f"{source}/{sample.id}")


@dataclass(slots=True, kw_only=True)
class SceneMaps:
    """The cells of a scene, with the labels of its pixels."""

    scene: LabelledScene
    number: int
    unit: str = "cell"
    _seen: dict[str, PixelWindow] = field(default_factory=dict)

    @classmethod
    def of(cls, data: SceneData) -> SceneMaps:
        """Open a scene and its labels.

        Raises:
            UsageError: there is not exactly one scene with one source of labels.
            InputError: scene or labels cannot be used, or they do not overlap.
        """
        scenes, labels = list(data.scenes), list(data.labels)
        if len(scenes) != 1 or len(labels) != 1:
            raise UsageError(
                f"{len(scenes)} scenes and {len(labels)} `labels`: give one scene and its labels"
            )
        scene = open_labelled(Path(scenes[0]), Path(labels[0]), data)
        number = sum(1 for _ in cells(scene.size).windows())
        require_few(number)
        return cls(scene=scene, number=number)

    def as_they_are(self, take: Take) -> None:
        """See `LabelledMaps`; cells without a valid pixel are left out.

        Raises:
            InputError: no labelled pixel with data is foreground.
        """
        foreground = 0
        for cell in cells(self.scene.size).windows():
            sample = self._sample(cell)
            if sample is not None:
                self._seen[sample.id] = cell
                foreground += int(np.count_nonzero(sample.truth & sample.counted))
                take(sample)
        if not foreground:
            raise InputError(
                f"{self.scene.name}: no labelled pixel with data is foreground in {len(self._seen)}"
                " cells; check the labels"
            )

    def refined(self, choose: Choose, tiling: Tiling, take: Take) -> None:
        """See `LabelledMaps`; the scene is refined as a whole."""
        with self.scene.spec.open() as reader:
            chosen = chosen_for(reader, choose)

            def store(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
                grid = cells(self.scene.size)
                for cell in map(grid.window, grid.touching(window)):
                    sample = self._sample(cell)
                    if sample is not None:
                        take(replace(sample, refined=refined[cell.within(window)]))

            refine_in_cells(reader, chosen, tiling, store)

    def deal(self, calibrating: Calibrating) -> Dealt:
        """See `LabelledMaps`; a place is a square of cells, which keeps neighbours together."""
        side = max(1, min(_SIDE, math.isqrt(len(self._seen) // _PLACES)))
        length = side * CELL
        squares: dict[tuple[int, int], list[str]] = {}
        for name, cell in self._seen.items():
            squares.setdefault((cell.row // length, cell.col // length), []).append(name)
        places = [tuple(sorted(ids)) for ids in squares.values()]
        datasets = dict.fromkeys(self._seen, self.scene.name)
        return Dealt.of(sorted(places), datasets, calibrating, self.unit)

    def _sample(self, cell: PixelWindow) -> Sample | None:
        """Read a cell; None if it has no valid pixel."""
        confidence, truth, _, valid = self.scene.read(cell)
        if valid is None or not valid.any():
            return None
        return Sample(
            id=f"row{cell.row}_col{cell.col}",
            confidence=np.where(valid, confidence, np.float32(0)),
            truth=truth,
            valid=valid,
        )


def count_maps(
    maps: LabelledMaps,
    choose: Mapping[str, Choose],
    tiling: Tiling,
    calibrating: Calibrating,
    progress: Progress | None,
) -> tuple[CountedMaps, Dealt]:
    """Count all maps, unrefined and refined by each model.

    Args:
        maps: the labelled maps.
        choose: by model name, a function that chooses the model for ``metres`` and ``width``.
        tiling: how maps are cut into tiles.
        calibrating: folds, places and regions.
        progress: see `calibrate`.

    Returns:
        The counts, and the places and folds of the maps.

    Raises:
        InputError: there is only one place, or a map cannot be read.
    """
    counter = MapCounter(calibrating.patch)
    seconds: dict[str, float] = {}
    done, total = 0, maps.number * (1 + len(choose))

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    def count(sample: Sample) -> None:
        counter.add(sample)
        step()

    started = time.perf_counter()
    maps.as_they_are(count)
    megapixels = counter.pixels / 1e6
    seconds[""] = (time.perf_counter() - started) / megapixels
    # Only now known: cells of a scene without a valid pixel are left out.
    total = done * (1 + len(choose))
    dealt = maps.deal(calibrating)
    for name, model in choose.items():

        def count_refined(sample: Sample, name: str = name) -> None:
            counter.add_refined(sample, name, STRENGTHS)
            step()

        started = time.perf_counter()
        maps.refined(model, tiling, count_refined)
        seconds[name] = (time.perf_counter() - started) / megapixels
    return counter.counted(dealt.place_of, seconds), dealt
