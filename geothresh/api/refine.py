"""From a confidence raster to a refined mask."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geothresh.api.changes import REGION, MaskLayers, ThresholdedInput
from geothresh.api.durable import (
    make_strips,
    parameter_tags,
    put_in_place,
    require_room,
    run_fingerprint,
    write_manifest,
)
from geothresh.api.models import ChosenModel, Model, choose_model
from geothresh.api.resolution import pixel_size, require_pixel_size, warn_of_mismatch
from geothresh.api.targets import Targets, check_targets, default_mask
from geothresh.durability import Journal, finished_outputs
from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError
from geothresh.files import create_beside, discard, publish
from geothresh.mosaic import (
    MosaicStats,
    Progress,
    mosaic,
    where_asked,
)
from geothresh.options import (
    Backend,
    BatchSize,
    Blend,
    Bounds,
    PathLike,
    Precision,
    ScaleOption,
    Tta,
)
from geothresh.raster.creation import (
    CHANGES,
    CONFIDENCE,
    MASK,
    THRESHOLD,
    BandFormat,
    cog_options,
    gtiff_options,
)
from geothresh.raster.paths import find_raster
from geothresh.raster.scene import INFINITIES, Scene, open_scene
from geothresh.raster.writing import RasterWriter

if TYPE_CHECKING:
    from geothresh.api.area import Area


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineResult:
    """What was written, and what refinement changed."""

    mask: Path
    """The mask: 0 background, 1 foreground, 255 nodata."""
    confidence: Path | None
    """The refined confidence (0-254 for 0-1, 255 nodata), if it was asked for."""
    changes: Path | None
    """What refinement changed: 0 nothing, 1 became foreground, 2 became background, 255 nodata, if
    it was asked for."""
    thresholds: Path | None
    """The region-specific thresholds (5 to 95 for 0.05 to 0.95, 255 nodata), if they were asked
    for."""
    vector: Path | None
    """The foreground's polygons, if they were asked for."""
    manifest: Path | None
    """JSON with the sha256 of each output, where there are several: written last."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    scaling: str
    """How stored values became confidences, in words."""
    model: str
    """The model's name."""
    model_sha256: str
    """Digest of the model file, hexadecimal; empty for a refiner that is no file."""
    threshold: float
    """Confidence from which on a pixel is foreground."""
    tta: str
    """Test-time augmentation: ``none`` or ``d4``."""
    pixel_size: tuple[float, float] | None
    """Metres on the ground along a row and down a column; None where the scene does not say."""
    resampling: float
    """Pixels of the model along one of the scene; 1 = it was read as it is."""
    tiles: int
    """Tiles of the grid."""
    tiles_refined: int
    """Tiles that went through the model, each once."""
    tiles_skipped: int
    """Tiles without a valid pixel, which did not."""
    strips_resumed: int
    """Strips of the output that an interrupted run had finished."""
    valid_pixels: int
    """Pixels with data."""
    foreground_before: int
    """Pixels of the input at the threshold or above it."""
    foreground_after: int
    """Foreground pixels of the mask."""
    changed_pixels: int
    """Pixels that were foreground and are not, or the other way round."""
    changed_share: float
    """Their share of the pixels with data; 0 where there are none."""
    features: int | None
    """Polygons in the GeoPackage, if it was asked for."""
    seconds: float
    """From the first check to the last file."""

    @property
    def pixels(self) -> int:
        """All pixels of the raster."""
        return self.height * self.width

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }


def refine(
    scene: PathLike | Any,
    output: PathLike | None = None,
    *,
    confidence_out: PathLike | None = None,
    diff_out: PathLike | None = None,
    threshold_map_out: PathLike | None = None,
    vector_out: PathLike | None = None,
    bidx: int | None = None,
    scale: ScaleOption = "auto",
    nodata: float | None = None,
    aoi: PathLike | None = None,
    bounds: Bounds | None = None,
    allow_vrt: bool = False,
    model: Model = "roads",
    tta: Tta = "none",
    match_resolution: bool = False,
    threshold: float = 0.5,
    tile_size: int = 512,
    overlap: int | None = None,
    blend: Blend = "hann",
    batch_size: BatchSize = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    backend: Backend = "torch",
    workers: int | None = 0,
    scheduler: str | None = None,
    creation_options: Mapping[str, str] | None = None,
    cog: bool = False,
    resume: bool = True,
    restart: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RefineResult:
    """Refine a confidence raster and write the mask, on the same grid bit for bit.

    All that can be checked is checked before the first tile. Each output appears complete under
    its name, or the name is left as it was. What an interrupted run has finished is kept in a work
    directory beside the mask, ``.NAME.geothresh``: the same call goes on from there, and its
    outputs are the same to the last byte.

    Args:
        scene: confidence raster: path, URL or open rasterio dataset.
        output: GeoTIFF for the mask; by default the scene's name with ``_mask.tif``, beside it.
        confidence_out: GeoTIFF for the refined confidence.
        diff_out: GeoTIFF for what changed: 0 nothing, 1 became foreground, 2 became background.
        threshold_map_out: GeoTIFF for the threshold (5 to 95 for 0.05 to 0.95) of each region of
            64 x 64 pixels at which the scene's own confidences are most like the mask.
        vector_out: GeoPackage, or another format by its ending, for the foreground's polygons.
        bidx: band with the confidence, counted from 1; needed where there are several.
        scale: "auto", the number that stands for confidence 1, or "logit".
        nodata: stored value that marks missing data, in place of the band's own.
        aoi: file of polygons; pixels whose centres lie outside of them become nodata, and tiles
            without any other are not refined.
        bounds: the same for left, bottom, right, top in the scene's CRS.
        allow_vrt: accept a VRT as the scene.
        model: a packaged model's name, a model file, a refiner or a refiner source.
        tta: "d4" for the mean over the eight symmetries of the square, at eight times the cost.
        match_resolution: refine at the resolution that the model was trained at, where the scene's
            is not within its range; what changes is brought back to the scene's pixels.
        threshold: refined confidence from which on a pixel is foreground, in [0, 1].
        tile_size: side of the square that the model reads, in its pixels.
        overlap: pixels that neighbouring tiles share, likewise; by default 128, or the model's
            patch where that is larger.
        blend: how overlapping tiles are weighted: hann, gaussian, linear or crop.
        batch_size: tiles that go through the model at once.
        device: auto, cpu, cuda, cuda:i or mps.
        precision: auto, fp32, bf16 or fp16.
        backend: the library that runs the model: torch, onnxruntime or openvino.
        workers: worker processes; 0 or None for threads of this one.
        scheduler: address of a running Dask cluster, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``,
            whose workers see scene and model under the same paths and have the same geothresh.
        creation_options: of the GeoTIFF driver, for all rasters.
        cog: whether these are Cloud Optimised GeoTIFFs, with overviews.
        resume: keep finished strips on the disk, and go on from those of an interrupted run.
            Always off for a refiner without a digest, which nobody can recognise.
        restart: throw away what an interrupted run left.
        overwrite: replace outputs that exist.
        progress: called with (tiles done, tiles in all).

    Raises:
        UsageError: arguments contradict each other or the raster, or those of the interrupted run.
        InputError: the scene cannot be read, holds no confidences, or has changed since the
            interrupted run.
        OutputError: an output exists, is being written by another run, or cannot be written.
        ModelError: the model is missing or damaged, or does not fit.
        ClusterError: the Dask cluster cannot be reached, or was lost.
    """
    started = time.perf_counter()
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"threshold {threshold:g}: give a confidence from 0 to 1")
    workers = workers or 0
    if workers and scheduler is not None:
        raise UsageError(
            f"{workers} workers and the scheduler {scheduler}: name the one or the other"
        )
    creation_options = creation_options or {}
    granted = gtiff_options(creation_options)
    if cog:
        cog_options(granted)
    source = find_raster(scene, allow_vrt=allow_vrt)
    mask_out = default_mask(source) if output is None else Path(os.fspath(output))
    finished = finished_outputs(mask_out) if resume and not restart else frozenset()
    targets = check_targets(
        source,
        mask_out,
        confidence_out,
        diff_out,
        threshold_map_out,
        vector_out,
        overwrite,
        finished,
    )
    with open_scene(source, bidx=bidx, nodata=nodata, scale=scale, allow_vrt=allow_vrt) as opened:
        if targets.vector is not None and not opened.grid.has_transform:
            raise InputError(
                f"{opened.name}: has no georeference, so that polygons have no place on the map; "
                "leave out the vector output, or georeference the scene"
            )
        pixel = pixel_size(opened.grid)
        match = require_pixel_size(pixel, opened.name).mean if match_resolution else None
        area = None
        if aoi is not None or bounds is not None:
            # With it come shapely and pyogrio, which other runs do without.
            from geothresh.api.area import find_area

            area = find_area(opened, aoi, bounds)
        remote = workers > 0 or scheduler is not None
        # After all that is quick to check: loading a model takes seconds.
        chosen = choose_model(
            model, device=device, precision=precision, batch_size=batch_size, workers=remote,
            cluster=scheduler is not None, tta=tta, match=match, backend=backend,
        )  # fmt: skip
        grid = chosen.grid(opened.size, tile=tile_size, overlap=overlap)
        warn_of_mismatch(opened.name, pixel, chosen)
        described = _described(
            opened, chosen, tta=tta, resampling=f"{chosen.patch}/{chosen.raster_patch}",
            threshold=threshold, tile_size=tile_size, blend=blend,
            overlap=chosen.overlap(overlap, tile=tile_size),
            area="all" if area is None else f"{area.name} {area.digest}",
        )  # fmt: skip
        fingerprint = run_fingerprint(
            opened.spec.source, **described, outputs=[path.name for path in targets],
            creation_options=creation_options, cog=cog,
        )  # fmt: skip
        keep = resume and bool(chosen.digest)
        with Journal(targets.mask, fingerprint, restart=restart, keep=keep) as journal:
            resumed = len(journal.strips)
            if not journal.is_made(targets.rasters):
                spec = opened.spec if area is None else area.spec_of(opened)
                require_room(targets.rasters, opened.size, creation_options)
                engine = partial(
                    mosaic, refiner=chosen.refiner, grid=grid, blend=blend,
                    batch_size=chosen.batch_size, 
                    where=where_asked(workers, scheduler),
                    reader_spec=spec if remote else None, progress=progress,
                )  # fmt: skip
                tags = parameter_tags(described, batch_size=batch_size)
                _write_rasters(
                    opened, area, targets, engine, journal, tags, threshold=threshold,
                    creation_options=creation_options, cog=cog,
                )  # fmt: skip
            _warn_of(opened, area, journal)
            if targets.vector is not None and not journal.is_made([targets.vector]):
                _vectorize(targets, targets.vector, journal)
            if targets.manifest is not None:
                write_manifest(targets.manifest, journal)
            journal.finish()
    valid = journal.total("valid")
    return RefineResult(
        mask=targets.mask,
        confidence=targets.confidence,
        changes=targets.changes,
        thresholds=targets.thresholds,
        vector=targets.vector,
        manifest=targets.manifest,
        height=grid.size.height,
        width=grid.size.width,
        scaling=opened.spec.scaling.text,
        model=chosen.name,
        model_sha256=chosen.digest,
        threshold=threshold,
        tta=tta,
        pixel_size=None if pixel is None else (pixel.x, pixel.y),
        resampling=chosen.resampling,
        tiles=grid.n_tiles,
        tiles_refined=journal.total("tiles_refined"),
        tiles_skipped=journal.total("tiles_skipped"),
        strips_resumed=resumed,
        valid_pixels=valid,
        foreground_before=journal.total("foreground_before"),
        foreground_after=journal.total("foreground_after"),
        changed_pixels=journal.total("changed"),
        changed_share=journal.total("changed") / max(valid, 1),
        features=journal.noted("features"),
        seconds=round(time.perf_counter() - started, 3),
    )


def _described(opened: Scene, chosen: ChosenModel, **parameters: object) -> dict[str, object]:
    """All that the pixels of the outputs depend on, by name."""
    spec = opened.spec
    return {
        "model": chosen.name,
        "model_sha256": chosen.digest,
        "backend": chosen.backend,
        "device": chosen.device,
        "precision": chosen.precision,
        "bidx": spec.bidx,
        "scaling": spec.scaling.text,
        "nodata": "none" if spec.nodata is None else f"{spec.nodata:.17g}",
        "source": Path(spec.source.name).name,
        **parameters,
    }


def _write_rasters(
    opened: Scene,
    area: Area | None,
    targets: Targets,
    engine: Callable[..., MosaicStats],
    journal: Journal,
    tags: Mapping[str, str],
    *,
    threshold: float,
    creation_options: Mapping[str, str],
    cog: bool,
) -> None:
    """Refine the scene into temporary files and put them in place when all are proven."""
    with ExitStack() as stack:

        def writer(target: Path, band: BandFormat) -> RasterWriter:
            return stack.enter_context(
                RasterWriter(
                    target, grid=opened.grid, band=band, tags=tags,
                    creation_options=creation_options, cog=cog,
                )
            )  # fmt: skip

        writers = [writer(targets.mask, MASK)]
        if targets.confidence is not None:
            writers.append(writer(targets.confidence, CONFIDENCE))
        if targets.changes is not None:
            writers.append(writer(targets.changes, CHANGES))
        if targets.thresholds is not None:
            writers.append(writer(targets.thresholds, THRESHOLD))
        finish = MaskLayers(
            threshold=threshold,
            confidence=targets.confidence is not None,
            changes=targets.changes is not None,
            thresholds=targets.thresholds is not None,
        )
        block = writers[0].block_shape
        if finish.thresholds:  # no region in two chunks
            block = math.lcm(block[0], REGION), math.lcm(block[1], REGION)
        reader = opened if area is None else area.of(opened)
        make_strips(
            partial(engine, ThresholdedInput(reader, threshold)),
            journal,
            writers,
            finish=finish,
            block=block,
            facts=lambda: {"infinities": int(opened.infinities_seen)},
        )
        opened.require_unchanged()
        put_in_place(journal, writers)


def _warn_of(opened: Scene, area: Area | None, journal: Journal) -> None:
    """Tell what only the whole scene could show."""
    texts = []
    if journal.total("infinities"):
        texts.append(INFINITIES)
    if journal.total("valid") == 0:
        where = "at all" if area is None else f"in the area {area.name}"
        texts.append(f"holds no data {where}; neither does the mask")
    for text in texts:
        warnings.warn(f"{opened.name}: {text}", GeothreshWarning, stacklevel=3)


def _vectorize(targets: Targets, vector: Path, journal: Journal) -> None:
    from geothresh.api.vectorize import vectorize

    temporary = create_beside(vector)
    try:
        # In the folder of the temporary file, under its own name, which tells the format.
        made = temporary.with_name(vector.name)
        try:
            result = vectorize(targets.mask, made, confidence=targets.confidence, overwrite=True)
        except OutputError as error:
            raise OutputError(str(error).replace(str(made), str(vector))) from error
        temporary.unlink()
        # A shapefile is several files, of which the one that was named comes last.
        files = sorted(made.parent.iterdir(), key=lambda file: file == made)
        journal.record_made(
            {vector.with_name(file.name): file for file in files}, features=result.features
        )
        for file in files:
            publish(file, vector.with_name(file.name))
    finally:
        discard(temporary)
