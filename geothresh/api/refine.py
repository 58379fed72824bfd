"""Refine a confidence raster into a mask."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.durability import Journal, finished_outputs
from geothresh.errors import warn
from geothresh.fields import checked, plain
from geothresh.files import files_among
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import (
    Compute,
    Outputs,
    PathLike,
    Progress,
    Reading,
    Refining,
    Tiling,
    Writing,
)
from geothresh.raster.creation import require_creation
from geothresh.raster.paths import find_raster
from geothresh.raster.pixelsize import pixel_size
from geothresh.raster.scene import open_scene
from geothresh.run.changes import ChangeCounts
from geothresh.run.directories import with_directories
from geothresh.run.jobs import Job, Method, RunOptions
from geothresh.run.models import Model
from geothresh.run.outcome import remarks
from geothresh.run.outputs import (
    OutputFiles,
    check_outputs,
    require_place,
    write_manifest,
    write_small,
)
from geothresh.run.resolution import sampled_width
from geothresh.run.staging import Staging
from geothresh.vector.options import VectorWriting


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineResult:
    """Paths of the outputs, and what refinement changed."""

    mask: Path | str
    """The mask: 0 background, 1 foreground, 255 nodata. This and the other rasters are strings if
    they are in an object store."""
    confidence: Path | str | None
    """The refined confidence (0-254 for 0-1, 255 nodata), if it was asked for."""
    changes: Path | str | None
    """The raster of changes: 0 unchanged, 1 became foreground, 2 became background, 255 nodata, if
    it was asked for."""
    thresholds: Path | str | None
    """The region-specific thresholds (5 to 95 for 0.05 to 0.95, 255 nodata), if they were asked
    for."""
    vector: Path | str | None
    """The vector file with the polygons of the foreground, if it was asked for."""
    report: Path | str | None
    """The report page, if it was asked for."""
    manifest: Path | None
    """JSON with the sha256 of each output, written last, where there are several outputs."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""
    scaling: str
    """How stored values became confidences, in words."""
    model: str
    """The model's name."""
    model_sha256: str
    """Digest of the model file, hexadecimal; empty for a refiner that is no file."""
    theme: str
    """Purpose of the model, in words; empty if unknown."""
    threshold: float
    """Least confidence of a foreground pixel."""
    keep_threshold: float | None
    """The threshold for pixels that are foreground in the scene; None = the same threshold."""
    tta: str
    """Test-time augmentation: ``none`` or ``d4``."""
    calibration: str | None
    """The calibration, in words; None = no calibration."""
    parameters: Mapping[str, object]
    """All parameters that the pixels depend on, by name, as in the tags of the outputs."""
    pixel_size: tuple[float, float] | None
    """Size of a pixel in metres on the ground, along x and y; None = unknown."""
    resampling: float
    """Length of a scene pixel in pixels of the model; 1 = not resampled."""
    tiles: int
    """Number of tiles of the grid."""
    tiles_refined: int
    """Number of tiles that went through the model, each once."""
    tiles_skipped: int
    """Number of tiles without a valid pixel, which were skipped."""
    strips_resumed: int
    """Number of strips of the output that an interrupted run had finished."""
    valid_pixels: int
    """Number of pixels with data."""
    foreground_before: int
    """Pixels of the input at the threshold or above it."""
    foreground_after: int
    """Foreground pixels of the mask."""
    changed_pixels: int
    """Pixels that became foreground or background."""
    changed_share: float
    """Changed pixels as a share of the pixels with data; 0 if there are none."""
    features: int | None
    """Polygons in the GeoPackage, if it was asked for."""
    seconds: float
    """Wall time, from the first check to the last file."""

    @property
    def pixels(self) -> int:
        """Number of pixels of the raster."""
        return self.height * self.width

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@checked()
@with_directories
def refine(
    scene: PathLike | Any,
    output: PathLike | None = None,
    *,
    model: Model = DEFAULT_MODEL,
    outputs: Outputs = Outputs(),
    reading: Reading = Reading(),
    refining: Refining = Refining(),
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    writing: Writing = Writing(),
    progress: Progress | None = None,
) -> RefineResult:
    """Refine a confidence raster and write the mask, on the same grid bit for bit.

    Arguments, input and outputs are checked before the first tile. Each output is written
    atomically: a file is complete, or as it was before. The finished work of an interrupted run is
    kept in a work directory beside the mask, ``.NAME.geothresh``: the same call resumes it, and the
    outputs are the same to the last byte.

    Args:
        scene: confidence raster: path, URL or open rasterio dataset.
        output: GeoTIFF for the mask; by default the scene's name with ``_mask.tif``, beside it.
            It and the other rasters may be in an object store (``s3://``, ``gs://``, ``az://``):
            they are made on this machine and sent when all are finished.
        model: a packaged model's name, a model file, a refiner or a refiner source.
        outputs: further outputs: refined confidence, changes, thresholds, polygons, report page.
        reading: band, scale and nodata of the scene, and the part of it that is refined.
        refining: test-time augmentation, resolution and threshold; or a calibration, which decides
            all of them and the model.
        tiling: size, overlap and blending of tiles.
        compute: device, number format, batches and workers. The workers of a cluster need scene and
            model under the same paths, and the same version of geothresh.
        writing: creation options of the GeoTIFF driver, and what happens to files that exist. A run
            of a refiner without a digest is never resumed.
        progress: called with (tiles done, tiles in all).

    Returns:
        The files that were written, and what refinement changed.

    Raises:
        UsageError: arguments contradict each other or the raster, or those of the interrupted run.
        InputError: the scene cannot be read, holds no confidences, or has changed since the
            interrupted run.
        OutputError: an output exists, is being written by another run, or cannot be written.
        ModelError: the model is missing or damaged, or does not fit.
        ClusterError: the Dask cluster cannot be reached, or was lost.

    Example:
        >>> result = refine("scene.tif", outputs=Outputs(confidence="refined.tif"))
        >>> result.mask, result.changed_share
        (PosixPath('scene_mask.tif'), 0.0095)
    """
    started = time.perf_counter()
    require_creation(writing)
    source = find_raster(scene, allow_vrt=reading.allow_vrt)
    named = source.beside("_mask.tif", "mask") if output is None else output
    staging = Staging.of(named, outputs)
    finished = finished_outputs(staging.mask) if writing.resumes else frozenset()
    with ExitStack() as stack:
        ready = staging.ready(source, overwrite=writing.overwrite, finished=finished)
        stack.enter_context(ready)
        files = check_outputs(
            source, staging.mask, staging.outputs, writing.overwrite, finished, staging.addresses,
            files_among(model, refining.calibration, reading.aoi),
        )  # fmt: skip
        opened = stack.enter_context(open_scene(source, reading))
        if files.vector is not None:
            require_place(opened.box, files.vector)
        options = RunOptions(
            model=model, reading=reading, refining=refining, tiling=tiling, compute=compute,
            writing=writing,
        )  # fmt: skip
        method = Method.of(opened, options)
        job = Job(scene=opened, files=files, method=method)
        keep = writing.resume and bool(method.chosen.digest)
        journal = stack.enter_context(
            Journal(files.mask, job.fingerprint(), restart=writing.restart, keep=keep)
        )
        resumed = len(journal.strips)
        job.make(journal, progress)
        _warn_of(job, journal)
        if files.vector is not None and not journal.is_made([files.vector]):
            _draw(files, files.vector, journal, style=writing.style)
        if files.report is not None and not journal.is_made([files.report]):
            write_small(files.report, _page(job, journal), journal)
        if files.manifest is not None:
            write_manifest(files.manifest, journal)
        staging.send(overwrite=writing.overwrite)
        journal.finish()
    seconds = time.perf_counter() - started
    return _result(job, journal, staging, resumed=resumed, seconds=seconds)


def _result(
    job: Job, journal: Journal, staging: Staging, *, resumed: int, seconds: float
) -> RefineResult:
    chosen, pixel = job.method.chosen, pixel_size(job.scene.box)
    counts = ChangeCounts.of(journal.total)
    return RefineResult(
        **staging.named(job.files),
        **counts.as_results(),
        changed_share=counts.changed_share,
        height=job.method.grid.size.height,
        width=job.method.grid.size.width,
        scaling=job.scene.spec.scaling.text,
        model=chosen.name,
        model_sha256=chosen.digest,
        theme=chosen.scope.theme,
        threshold=job.method.refining.threshold,
        keep_threshold=job.method.keep,
        tta=job.method.refining.tta,
        calibration=job.method.calibration.get("calibration"),
        parameters=job.described(),
        pixel_size=None if pixel is None else (pixel.x, pixel.y),
        resampling=chosen.resampling,
        tiles=job.method.grid.n_tiles,
        tiles_refined=journal.total("tiles_refined"),
        tiles_skipped=journal.total("tiles_skipped"),
        strips_resumed=resumed,
        features=journal.noted("features"),
        seconds=round(seconds, 3),
    )


def _warn_of(job: Job, journal: Journal) -> None:
    where = "at all" if job.method.area is None else f"in the area {job.method.area.name}"
    for text in remarks(
        journal.total, job.method.chosen, empty=f"holds no data {where}; neither does the mask",
        width=_width_read(job),
    ):  # fmt: skip
        warn(f"{job.scene.name}: {text}")


def _width_read(job: Job) -> float | None:
    """Width of the foreground in the model's pixels; None where it is not judged."""
    if job.method.chosen.scope.widths is None:
        return None
    width = sampled_width(job.scene)
    return None if width is None else width * job.method.chosen.resampling


def _draw(files: OutputFiles, vector: Path, journal: Journal, *, style: bool) -> None:
    # Imported here: geopandas is not needed before the mask is written.
    from geothresh.api.vectorize import vectorize
    from geothresh.run.vectors import put_vectors

    draw = partial(
        vectorize,
        files.mask,
        confidence=files.confidence,
        writing=VectorWriting(overwrite=True, style=style),
    )
    put_vectors(draw, vector, journal)


def _page(job: Job, journal: Journal) -> str:
    from geothresh.run.page import refine_page

    return refine_page(
        job.scene if job.method.area is None else job.method.area.of(job.scene),
        job.files,
        ChangeCounts.of(journal.total),
        box=job.scene.box if job.scene.box.has_transform else None,
        threshold=job.method.refining.threshold,
        provenance=job.described(),
    )
