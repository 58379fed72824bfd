"""Outputs of a run: check their paths before any work, and write rasters strip by strip.

Finished strips are kept whatever ends the run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from geothresh._version import __version__
from geothresh.addresses import identity
from geothresh.durability import Journal
from geothresh.errors import InputError, OutputError, UsageError, warn
from geothresh.files import check_output, free_bytes, replacing, require_page
from geothresh.geobox import GeoBox
from geothresh.mosaic import Finish, Layers, MosaicStats, Sink
from geothresh.options import Outputs, PathLike
from geothresh.packed import PackedLayer
from geothresh.raster.creation import BandFormat, least_bytes, require_tiff_name
from geothresh.raster.paths import RasterSource, head_digest, local_files
from geothresh.raster.styles import class_description, raster_style
from geothresh.raster.writing import RasterWriter
from geothresh.sidecars import (
    check_sidecars,
    files_of_manifest,
    manifest_path,
    manifest_text,
    put_description,
    put_style,
    style_path,
)
from geothresh.vector.formats import format_of
from geothresh.windows import PixelWindow, RasterSize

Facts = Callable[[], Mapping[str, int]]
"""A function that gives further counts of the run so far, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """Checked paths of the outputs of a run; None for outputs that are not written."""

    mask: Path
    """GeoTIFF of the mask."""
    confidence: Path | None
    """GeoTIFF of refined confidences."""
    changes: Path | None
    """GeoTIFF of changes."""
    thresholds: Path | None
    """GeoTIFF of region-specific thresholds."""
    vector: Path | None
    """Vector file."""
    report: Path | None
    """HTML report."""
    manifest: Path | None
    """JSON file with the digests of the other outputs, if there are several."""

    def __iter__(self) -> Iterator[Path]:
        """All outputs."""
        every = (*self.rasters, self.vector, self.report, self.manifest)
        return (path for path in every if path is not None)

    @property
    def rasters(self) -> tuple[Path, ...]:
        """The rasters, which are written chunk by chunk."""
        four = (self.mask, self.confidence, self.changes, self.thresholds)
        return tuple(path for path in four if path is not None)


def check_outputs(
    source: RasterSource,
    mask: Path,
    outputs: Outputs,
    overwrite: bool,
    finished: Collection[Path] = (),
    sent: Collection[Path] = (),
    read: Collection[Path] = (),
) -> OutputFiles:
    """Check every output before any work is done.

    Args:
        source: the scene.
        mask: the mask.
        outputs: the other outputs.
        overwrite: whether they may exist.
        finished: outputs that may exist in any case, because the resumed run has made them.
        sent: local files of outputs that go to an object store. They may be replaced, and there is
            no manifest, because it could not name the objects.
        read: other files that the run reads: model, calibration, area.

    Raises:
        UsageError: an output is the scene or another file that is read, two outputs are the same
            file, or a raster has the extension of another format than GeoTIFF.
        OutputError: an output exists and `overwrite` is False, or it cannot be written.
    """
    checked: list[Path] = []
    others = {
        name: None if path is None else Path(os.fspath(path))
        for name, path in asdict(outputs).items()
    }
    manifest = manifest_path(mask) if any(others.values()) and not sent else None
    files = OutputFiles(mask=mask, manifest=manifest, **others)
    if files.report is not None:
        require_page(files.report)
    for path in files:
        ours = path.absolute() in finished or path in sent
        # A manifest of files that are all gone is in nobody's way.
        left = files_of_manifest(path) if path == manifest else None
        ours = ours or (left is not None and not any(map(os.path.lexists, left)))
        if path in files.rasters:
            target = check_raster(path, [source], overwrite=overwrite, ours=ours, read=read)
        else:
            inputs: list[PathLike] = [*local_files([source]), *read]
            target = check_output(path, overwrite=overwrite or ours, inputs=inputs)
        # Compared by real path: with links or `..`, the second would silently replace the first.
        if any(os.path.realpath(target) == os.path.realpath(other) for other in checked):
            raise UsageError(f"{target}: two outputs have this name; give each its own")
        checked.append(target)
    if files.vector is not None:
        check_vector(files.vector, overwrite or files.vector in sent, finished, read)
    return files


def check_raster(
    path: PathLike,
    sources: Iterable[RasterSource],
    *,
    overwrite: bool,
    ours: bool = False,
    cleared: bool = False,
    read: Collection[Path] = (),
) -> Path:
    """Return `path` as a Path if a GeoTIFF may be written there.

    Args:
        path: the file.
        sources: rasters that must not be overwritten.
        overwrite: whether the file and its sidecar files may exist.
        ours: whether the file may exist in any case, but not sidecar files of another program.
        cleared: see `geothresh.files.check_output`.
        read: other files that must not be overwritten.

    Raises:
        UsageError: the path is one of `sources` or `read`, has the extension of another format, or
            is not UTF-8.
        OutputError: the file exists, or no file can be written there.
    """
    target = Path(os.fspath(path))
    require_tiff_name(target)
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{ascii(str(target))}: is a path that is not UTF-8, which GDAL cannot write to; name "
            "another"
        ) from error
    target = check_output(
        target, overwrite=overwrite or ours, inputs=[*local_files(sources), *read],
        cleared=cleared,
    )  # fmt: skip
    check_sidecars(target, overwrite=overwrite)
    return target


def require_place(box: GeoBox, vector: Path) -> None:
    """Refuse polygons of a scene without a place, or without one in their format.

    Raises:
        InputError: the scene has no transform, or no CRS, which the format needs.
    """
    if not box.has_transform:
        raise InputError(
            f"{box.name}: has no georeference, so that polygons have no place on the map; leave "
            "out the vector output, or georeference the scene"
        )
    format_of(vector).require_crs(box.name, box.crs)


def check_vector(
    vector: Path, overwrite: bool, finished: Collection[Path], read: Collection[Path] = ()
) -> None:
    """Check a vector output; arguments and errors are those of `check_outputs`."""
    # Imported here so that geopandas is loaded only if it is needed.
    from geothresh.vector.outputs import Existing, check_vector_output

    # The parts of a shapefile are renamed before the .shp.
    stem = vector.absolute().with_suffix("")
    ours = any(path.with_suffix("") == stem for path in finished)
    existing = Existing.REPLACE if overwrite or ours else Existing.REFUSE
    check_vector_output(vector, existing=existing, inputs=list(read))


class Engine(Protocol):
    """`mosaic` with all arguments except the sink."""

    def __call__(self, *, sink: Sink) -> MosaicStats:
        """Run, and pass chunks to the sink."""


def input_fingerprint(source: RasterSource) -> dict[str, str | int | None]:
    """Fingerprint of an input file: name, size, time of change, and digest of its ends.

    Raises:
        InputError: it cannot be read.
    """
    return {
        "input": identity(source.location) if source.remote else Path(source.location).name,
        "input size": source.file_size,
        "input time (ns)": source.modified_ns,
        "input head (sha256)": head_digest(source),
    }


@cache
def installed(package: str) -> str:
    """The version of an installed package; cached because finding it takes milliseconds."""
    return version(package)


def run_fingerprint(source: RasterSource, /, **parameters: object) -> dict[str, str | int | None]:
    """Fingerprint of a run: everything that the bytes of its outputs depend on.

    Raises:
        InputError: the input cannot be read.
    """
    described = {name: value if isinstance(value, str) else json.dumps(value, default=str)
                 for name, value in parameters.items()}  # fmt: skip
    return {
        "geothresh": __version__,
        "torch": installed("torch"),
        **input_fingerprint(source),
        **described,
    }


def parameter_tags(described: Mapping[str, object], **more: object) -> dict[str, str]:
    """GeoTIFF tags of a run: the version and all parameters, by name."""
    tags = {"version": __version__, **described, **more}
    tags["input"] = tags.pop("source")
    return {f"GEOTHRESH_{name.upper()}": str(value) for name, value in tags.items()}


def require_room(
    outputs: Mapping[Path, BandFormat], size: RasterSize, creation_options: Mapping[str, str]
) -> None:
    """Check the free space against a lower bound of the sizes of the outputs.

    Raises:
        OutputError: a file system has less free space.
    """
    for output, band in outputs.items():
        least = least_bytes(size, creation_options, band.dtype)
        free = free_bytes(output)
        if free < least:
            raise OutputError(
                f"{output}: takes {least / 2**20:,.0f} MiB at the very least, but "
                f"{free / 2**20:,.0f} MiB are free in {output.parent}; make room"
            )


def make_strips(
    engine: Engine,
    journal: Journal,
    writers: Sequence[RasterWriter],
    *,
    finish: Finish,
    block: tuple[int, int] | None = None,
    facts: Facts = dict,
    part: PixelWindow | None = None,
) -> None:
    """Write the strips that an interrupted run has stored, then run the engine for the others.

    When the last chunk of a strip is finished, the strip is stored and logged with its counts:
    `facts`, the sums of the counts of `finish`, ``tiles_refined`` and ``tiles_skipped``.

    Args:
        engine: refines the raster.
        journal: stores the strips.
        writers: the outputs, in the order of the layers.
        finish: makes the layers of a chunk.
        block: chunks are multiples of it; None = the block of the first writer.
        facts: gives further counts.
        part: the window of the raster that the outputs show; None = all of it.

    Raises:
        GeothreshError: errors of the engine, and OutputError if a disk is full or fails.
    """
    for chunk in journal.stored():
        for writer, values in zip(writers, chunk.layers, strict=True):
            writer.write(chunk.window, values)
    counts: Counter[str] = Counter()

    def store(window: PixelWindow, layers: Layers, packed: Sequence[PackedLayer]) -> None:
        if part is not None:
            window = window.seen_from(part)
        for writer, values in zip(writers, layers.values, strict=True):
            writer.write(window, values)
        journal.add(window, packed)
        counts.update(layers.counts)

    def commit(tiles_refined: int, tiles_skipped: int) -> None:
        tiles = {"tiles_refined": tiles_refined, "tiles_skipped": tiles_skipped}
        journal.commit({**counts, **facts(), **tiles})
        counts.clear()

    sink = Sink(
        store,
        block=block or writers[0].block_shape,
        finish=finish,
        pack=journal.keeps_strips,
        start_strip=len(journal.strips),
        on_strip=commit,
    )
    engine(sink=sink)


def put_in_place(journal: Journal, writers: Sequence[RasterWriter]) -> None:
    """Verify the written files, log their digests, and rename them into place.

    Raises:
        OutputError: a file does not hold what was written, or cannot be renamed.
    """
    for writer in writers:
        writer.finish()
    journal.record_made({writer.target: writer.finished_file for writer in writers})
    for writer in writers:
        writer.publish()


def describe(outputs: Mapping[Path, BandFormat], *, style: bool) -> None:
    """Write styles and class names beside finished rasters.

    They are written after the rasters, so that they never describe another raster, and again when a
    run is resumed.

    Args:
        outputs: the band format of each raster.
        style: whether to write them; if not, a style of an earlier run is removed.

    Raises:
        OutputError: a file cannot be written.
    """
    styled: dict[Path, Path] = {}
    for output, band in outputs.items():
        first = styled.setdefault(style_path(output), output)
        if first == output:
            put_style(output, raster_style(band) if style else None, "raster")
        elif style:
            warn(
                f"{output.name}: has no style, as {style_path(output).name} is that of "
                f"{first.name}; name them differently to have both"
            )
        description = class_description(band)
        if style and description is not None:
            put_description(output, description)


def write_manifest(manifest: Path, journal: Journal) -> None:
    """Write the sha256 of all outputs of the run to a JSON file.

    Raises:
        OutputError: it cannot be written.
    """
    digests = {Path(name): digest for name, digest in journal.digests.items()}
    files = {
        path.name if path.parent == manifest.absolute().parent else str(path): digest
        for path, digest in digests.items()
        if path != manifest.absolute()
    }
    write_small(manifest, manifest_text(files, __version__), journal)


def write_small(target: Path, text: str, journal: Journal) -> None:
    """Write a text file atomically, and log it in the journal.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(target) as temporary:
        try:
            temporary.write_text(text, encoding="utf-8")
            journal.record_made({target: temporary})
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
