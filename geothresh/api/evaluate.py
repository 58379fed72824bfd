"""What refinement is worth on maps whose truth is known: reads, refines, scores, draws."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from geothresh.api.models import ChosenModel, Model, choose_model
from geothresh.api.resolution import pixel_size, require_pixel_size, warn_of_mismatch
from geothresh.errors import OutputError, UsageError
from geothresh.evaluation.figures import figure
from geothresh.evaluation.report import Report, SourceReport
from geothresh.evaluation.samples import (
    CELL,
    Refine,
    Side,
    by_source,
    cell_samples,
    cells,
    choose,
    pair_samples,
    read_ids,
)
from geothresh.evaluation.scoring import Sample, Tally
from geothresh.files import check_output, write_text
from geothresh.metrics import PAPER_DISTANCE, Metric
from geothresh.mosaic import Refiner, RefinerSource, Sink, load_refiner, mosaic, mosaic_array
from geothresh.options import Backend, BatchSize, Blend, Precision, ScaleOption, Tta
from geothresh.raster.mask import Mask, open_labels
from geothresh.raster.pairs import Pair, by_dataset, find_pairs
from geothresh.raster.pictures import write_png
from geothresh.raster.scene import Scene, open_scene
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize

StrPath = str | os.PathLike[str]
Progress = Callable[[int, int], None]

DEFAULT_PATCH = 64
"""Side of the regions of the bound where no model says otherwise: the paper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is done with every map, the same for folders and for a raster."""

    model: Callable[[float | None], ChosenModel] | None
    """The model for pixels of a size on the ground in metres; None = for pixels as they are."""
    sizes: Mapping[str, float]
    """Of the pixels of each data set, in metres, where they are to be matched."""
    patch: int
    threshold: float
    metric: Metric
    tile_size: int
    overlap: int | None
    blend: Blend
    figures: Path | None
    progress: Progress | None

    def tally(self, distance: int | None = None) -> Tally:
        return Tally(
            patch=self.patch, threshold=self.threshold, distance=distance, metric=self.metric
        )

    def draw(self, sample: Sample, source: str) -> None:
        if self.figures is None:
            return
        folder = self.figures / source.replace("/", "_")
        _make_folder(folder)
        picture = figure(sample, threshold=self.threshold, source=source)
        write_png(folder / f"{sample.id}.png", picture)


def evaluate(
    data: StrPath | Sequence[StrPath],
    *,
    confidence: Sequence[StrPath] = (),
    mask: StrPath | None = None,
    model: Model | None = "roads",
    tta: Tta = "none",
    ids: StrPath | None = None,
    split: Side | None = None,
    skip_unpaired: bool = False,
    ground_sample_distance: Sequence[float] = (),
    match_resolution: bool = False,
    threshold: float = 0.5,
    patch: int | None = None,
    boundary_metric: Metric = "chessboard",
    bidx: int | None = None,
    scale: ScaleOption = "auto",
    nodata: float | None = None,
    tile_size: int = 512,
    overlap: int | None = None,
    blend: Blend = "hann",
    batch_size: BatchSize = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    backend: Backend = "torch",
    figures: StrPath | None = None,
    output: StrPath | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compare confidences cut at 0.5, at the best thresholds, and refined, against the truth.

    Maps are scored one by one. A single raster is read and refined window by window and scored in
    cells of 512 x 512 pixels, each of which counts as a map; Boundary IoU is taken within 15
    pixels there, and the border of a cell counts as contour, as the border of a map does.

    Args:
        data: folders with masks (``<id>_mask.png``, or ``mask/`` and ``confidence/``), or one
            confidence raster.
        confidence: folders of confidence maps, one per base network.
        mask: the truth of the one raster: 1 foreground, 0 background, 255 no data.
        model: a packaged model's name, a model file, a refiner, or None to refine nothing.
        tta: "d4" refines with the mean over the eight symmetries of the square.
        ids: file with the ids to use, one a line, or the split manifest that training writes.
        split: which side of that manifest; "validation" if left out.
        skip_unpaired: leave out maps and masks without a partner.
        ground_sample_distance: size of a pixel on the ground in metres, of all folders or of each;
            a raster tells it by itself.
        match_resolution: refine at the resolution that the model was trained at, as `refine` does.
        threshold: cut of the refined confidence.
        patch: side of the regions of the bound, in pixels; the model's, else 64.
        boundary_metric: how the reach of Boundary IoU is counted.
        bidx: band of the raster, counted from 1.
        scale: what stands for confidence 1 in the raster, "auto" or "logit".
        nodata: value without data in the raster, in place of its own.
        tile_size: side of the square that the network reads.
        overlap: pixels that neighbouring tiles share; by default 128, or the model's patch where
            that is larger.
        blend: how overlapping tiles are joined.
        batch_size: tiles that go through the network at once.
        device: where the network runs.
        precision: number format inside the network.
        backend: the library that runs the network.
        figures: directory for one PNG per map; made if missing.
        output: JSON file for the report.
        overwrite: replace the report, and write figures into a directory that holds files.
        progress: called with what is done and how much there is, in maps, tiles or cells.

    Raises:
        UsageError: options contradict each other.
        InputError: maps or masks are missing, damaged, or do not fit each other.
        OutputError: the report or a figure cannot be written.
        ModelError: the model is missing or damaged.
    """
    started = time.perf_counter()
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"threshold {threshold:g}: give a confidence from 0 to 1")
    folders = [Path(d) for d in ([data] if isinstance(data, str | os.PathLike) else data)]
    as_raster = _is_raster(folders, mask)
    _refuse_idle(
        as_raster,
        raster={
            "--bidx": bidx is not None,
            "--scale": scale != "auto",
            "--nodata": nodata is not None,
        },
        folders={
            "--confidence": bool(confidence),
            "--ids": ids is not None,
            "--split": split is not None,
            "--skip-unpaired": skip_unpaired,
        },
    )
    if split is not None and ids is None:
        raise UsageError(f"--split {split} is a side of a split manifest; name that with --ids")
    if model is None and (tta != "none" or match_resolution):
        what = "--tta" if tta != "none" else "--match-resolution"
        raise UsageError(f"{what} is for refining, and there is no model; leave it out")
    inputs = folders if mask is None or not as_raster else [*folders, Path(mask)]
    target = None if output is None else check_output(output, overwrite=overwrite, inputs=inputs)
    sizes = _sizes(folders, ground_sample_distance, match_resolution, as_raster)
    choose_for = chosen = None
    if model is not None:

        def choose_for(metres: float | None) -> ChosenModel:
            return choose_model(
                model, device=device, precision=precision, batch_size=batch_size, workers=False,
                tta=tta, match=metres, backend=backend,
            )  # fmt: skip

        chosen = choose_for(None)
    plan = _Plan(
        model=choose_for,
        sizes=sizes,
        patch=_patch(patch, chosen),
        threshold=threshold,
        metric=boundary_metric,
        tile_size=tile_size,
        overlap=overlap,
        blend=blend,
        figures=None if figures is None else _figures_folder(Path(figures), overwrite),
        progress=progress,
    )
    if as_raster and mask is not None:
        with (
            open_scene(folders[0], bidx=bidx, scale=scale, nodata=nodata) as scene,
            open_labels(mask) as labels,
        ):
            pixel = pixel_size(scene.grid)
            metres = require_pixel_size(pixel, scene.name).mean if match_resolution else None
            if choose_for is not None:
                warn_of_mismatch(scene.name, pixel, choose_for(metres))
            sources = [_evaluate_raster(scene, labels, plan, metres)]
    else:
        pairs = find_pairs(folders, [Path(c) for c in confidence], skip_unpaired=skip_unpaired)
        if ids is not None:
            pairs = choose(pairs, read_ids(Path(ids), split))
        sources = _evaluate_pairs(by_source(pairs), plan)
    report = Report(
        sources=tuple(sources),
        model=None if chosen is None else chosen.name,
        digest=None if chosen is None else chosen.digest,
        patch=plan.patch,
        threshold=threshold,
        seconds=time.perf_counter() - started,
        tta="none" if chosen is None else tta,
    )
    if target is not None:
        write_text(target, json.dumps(report.as_dict(), indent=1) + "\n")
    return report


def _is_raster(data: Sequence[Path], mask: StrPath | None) -> bool:
    """Whether one raster is meant rather than folders."""
    if not data:
        raise UsageError("no data; name a folder with masks, or a confidence raster with --mask")
    if mask is None:
        if data[0].is_file():
            raise UsageError(f"{data[0]}: is a file; name its truth with --mask")
        return False
    if len(data) > 1 or data[0].is_dir():
        raise UsageError(
            f"--mask is the truth of one raster, and {data[0]} "
            f"{'is a folder' if data[0].is_dir() else 'is not the only one'}; leave it out"
        )
    return True


def _refuse_idle(
    as_raster: bool, *, raster: Mapping[str, bool], folders: Mapping[str, bool]
) -> None:
    """Refuse what was given and would do nothing, for one kind of data or the other."""
    given = [name for name, used in (folders if as_raster else raster).items() if used]
    if given:
        what = "folders of maps" if as_raster else "a raster, with --mask"
        raise UsageError(f"{given[0]} is for {what}; leave it out")


def _patch(patch: int | None, model: ChosenModel | None) -> int:
    if patch is None:
        return DEFAULT_PATCH if model is None else model.patch
    if patch < 1:
        raise UsageError(f"patch {patch}: must be at least 1 pixel")
    return patch


def _figures_folder(folder: Path, overwrite: bool) -> Path:
    _make_folder(folder)
    if not overwrite and any(folder.iterdir()):
        raise OutputError(f"{folder}: holds files already; choose another or add --overwrite")
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: the directory cannot be made ({error.strerror}); choose another"
        ) from error


def _sizes(
    folders: Sequence[Path], given: Sequence[float], match: bool, as_raster: bool
) -> dict[str, float]:
    """The size of the pixels of each folder, where they are to be matched."""
    if as_raster and given:
        raise UsageError("a raster tells the size of its pixels; leave out the distance")
    if not match or as_raster:
        if given:
            raise UsageError("a ground sample distance is for --match-resolution; add it")
        return {}
    if not given:
        raise UsageError(
            "folders do not tell the size of their pixels, to match the resolution; add "
            "--ground-sample-distance, once for all or once for each"
        )
    if len(given) not in (1, len(folders)):
        raise UsageError(
            f"{len(given)} ground sample distances for {len(folders)} folders; give one for all "
            "of them, or one for each in the same order"
        )
    each = list(given) * len(folders) if len(given) == 1 else given
    return by_dataset(folders, each)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refinement:
    """How the maps of a data set are refined."""

    refine: Refine
    refiner: Refiner | RefinerSource
    resampling: float
    """Pixels of the model along one of theirs."""

    @classmethod
    def of(cls, plan: _Plan, dataset: str) -> _Refinement | None:
        """None where there is no model."""
        if plan.model is None:
            return None
        chosen = plan.model(plan.sizes.get(dataset))
        size = RasterSize(height=1, width=1)
        grid = chosen.grid(size, tile=plan.tile_size, overlap=plan.overlap)
        refine = partial(
            mosaic_array,
            refiner=chosen.refiner,
            tile=grid.tile,
            overlap=grid.overlap,
            blend=plan.blend,
            batch_size=chosen.batch_size,
        )
        return cls(refine=refine, refiner=chosen.refiner, resampling=chosen.resampling)

    def samples(self, pairs: Sequence[Pair]) -> Iterator[Sample]:
        """The refined maps and their truth; most are one tile, so that several are made at once."""
        at_once = load_refiner(self.refiner).parallel_calls
        return pair_samples(pairs, self.refine, at_once=at_once)


def _evaluate_pairs(sources: Sequence[tuple[str, list[Pair]]], plan: _Plan) -> list[SourceReport]:
    total = sum(len(pairs) for _, pairs in sources)
    done = 0
    reports = []
    # Of all of them first: a size out of reach is found before the first map is refined.
    refinements = {
        dataset: _Refinement.of(plan, dataset) for dataset in {s[0].dataset for _, s in sources}
    }
    for name, pairs in sources:
        tally = plan.tally()
        refinement = refinements[pairs[0].dataset]
        for sample in refinement.samples(pairs) if refinement else pair_samples(pairs):
            tally.add(sample)
            plan.draw(sample, name)
            done += 1
            if plan.progress is not None:
                plan.progress(done, total)
        resampling = refinement.resampling if refinement else 1.0
        reports.append(replace(tally.report(name), resampling=resampling))
    return reports


def _evaluate_raster(scene: Scene, labels: Mask, plan: _Plan, metres: float | None) -> SourceReport:
    labels.require_grid_of(scene)
    name = Path(scene.name).stem
    tally = plan.tally(PAPER_DISTANCE)

    def score(window: PixelWindow, refined: Float32Array | None = None) -> None:
        for sample in cell_samples(scene, labels, window, refined):
            tally.add(sample)
            plan.draw(sample, name)

    def store(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        score(window, refined)

    resampling = 1.0
    if plan.model is None:
        every = list(cells(scene.size).windows())
        for done, cell in enumerate(every, start=1):
            score(cell)
            if plan.progress is not None:
                plan.progress(done, len(every))
    else:
        chosen = plan.model(metres)
        resampling = chosen.resampling
        grid = chosen.grid(scene.size, tile=plan.tile_size, overlap=plan.overlap)
        # Chunks are made of whole cells, so that they can be scored as they come.
        mosaic(
            scene,
            chosen.refiner,
            Sink(store, chunk_height=CELL, chunk_width=8 * CELL),
            grid=grid,
            blend=plan.blend,
            batch_size=chosen.batch_size,
            progress=plan.progress,
        )
    return replace(tally.report(name, "cell"), resampling=resampling)
