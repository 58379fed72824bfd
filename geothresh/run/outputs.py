"""Outputs of a run: paths checked before any work, and rasters written strip by strip.

Finished strips survive whatever ends the run.
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
from geothresh.errors import OutputError, UsageError
from geothresh.files import check_output, free_bytes, replacing, require_page
from geothresh.mosaic import Finish, Layers, MosaicStats, Sink
from geothresh.options import Outputs, PathLike
from geothresh.packed import PackedLayer
from geothresh.raster.creation import BandFormat, least_bytes, require_tiff_name
from geothresh.raster.paths import RasterSource, head_digest, local_files
from geothresh.raster.styles import class_description, raster_style
from geothresh.raster.writing import RasterWriter
from geothresh.sidecars import check_sidecars, put_description, put_style
from geothresh.windows import PixelWindow, RasterSize

Facts = Callable[[], Mapping[str, int]]
"""Further counts of the run so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """Paths of the outputs of a run, checked."""

    mask: Path
    """GeoTIFF."""
    confidence: Path | None
    """GeoTIFF, if it was asked for."""
    changes: Path | None
    """GeoTIFF, if it was asked for."""
    thresholds: Path | None
    """GeoTIFF, if it was asked for."""
    vector: Path | None
    """Vectors, if they were asked for."""
    report: Path | None
    """HTML, if it was asked for."""
    manifest: Path | None
    """JSON with the digests of the others, where there are several."""

    def __iter__(self) -> Iterator[Path]:
        """All of them."""
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
) -> OutputFiles:
    """Check every output before any work is done.

    Args:
        source: the scene.
        mask: the mask.
        outputs: the other outputs.
        overwrite: whether they may exist.
        finished: outputs that may exist in any case, as the run that is resumed has made them.
        sent: outputs that go to an object store; what is there of them on this machine may be
            replaced, and there is no manifest, which could not name them.

    Raises:
        UsageError: an output is the scene, two are one file, or a raster has the name of another
            format than GeoTIFF.
        OutputError: one exists and `overwrite` is false, or cannot be written.
    """
    checked: list[Path] = []
    others = {
        name: None if path is None else Path(os.fspath(path))
        for name, path in asdict(outputs).items()
    }
    manifest = mask.with_suffix(".manifest.json") if any(others.values()) and not sent else None
    files = OutputFiles(mask=mask, manifest=manifest, **others)
    if files.report is not None:
        require_page(files.report)
    for path in files:
        ours = path.absolute() in finished or path in sent
        if path in files.rasters:
            target = check_raster(path, [source], overwrite=overwrite, ours=ours)
        else:
            target = check_output(path, overwrite=overwrite or ours, inputs=local_files([source]))
        # By real path: with links or `..` the second file would silently replace the first.
        if any(os.path.realpath(target) == os.path.realpath(other) for other in checked):
            raise UsageError(f"{target}: two outputs have this name; give each its own")
        checked.append(target)
    if files.vector is not None:
        check_vector(files.vector, overwrite or files.vector in sent, finished)
    return files


def check_raster(
    path: PathLike,
    sources: Iterable[RasterSource],
    *,
    overwrite: bool,
    ours: bool = False,
    cleared: bool = False,
) -> Path:
    """Return `path` as a Path if a GeoTIFF may be written there.

    Args:
        path: the file.
        sources: rasters that must not be overwritten.
        overwrite: whether it, or what describes one of that name, may exist.
        ours: whether it may exist in any case, but nothing else's sidecars.
        cleared: as of `geothresh.files.check_output`.

    Raises:
        UsageError: it is one of `sources`, or has the name of another format.
        OutputError: it exists, or no file can be written there.
    """
    target = Path(os.fspath(path))
    require_tiff_name(target)
    target = check_output(
        target, overwrite=overwrite or ours, inputs=local_files(sources), cleared=cleared
    )
    check_sidecars(target, overwrite=overwrite)
    return target


def check_vector(vector: Path, overwrite: bool, finished: Collection[Path]) -> None:
    """Check an output of vectors; arguments and errors as of `check_outputs`."""
    # geopandas is not needed before the mask is there.
    from geothresh.vector.outputs import Existing, check_vector_output

    # The parts of a shapefile are renamed before the .shp.
    stem = vector.absolute().with_suffix("")
    ours = any(path.with_suffix("") == stem for path in finished)
    existing = Existing.REPLACE if overwrite or ours else Existing.REFUSE
    check_vector_output(vector, existing=existing)


class Engine(Protocol):
    """`mosaic` with all arguments but the sink."""

    def __call__(self, *, sink: Sink) -> MosaicStats:
        """Run into a sink."""


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
    """The version of an installed package, cached as looking it up takes milliseconds."""
    return version(package)


def run_fingerprint(source: RasterSource, /, **parameters: object) -> dict[str, str | int | None]:
    """Fingerprint of a run: all that the bytes of its outputs depend on.

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
    """GeoTIFF tags of a run: the version, and all parameters by name."""
    tags = {"version": __version__, **described, **more}
    tags["input"] = tags.pop("source")
    return {f"GEOTHRESH_{name.upper()}": str(value) for name, value in tags.items()}


def require_room(
    outputs: Mapping[Path, BandFormat], size: RasterSize, creation_options: Mapping[str, str]
) -> None:
    """Check the free space against a lower bound of the sizes of the outputs.

    Raises:
        OutputError: a directory has less free space.
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

    Each strip is stored and logged when its last chunk is finished, with `facts`, the sums of the
    counts of `finish`, ``tiles_refined`` and ``tiles_skipped``. Chunks are whole blocks, by default
    of the first writer. The outputs show the `part` of the raster that the engine makes; None = all
    of it.

    Raises:
        GeothreshError: the engine's errors; OutputError where a disk is full or fails.
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
        OutputError: a file does not hold what was written, or cannot be put in place.
    """
    for writer in writers:
        writer.finish()
    journal.record_made({writer.target: writer.finished_file for writer in writers})
    for writer in writers:
        writer.publish()


def describe(outputs: Mapping[Path, BandFormat], *, style: bool) -> None:
    """Write styles and class names beside rasters that are in place.

    After the rasters, so that none ever describes another raster, and again when a run is resumed.

    Args:
        outputs: the band format of each raster.
        style: whether they are written; if not, a style that an earlier run wrote is removed.

    Raises:
        OutputError: one cannot be written.
    """
    for output, band in outputs.items():
        put_style(output, raster_style(band) if style else None, "raster")
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
    text = json.dumps({"geothresh": __version__, "sha256": files}, indent=2) + "\n"
    write_small(manifest, text, journal)


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
