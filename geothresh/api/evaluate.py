"""Evaluate a refinement against ground truth: read, refine, score, draw."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from geothresh.errors import OutputError, UsageError
from geothresh.evaluation.figures import figure
from geothresh.evaluation.gallery import Gallery
from geothresh.evaluation.options import Maps, Scoring
from geothresh.evaluation.report import Report, SourceReport
from geothresh.evaluation.samples import by_source, cell_samples, cells, pair_samples
from geothresh.evaluation.scenes import SceneScore
from geothresh.evaluation.scoring import Sample, Tally
from geothresh.fields import checked, require_only
from geothresh.files import (
    check_output,
    files_among,
    is_file,
    make_directory,
    paths_of,
    require_other_files,
    require_page,
    write_text,
)
from geothresh.many.truths import ScenePair, scene_pairs
from geothresh.metrics import PAPER_DISTANCE
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import (
    IN_THIS_PROCESS,
    READ_WHOLE,
    Compute,
    PathLike,
    Progress,
    Reading,
    Refining,
    Tiling,
)
from geothresh.raster.mask import Mask, open_labels
from geothresh.raster.pairs import Pair
from geothresh.raster.pictures import write_png
from geothresh.raster.scene import Scene, open_scene
from geothresh.raster.surface import merged_warnings
from geothresh.run.calibrated import apply_calibration
from geothresh.run.maps import MapRefinement, chosen_pairs, pixel_sizes, refine_in_cells
from geothresh.run.models import Choose, ChosenModel, Model, choose_model
from geothresh.run.resolution import chosen_for
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow

DEFAULT_PATCH = 64
"""Side of the regions of the bound if there is no model: that of the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How maps are refined and scored, the same for folders and for rasters."""

    model: Choose | None
    """Chooses the model for ``metres`` and ``width`` of a raster; None = nothing is refined."""
    keep: float | None
    """Refined confidence from which on foreground of the input stays foreground."""
    sizes: Mapping[str, float]
    """Pixel size of each data set on the ground in metres, as far as known."""
    patch: int
    refining: Refining
    scoring: Scoring
    tiling: Tiling
    figures: Path | None
    galleries: dict[str, Gallery] | None
    """Maps kept for the report page, by the name of their base network; None = no page."""
    progress: Progress | None

    def tally(self, distance: int | None = None) -> Tally:
        return Tally(
            patch=self.patch,
            threshold=self.refining.threshold,
            keep=self.keep,
            distance=distance,
            metric=self.scoring.boundary_metric,
        )

    def show(self, sample: Sample, source: str) -> None:
        """Draw a map, and keep it for the report page."""
        if self.galleries is not None:
            if source not in self.galleries:
                self.galleries[source] = Gallery(threshold=self.refining.threshold, keep=self.keep)
            self.galleries[source].add(sample)
        if self.figures is None:
            return
        target = _figure_path(self.figures, source, sample.id)
        make_directory(target.parent)
        picture = figure(sample, threshold=self.refining.threshold, source=source, keep=self.keep)
        write_png(target, picture)


def _figure_path(folder: Path, source: str, name: str) -> Path:
    return folder / source.replace("/", "_") / f"{name}.png"


@checked()
def evaluate(
    data: PathLike | Sequence[PathLike],
    *,
    mask: PathLike | Sequence[PathLike] | None = None,
    model: Model | None = DEFAULT_MODEL,
    maps: Maps = Maps(),
    refining: Refining = Refining(),
    scoring: Scoring = Scoring(),
    reading: Reading = Reading(),
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> Report:
    """Compare confidences cut at 0.5, at the best thresholds, and refined, against the truth.

    Maps are scored one by one. A raster is read and refined window by window and scored in cells of
    512 x 512 pixels, each of which counts as a map, with Boundary IoU within 15 pixels; the border
    of a cell counts as contour, as that of a map does. Several rasters are refined separately, and
    their cells are scored together.

    Args:
        data: folders with masks (``<id>_mask.png``, or ``mask/`` and ``confidence/``), or one or
            several confidence rasters, or a directory, list or tile index of them.
        mask: the truth of a raster: 1 foreground, 0 background, 255 no data. For several rasters
            one each, in the same order; for a directory one with masks of the same names, which may
            end in _mask or _truth.
        model: a packaged model's name, a model file, a refiner, or None to refine nothing.
        maps: which maps of folders are taken, and the size of their pixels on the ground.
        refining: as for `refine`.
        scoring: regions, distances, and outputs: a report, pictures.
        reading: band, scale and nodata of rasters.
        tiling: as for `refine`.
        compute: as for `refine`, without workers.
        progress: called with (done, total), counted in maps, tiles or cells.

    Returns:
        The scores of each folder of maps, unrefined and refined; `table()` shows them, `as_dict()`
        has all figures.

    Raises:
        UsageError: options contradict each other.
        InputError: maps or masks are missing, damaged, or do not fit each other.
        OutputError: the report or a figure cannot be written.
        ModelError: the model is missing or damaged.

    Example:
        >>> report = evaluate("DATA", maps=Maps(confidence=["DATA/confidence/unet"]))
        >>> print(report.table())
    """
    started = time.perf_counter()
    folders = paths_of(data)
    pairs = _pairs_of(folders, mask, reading)
    _require_use(pairs, model, maps, refining, reading, compute)
    inputs = [*folders, *(path for pair in pairs for path in (pair.scene, pair.mask))]
    inputs += files_among(model, maps.ids, refining.calibration)
    target, shown = _written(scoring, inputs)
    sizes = pixel_sizes(folders, maps, as_raster=bool(pairs))
    applied = None if model is None else apply_calibration(model, refining)
    refining = refining if applied is None else applied.refining
    # Gives name, digest and patch; each data set has a resolution of its own.
    chosen = None if applied is None else choose_model(applied.model, compute)
    groups = [] if pairs else by_source(chosen_pairs(folders, maps))
    written = [path for path in (target, shown) if path is not None]
    plan = _Plan(
        model=None if applied is None else partial(applied.choose, compute),
        keep=None if chosen is None else chosen.keep(refining),
        patch=scoring.patch or (DEFAULT_PATCH if chosen is None else chosen.patch),
        figures=_figures_folder(scoring, groups, written),
        galleries=None if scoring.report is None else {},
        sizes=sizes, refining=refining, scoring=scoring, tiling=tiling, progress=progress,
    )  # fmt: skip
    if pairs:
        sources = [_evaluate_rasters(folders, pairs, reading, plan)]
    else:
        sources = _evaluate_pairs(groups, plan)
    report = Report(
        sources=tuple(sources),
        model=None if chosen is None else chosen.name,
        digest=None if chosen is None else chosen.digest,
        patch=plan.patch,
        threshold=refining.threshold,
        seconds=time.perf_counter() - started,
        tta="none" if chosen is None else refining.tta,
        keep_threshold=plan.keep,
        calibration=None if applied is None else applied.described.get("calibration"),
    )
    if target is not None:
        write_text(target, json.dumps(report.as_dict(), indent=1) + "\n")
    if shown is not None and plan.galleries is not None:
        from geothresh.evaluation.page import evaluate_page

        write_text(shown, evaluate_page(report, plan.galleries))
    return report


def _written(scoring: Scoring, inputs: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """Paths of report and page, None if not written; raises as `evaluate` does."""
    target, shown = (
        None if path is None else check_output(path, overwrite=scoring.overwrite, inputs=inputs)
        for path in (scoring.output, scoring.report)
    )
    if shown is not None:
        require_page(shown)
    if target is not None and shown is not None and target.resolve() == shown.resolve():
        raise UsageError(f"{target}: is `output` and `report` at once; name two files")
    return target, shown


def _require_use(
    pairs: Sequence[ScenePair],
    model: Model | None,
    maps: Maps,
    refining: Refining,
    reading: Reading,
    compute: Compute,
) -> None:
    """Refuse options that would be ignored."""
    require_only(compute, *IN_THIS_PROCESS, why="is for `geothresh refine`")
    require_only(reading, *READ_WHOLE, why="is for `geothresh refine`")
    if not pairs:
        require_only(reading, why="is for a raster, with `mask`")
    else:
        require_only(maps, "ground_sample_distance", why="is for folders of maps")
    maps.require_manifest()
    if model is None:
        require_only(refining, why="is for refining, and there is no model")


def _pairs_of(
    data: Sequence[Path], mask: PathLike | Sequence[PathLike] | None, reading: Reading
) -> list[ScenePair]:
    """Pair the rasters with their masks; empty if `data` are folders of maps."""
    if not data:
        raise UsageError("no data; name a folder with masks, or a confidence raster with `mask`")
    if mask is None:
        if is_file(data[0]):
            raise UsageError(f"{data[0]}: is a file; name its truth with `mask`")
        return []
    return scene_pairs(data, paths_of(mask), allow_vrt=reading.allow_vrt)


def _figures_folder(
    scoring: Scoring, groups: Sequence[tuple[str, list[Pair]]], written: Sequence[Path]
) -> Path | None:
    """The folder of the figures, None without; nothing that is written may be a map or a mask."""
    folder = None if scoring.figures is None else Path(scoring.figures)
    figures = [
        _figure_path(folder, name, pair.id)
        for name, group in groups
        for pair in group
        if folder is not None
    ]
    read = [path for _, group in groups for pair in group for path in (pair.confidence, pair.mask)]
    require_other_files([*written, *figures], read)
    if folder is None:
        return None
    make_directory(folder)
    if not scoring.overwrite and any(folder.iterdir()):
        raise OutputError(f"{folder}: holds files already; choose another or add `overwrite=True`")
    return folder


def _evaluate_pairs(sources: Sequence[tuple[str, list[Pair]]], plan: _Plan) -> list[SourceReport]:
    total = sum(len(pairs) for _, pairs in sources)
    done = 0
    reports = []
    # Made for all folders first, so that a pixel size out of reach is found before any refining.
    by_folder: dict[str, list[Pair]] = defaultdict(list)
    for _, pairs in sources:
        by_folder[pairs[0].dataset] += pairs
    refinements = {
        name: MapRefinement.of(plan.model, plan.sizes.get(name), pairs, plan.tiling)
        for name, pairs in by_folder.items()
        if plan.model is not None
    }
    for name, pairs in sources:
        tally = plan.tally()
        refinement = refinements.get(pairs[0].dataset)
        for sample in refinement.samples(pairs) if refinement else pair_samples(pairs):
            tally.add(sample)
            plan.show(sample, name)
            done += 1
            if plan.progress is not None:
                plan.progress(done, total)
        resampling = refinement.resampling if refinement else 1.0
        reports.append(replace(tally.report(name), resampling=resampling))
    return reports


def _evaluate_rasters(
    named: Sequence[Path], pairs: Sequence[ScenePair], reading: Reading, plan: _Plan
) -> SourceReport:
    if len(named) > 1:
        return _evaluate_several(f"{len(pairs)} scenes", pairs, reading, plan)
    if pairs[0].scene != named[0]:
        return _evaluate_several(named[0].resolve().name, pairs, reading, plan)
    return _evaluate_raster(pairs[0], reading, plan)


def _evaluate_raster(pair: ScenePair, reading: Reading, plan: _Plan) -> SourceReport:
    tally = plan.tally(PAPER_DISTANCE)

    def add(sample: Sample) -> None:
        tally.add(sample)
        plan.show(sample, pair.name)

    resampling = _score_pair(pair, reading, plan, add)
    return replace(tally.report(pair.name, "cell"), resampling=resampling)


def _evaluate_several(
    name: str, pairs: Sequence[ScenePair], reading: Reading, plan: _Plan
) -> SourceReport:
    """Score the cells of several scenes together, with the scene's name in their ids."""
    tally = plan.tally(PAPER_DISTANCE)
    scenes: list[SceneScore] = []
    with merged_warnings([str(pair.scene) for pair in pairs]):
        for pair in pairs:

            def add(sample: Sample, scene: str = pair.name) -> None:
                sample = replace(sample, id=f"{scene}_{sample.id}")
                tally.add(sample)
                plan.show(sample, name)

            first = len(tally.cut)
            resampling = _score_pair(pair, reading, plan, add)
            own = tally.cut[first:], tally.refined[first:]
            scenes.append(SceneScore.of(pair.name, *own, resampling))
    resamplings = {scene.resampling for scene in scenes}
    return replace(
        tally.report(name, "cell"),
        resampling=resamplings.pop() if len(resamplings) == 1 else None,
        scenes=tuple(scenes),
    )


def _score_pair(
    pair: ScenePair, reading: Reading, plan: _Plan, add: Callable[[Sample], None]
) -> float:
    """Refine a scene and pass its cells to `add`; returns model pixels per pixel of the scene."""
    labels_of = partial(open_labels, allow_vrt=reading.allow_vrt)
    with open_scene(pair.scene, reading) as scene, labels_of(pair.mask) as labels:
        chosen = None if plan.model is None else chosen_for(scene, plan.model)
        labels.box.require_same(scene.box)
        _score_raster(scene, labels, plan, chosen, add)
    return 1.0 if chosen is None else chosen.resampling


def _score_raster(
    scene: Scene,
    labels: Mask,
    plan: _Plan,
    chosen: ChosenModel | None,
    add: Callable[[Sample], None],
) -> None:
    def score(window: PixelWindow, refined: Float32Array | None = None) -> None:
        for sample in cell_samples(scene, labels, window, refined):
            add(sample)

    def store(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        score(window, refined)

    if chosen is None:
        every = list(cells(scene.size).windows())
        for done, cell in enumerate(every, start=1):
            score(cell)
            if plan.progress is not None:
                plan.progress(done, len(every))
        return
    refine_in_cells(scene, chosen, plan.tiling, store, plan.progress)
