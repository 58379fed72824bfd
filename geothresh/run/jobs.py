"""Jobs of refining: a scene or part of a surface, how it is refined, and the rasters to write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from geothresh.durability import Journal
from geothresh.fields import decisive
from geothresh.mosaic import MosaicStats, RasterReader, mosaic, where_asked
from geothresh.options import Compute, Progress, Reading, Refining, Tiling, Writing
from geothresh.raster.creation import CHANGES, THRESHOLD, BandFormat, confidence_band, mask_band
from geothresh.raster.scene import Scene
from geothresh.raster.surface import PartReader, SurfacePart
from geothresh.raster.writing import RasterWriter
from geothresh.run.calibrated import apply_calibration
from geothresh.run.changes import REGION, MaskLayers, ThresholdedInput
from geothresh.run.models import ChosenModel, Model
from geothresh.run.outputs import (
    OutputFiles,
    describe,
    make_strips,
    parameter_tags,
    put_in_place,
    require_room,
    run_fingerprint,
)
from geothresh.run.resolution import chosen_for
from geothresh.tiling import TileGrid

if TYPE_CHECKING:
    from geothresh.geobox import GeoBox
    from geothresh.run.area import Area


class Placed(RasterReader, Protocol):
    """A reader of a scene, or of many as one surface, with a georeference."""

    @property
    def name(self) -> str:
        """Name in messages."""

    @property
    def box(self) -> GeoBox:
        """Size, transform and CRS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The model and the options that `refine` and `refine_many` share, as the user gave them."""

    model: Model
    reading: Reading
    refining: Refining
    tiling: Tiling
    compute: Compute
    writing: Writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a scene or surface is refined, with checked options and the chosen model."""

    area: Area | None
    """The area that is refined; None = everything."""
    chosen: ChosenModel
    grid: TileGrid
    refining: Refining
    """Options, with those that a calibration decides."""
    calibration: Mapping[str, str]
    """Entries of the calibration in tags; empty without one."""
    tiling: Tiling
    compute: Compute
    writing: Writing

    @classmethod
    def of(cls, scene: Placed, options: RunOptions) -> Method:
        """Find the area and the model; raises like `refine`."""
        reading, tiling = options.reading, options.tiling
        area = None
        if reading.aoi is not None or reading.bounds is not None:
            # Imported here because it loads shapely and pyogrio, which other runs do not need.
            from geothresh.run.area import find_area

            area = find_area(scene, reading)
        # Loading a model takes seconds, so quick checks come before it.
        applied = apply_calibration(options.model, options.refining)
        chosen = chosen_for(scene, partial(applied.choose, options.compute, tiling=tiling))
        return cls(
            area=area, chosen=chosen, grid=chosen.grid(scene.size, tiling),
            refining=applied.refining, calibration=applied.described, tiling=tiling,
            compute=options.compute, writing=options.writing,
        )  # fmt: skip

    @property
    def keep(self) -> float | None:
        """Threshold for pixels that are foreground in the scene, see `ChosenModel.keep`."""
        return self.chosen.keep(self.refining)

    @property
    def bands(self) -> dict[str, BandFormat]:
        """The band format of each layer."""
        return {
            "mask": mask_band(self.chosen.scope.theme),
            "confidence": confidence_band(self.writing.confidence_dtype),
            "changes": CHANGES,
            "thresholds": THRESHOLD,
        }

    def described(self) -> dict[str, object]:
        """Everything that pixels depend on besides the scene itself, by name."""
        chosen = self.chosen
        return {
            **chosen.described(),
            "area": "all" if self.area is None else f"{self.area.name} {self.area.digest}",
            **decisive(self.refining, self.tiling),
            "keep_threshold": "none" if self.keep is None else f"{self.keep:g}",
            "overlap": chosen.overlap(self.tiling),
            **self.calibration,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A scene, its outputs, and how it is refined."""

    scene: Scene | PartReader
    files: OutputFiles
    method: Method
    part: SurfacePart | None = None
    """The part of a surface that the job refines; None = it refines a whole scene."""
    unit: str | None = None
    """For a part: digest of everything that its outputs depend on."""

    @property
    def bands(self) -> dict[Path, BandFormat]:
        """The band format of each raster, in the order of the layers."""
        bands = self.method.bands
        files = self.files
        every = (
            (files.mask, bands["mask"]),
            (files.confidence, bands["confidence"]),
            (files.changes, bands["changes"]),
            (files.thresholds, bands["thresholds"]),
        )
        return {target: band for target, band in every if target is not None}

    def described(self) -> dict[str, object]:
        """Everything that the pixels of the outputs depend on, by name."""
        spec = self.scene.spec
        return {
            **self.method.described(),
            "bidx": spec.bidx,
            "scaling": spec.scaling.text,
            "nodata": "none" if spec.nodata is None else f"{spec.nodata:.17g}",
            "source": Path(spec.source.name).name,
        }

    def fingerprint(self) -> dict[str, str | int | None]:
        """Everything that the bytes of the outputs depend on, by name."""
        surface = {} if self.unit is None else {"input surface": self.unit}
        return run_fingerprint(
            self.scene.spec.source,
            **surface,
            **self.described(),
            outputs=[path.name for path in self.files],
            **self.method.writing.bytes_depend_on,
        )

    def engine(self, progress: Progress | None) -> Callable[..., MosaicStats]:
        """`mosaic` with all arguments except reader and sink."""
        method = self.method
        compute = method.compute
        spec = None
        if compute.remote and isinstance(self.scene, Scene):
            spec = self.scene.spec if method.area is None else method.area.spec_of(self.scene)
        return partial(
            mosaic, refiner=method.chosen.refiner, grid=method.grid, blend=method.tiling.blend,
            area=None if self.part is None else self.part.window,
            batch_size=method.chosen.batch_size,
            where=where_asked(compute.workers, compute.scheduler),
            reader_spec=spec, progress=progress,
        )  # fmt: skip

    def make(self, journal: Journal, progress: Progress | None) -> None:
        """Write the rasters that do not exist yet, and their style files."""
        writing = self.method.writing
        if not journal.is_made(self.files.rasters):
            require_room(self.bands, self.scene.box.size, writing.creation_options)
            _write_rasters(self, journal, progress)
        describe(self.bands, style=writing.style)


def _write_rasters(job: Job, journal: Journal, progress: Progress | None) -> None:
    """Refine the scene into temporary files, verify them, and rename them into place."""
    scene, files, method = job.scene, job.files, job.method
    threshold, writing = method.refining.threshold, method.writing
    more = {} if job.unit is None else {"unit": job.unit}
    tags = parameter_tags(
        job.described(), batch_size=method.compute.batch_size,
        theme=method.chosen.scope.theme or "none", **more,
    )  # fmt: skip
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                RasterWriter(target, box=scene.box, band=band, tags=tags, writing=writing)
            )
            for target, band in job.bands.items()
        ]
        finish = MaskLayers(
            threshold=threshold,
            keep=method.keep,
            confidence=None if files.confidence is None else writing.confidence_dtype,
            changes=files.changes is not None,
            thresholds=files.thresholds is not None,
        )
        block = writers[0].block_shape
        if finish.thresholds:  # a region must not lie in two chunks
            block = math.lcm(block[0], REGION), math.lcm(block[1], REGION)
        reader = scene if method.area is None else method.area.of(scene)
        make_strips(
            partial(job.engine(progress), ThresholdedInput(reader, threshold)),
            journal,
            writers,
            finish=finish,
            block=block,
            facts=lambda: {"infinities": int(scene.infinities_seen)},
            part=None if job.part is None else job.part.window,
        )
        scene.require_unchanged()
        put_in_place(journal, writers)
