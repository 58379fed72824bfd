"""Refine many confidence rasters as one surface, each with outputs of its own."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.addresses import Address, is_remote
from geothresh.durability import record
from geothresh.errors import OutputError, warn
from geothresh.fields import checked, plain
from geothresh.files import check_output, file_digest, files_among, is_file, make_directory
from geothresh.many.examining import Examination, examine_all, group
from geothresh.many.indexes import Indexes, index_names
from geothresh.many.inputs import BadFile, each_of, find_inputs
from geothresh.many.options import Many
from geothresh.many.places import Destination, destination_of, require_other_objects
from geothresh.many.planning import (
    PlannedSurface,
    PlannedUnit,
    plan_surface,
    plan_units,
    require_apart,
)
from geothresh.many.running import Run
from geothresh.many.units import output_name
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import Compute, PathLike, Progress, Reading, Refining, Tiling, Writing
from geothresh.raster.creation import require_creation
from geothresh.raster.grids import Surface
from geothresh.raster.joined import one_surface
from geothresh.raster.paths import RasterSource
from geothresh.raster.uploading import digest_of
from geothresh.run.changes import ChangeCounts
from geothresh.run.directories import directories_of
from geothresh.run.jobs import RunOptions
from geothresh.run.models import Model, find_source
from geothresh.run.outcome import remarks
from geothresh.run.outputs import check_vector, require_place
from geothresh.run.staging import staged
from geothresh.vector.options import VectorWriting

# The most grids that a message names.
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinedPart:
    """Outputs of one scene, or of a piece of one."""

    name: str
    """Base of the names of its outputs."""
    scene: str
    """The scene, as it was given."""
    outputs: Mapping[str, Path | str]
    """The file of each layer; strings if they are in an object store."""
    kept: bool
    """Whether the outputs are those of an earlier run."""
    valid_pixels: int
    """Number of pixels with data."""
    foreground_before: int
    """Pixels of the input at the threshold or above it."""
    foreground_after: int
    """Foreground pixels of the mask."""
    changed_pixels: int
    """Pixels that became foreground or background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineManyResult:
    """Outputs of many scenes, and what refinement changed in all."""

    output_dir: Path | str
    """Directory of the outputs; a string if it is in an object store."""
    parts: tuple[RefinedPart, ...]
    """The outputs of each scene, or of each piece of a scene."""
    vector: Path | str | None
    """File of the polygons of all masks, if asked for; a string if it is in an object store."""
    features: int | None
    """Number of these polygons."""
    indexes: tuple[Path | str, ...]
    """Index of each layer, which GDAL and QGIS open as one raster; strings in an object store."""
    bad: tuple[BadFile, ...]
    """Scenes that were left out because they cannot be read."""
    set_aside: tuple[str, ...]
    """Names of parts on which every worker died."""
    removed: tuple[str, ...]
    """Names of parts whose scenes are no longer inputs, and whose outputs were removed."""
    scenes: int
    """Number of scenes that were read."""
    surfaces: int
    """Number of pixel grids among them, each refined separately."""
    model: str
    """The model's name."""
    model_sha256: str
    """Digest of the model file, hexadecimal; empty for a refiner that is no file."""
    parameters: dict[str, object]
    """All parameters that the pixels depend on besides the scenes, by name."""
    tiles_refined: int
    """Tiles that went through the model in this run; those at borders count for each part."""
    tiles_skipped: int
    """Number of tiles without a valid pixel, which were skipped."""
    valid_pixels: int
    """Pixels with data, of all parts."""
    foreground_before: int
    """Pixels of the inputs at the threshold or above it."""
    foreground_after: int
    """Foreground pixels of the masks."""
    changed_pixels: int
    """Pixels that became foreground or background."""
    changed_share: float
    """Changed pixels as a share of the pixels with data; 0 if there are none."""
    seconds: float
    """Wall time, from the first check to the last file."""

    @property
    def kept(self) -> int:
        """Number of parts that an earlier run had made."""
        return sum(part.kept for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@checked()
def refine_many(
    scenes: PathLike | Sequence[PathLike | Any] | Any,
    output_dir: PathLike,
    *,
    model: Model = DEFAULT_MODEL,
    many: Many = Many(),
    reading: Reading = Reading(),
    refining: Refining = Refining(),
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    writing: Writing = Writing(),
    progress: Progress | None = None,
) -> RefineManyResult:
    """Refine many confidence rasters as one surface, each into outputs of its own name and grid.

    One tile grid covers the union of all scenes, and tiles at borders see the pixels of neighbours:
    the result is that of `refine` on a mosaic of all. Where scenes overlap, each output has its own
    scene's data. Scenes on different pixel grids are refined as separate surfaces.

    Each output is written atomically. Finished outputs, and finished work on others, are kept when
    a run is interrupted: the same call resumes it.

    Args:
        scenes: one or several of: paths, URLs, open rasterio datasets, directories of GeoTIFFs
            (``s3://BUCKET/NAME/`` in a store), ``@list.txt`` with one name a line, and GDAL tile
            indexes (.gti.gpkg).
        output_dir: directory for outputs, SCENE_mask.tif and so on; made if it is not there. In
            an object store (``s3://BUCKET/NAME``, ``gs://``, ``az://``) each is sent as soon as it
            is finished.
        model: a packaged model's name, a model file, a refiner or a refiner source.
        many: layers, pieces, polygons of all masks together, and how bad and changed scenes are
            treated.
        reading: band, scale and nodata of the scenes, and the part of them that is refined.
        refining: as for `refine`; the resolution is decided once for each surface.
        tiling: size, overlap and blending of tiles.
        compute: device, number format, batches and workers; workers get whole scenes, or pieces,
            and write the outputs themselves.
        writing: creation options of the GeoTIFF driver, and what happens to files that exist.
        progress: called with (tiles done, tiles in all).

    Returns:
        The files that were written, and what refinement changed.

    Raises:
        UsageError: arguments contradict each other, two scenes have one name, the output directory
            is an input, or holds outputs of other scenes or options.
        InputError: a scene cannot be read, holds no confidences, or has no georeference.
        OutputError: an output exists that no such run has made, or cannot be written.
        ModelError: the model is missing or damaged, or does not fit.
        ClusterError: the Dask cluster cannot be reached, or was lost.

    Example:
        >>> result = refine_many(["tiles/"], "out", many=Many(layers="mask,confidence"))
        >>> result.parts[0].outputs["mask"], result.changed_share
        (PosixPath('out/a_mask.tif'), 0.0095)
    """
    started = time.perf_counter()
    require_creation(writing)
    named = each_of(scenes)
    destination = destination_of(output_dir)
    directory = destination.directory
    inputs = find_inputs(
        named, destination.address or directory, allow_vrt=reading.allow_vrt,
        skip_bad=many.skip_bad,
    )  # fmt: skip
    files = examine_all(inputs.sources, reading, many)
    grids = group(files, separately=many.separately)
    _tell_grids(grids, files, many)
    if many.vector is not None:
        require_place(one_surface(files.boxes).box, Path(os.fspath(many.vector)))
    options = RunOptions(
        model=model if refining.calibration is not None else find_source(model, compute),
        reading=reading, refining=refining, tiling=tiling, compute=compute, writing=writing,
    )  # fmt: skip
    surfaces = [plan_surface(grid, files, many, options) for grid in grids]
    units = plan_units(surfaces, many)
    names = [output_name(unit.name, layer) for unit in units for layer in many.written]
    names += index_names(len(surfaces), many)
    lists = _lists(named)
    read = files_among(model, refining.calibration, reading.aoi, *lists)
    _require_others(destination, names, [*lists, *map(str, read)], inputs.sources)
    with ExitStack() as stack:
        _make_directories(many.vector, destination, writing, stack)
        destination.fetch_record()
        kept = stack.enter_context(record.opened(directory))
        polygons = _Polygons.of(many.vector, kept, writing, inputs.sources, stack, read)
        run = Run(
            destination=destination, units=units, many=many, compute=compute, writing=writing,
            record=kept, progress=progress,
            indexes=Indexes(destination, kept, surfaces, many, units),
        )  # fmt: skip
        run.do()
        done = run.done.values()
        indexes = run.indexes.write(done)
        if polygons is not None and done:
            polygons.draw(run)
        kept.end()
        destination.keep_record(now=True)
    totals = _totals(run)
    _warn(surfaces, totals)
    bad = (*inputs.bad, *files.bad, *run.bad)
    drawn = polygons.name if polygons is not None and done else None
    return _result(run, surfaces, totals, bad, drawn, indexes, started)


def _require_others(
    destination: Destination,
    names: Sequence[str],
    files: Sequence[str],
    sources: Sequence[RasterSource],
) -> None:
    """Refuse outputs that are inputs: rasters, or lists, indexes, areas and other files.

    Raises:
        UsageError: an output is an input.
    """
    read = [*files, *(source.location for source in sources)]
    require_apart(destination.directory, names, (name for name in read if not is_remote(name)))
    require_other_objects(destination, names, read)


def _make_directories(
    vector: PathLike | None, destination: Destination, writing: Writing, stack: ExitStack
) -> None:
    """Make the directory of the outputs, after that of the vector file is checked.

    If `parents` is given, the latter is created, and removed again if the run fails before the
    stack is closed.

    Raises:
        OutputError: the vector file's does not exist, or one cannot be created.
    """
    directory = destination.directory
    if is_file(directory):
        raise OutputError(f"{directory}: is a file; name a directory with `output_dir`")
    if vector is not None and Address.of(vector) is None:
        file = Path(os.fspath(vector))
        if writing.parents:
            stack.enter_context(directories_of([file]))
        elif os.path.realpath(file.parent) != os.path.realpath(directory):
            check_output(file, overwrite=True)
    make_directory(directory, parents=writing.parents or destination.address is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Polygons:
    """The vector file of all masks, which is checked before any work."""

    name: Path | str
    """The name that the user gave."""
    key: str
    """Key of the file in the record."""
    file: Path
    """Path at which the file is made on this machine."""
    sent: bool
    """Whether the file is sent to an object store."""
    drawn: bool
    """Whether the object exists with the polygons of all outputs that were finished before."""

    @classmethod
    def of(
        cls,
        vector: PathLike | None,
        kept: record.Record,
        writing: Writing,
        inputs: Sequence[RasterSource],
        stack: ExitStack,
        read: Sequence[Path],
    ) -> _Polygons | None:
        """Check the vector file that is asked for; it is sent when the stack is closed.

        Raises:
            UsageError, OutputError: as for the vector file of `refine`.
        """
        if vector is None:
            return None
        address = Address.of(vector)
        if address is None:
            path = Path(os.fspath(vector))
            check_vector(path, writing.overwrite, kept.vector_files(), read)
            return cls(name=path, key=str(path.absolute()), file=path, sent=False, drawn=False)
        existing = digest_of(address)
        ours = kept.has_drawn(address.location, existing)
        file = stack.enter_context(
            staged(vector, overwrite=writing.overwrite or ours, inputs=[i.location for i in inputs])
        )
        check_vector(file, True, ())
        return cls(
            name=address.name, key=address.location, file=file, sent=True,
            drawn=kept.is_drawn(address.location, existing),
        )  # fmt: skip

    def draw(self, run: Run) -> None:
        """Write the polygons of all masks, unless an earlier run has done so."""
        from geothresh.api.vectorize import vectorize
        from geothresh.run.vectors import put_vectors

        if self._is_drawn(run.record):
            return

        def files(layer: str) -> list[PathLike]:
            return [run.destination.output(name, layer) for name in run.done]

        draw = partial(
            vectorize,
            files("mask"),
            confidence=files("confidence") if "confidence" in run.many.written else None,
            writing=VectorWriting(overwrite=True, style=run.writing.style),
        )
        put_vectors(draw, self.file, _Renamed(run.record, self.key) if self.sent else run.record)

    def _is_drawn(self, kept: record.Record) -> bool:
        if self.sent:
            return self.drawn and kept.vectors is not None
        return kept.vectors is not None and self.file.absolute() in kept.vector_files()


@dataclass(frozen=True, slots=True)
class _Renamed:
    """The record of a vector file that is made under another name than its final one."""

    record: record.Record
    key: str

    def record_made(self, made: Mapping[Path, Path], **facts: int) -> None:
        """Log the file before it is sent; a style beside it stays on this machine."""
        leaf = self.key.rpartition("/")[2]
        file = next(made[path] for path in made if path.name == leaf)
        self.record.record_vectors({self.key: file_digest(file)}, **facts)


def _lists(named: Iterable[object]) -> list[str]:
    """The paths among what is named, those of lists without their @."""
    return [
        os.fspath(name).removeprefix("@") for name in named if isinstance(name, str | os.PathLike)
    ]


def _totals(run: Run) -> Counter[str]:
    """Sum the counts of all finished units."""
    totals = Counter[str]()
    for name in run.done:
        totals.update(run.record.finished[name].facts)
    return totals


def _result(
    run: Run,
    surfaces: Sequence[PlannedSurface],
    totals: Counter[str],
    bad: Sequence[BadFile],
    vector: Path | str | None,
    indexes: tuple[Path | str, ...],
    started: float,
) -> RefineManyResult:
    chosen = surfaces[0].method.chosen
    made = [run.record.finished[name].facts for name in run.done if name not in run.kept]
    counts = ChangeCounts.of(totals.__getitem__)
    address = run.destination.address
    return RefineManyResult(
        **counts.as_results(),
        changed_share=counts.changed_share,
        output_dir=run.directory if address is None else address.name,
        parts=tuple(_part(run, unit) for unit in run.done.values()),
        vector=vector,
        features=None if vector is None else (run.record.vectors or {}).get("features"),
        indexes=indexes,
        bad=tuple(bad),
        set_aside=tuple(run.set_aside),
        removed=tuple(run.removed),
        scenes=sum(len(home.specs) for home in surfaces),
        surfaces=len(surfaces),
        model=chosen.name,
        model_sha256=chosen.digest,
        parameters=surfaces[0].method.described(),
        tiles_refined=sum(facts["tiles_refined"] for facts in made),
        tiles_skipped=sum(facts["tiles_skipped"] for facts in made),
        seconds=round(time.perf_counter() - started, 3),
    )


def _part(run: Run, unit: PlannedUnit) -> RefinedPart:
    facts = run.record.finished[unit.name].facts
    layers = {layer: run.destination.output(unit.name, layer) for layer in run.many.written}
    return RefinedPart(
        name=unit.name, scene=unit.source, outputs=layers, kept=unit.name in run.kept,
        **ChangeCounts.of(facts.__getitem__).as_results(),
    )  # fmt: skip


def _tell_grids(grids: Sequence[Surface], files: Examination, many: Many) -> None:
    """Warn of scenes on several grids, which may be a mistake."""
    if len(grids) == 1 or many.separately:
        return
    shown = "; ".join(
        f"{len(grid.members)} as {files.boxes[grid.members[0]].name}" for grid in grids[:_SHOWN]
    )
    more = f" and {len(grids) - _SHOWN} more" if len(grids) > _SHOWN else ""
    warn(
        f"the {len(files.boxes)} scenes lie on {len(grids)} pixel grids ({shown}{more}): each is "
        "refined for itself, and tiles do not see beyond it; warp them to one grid to join them"
    )


def _warn(surfaces: Sequence[PlannedSurface], totals: Counter[str]) -> None:
    count = sum(len(home.specs) for home in surfaces)
    empty = "hold no data at all; neither do the masks"
    for text in remarks(totals.__getitem__, surfaces[0].method.chosen, empty=empty):
        warn(f"{count} scenes: {text}")
