"""Where the outputs of a run go: names, and checks before any work."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from geothresh.errors import UsageError
from geothresh.files import check_output
from geothresh.options import Outputs
from geothresh.raster.paths import RasterSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The outputs of one run, checked."""

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
    manifest: Path | None
    """JSON with the digests of the others, where there are several."""

    def __iter__(self) -> Iterator[Path]:
        """All of them."""
        every = (*self.rasters, self.vector, self.manifest)
        return (path for path in every if path is not None)

    @property
    def rasters(self) -> tuple[Path, ...]:
        """Those that are made chunk by chunk."""
        four = (self.mask, self.confidence, self.changes, self.thresholds)
        return tuple(path for path in four if path is not None)


def default_mask(source: RasterSource) -> Path:
    """NAME_mask.tif beside the scene.

    Raises:
        UsageError: the scene is remote.
    """
    if source.remote:
        raise UsageError(f"{source.name}: is not a local file; name the mask with `output`")
    scene = Path(source.location if "://" in source.name else source.name)
    return scene.with_name(f"{scene.stem}_mask.tif")


def check_targets(
    source: RasterSource,
    mask: Path,
    outputs: Outputs,
    overwrite: bool,
    finished: Collection[Path] = (),
) -> Targets:
    """Check every output before any work is done.

    Args:
        source: the scene.
        mask: the output that is always made.
        outputs: the others.
        overwrite: whether they may exist.
        finished: those that may in any case: an interrupted run that goes on has made them.

    Raises:
        UsageError: an output is the scene, or two are one file.
        OutputError: one exists and `overwrite` is false, or cannot be written.
    """
    inputs = [] if source.remote else [source.location]
    checked: list[Path] = []
    # In the order of their fields.
    confidence, changes, thresholds, vector = (
        None if path is None else Path(os.fspath(path)) for path in asdict(outputs).values()
    )
    others = (confidence, changes, thresholds, vector)
    manifest = mask.with_suffix(".manifest.json") if any(others) else None
    for path in (mask, *others, manifest):
        if path is None:
            continue
        ours = path.absolute() in finished
        target = check_output(path, overwrite=overwrite or ours, inputs=inputs)
        # Links and `..` in mind: the second file would replace the first without a word.
        if any(os.path.realpath(target) == os.path.realpath(other) for other in checked):
            raise UsageError(f"{target}: two outputs have this name; give each its own")
        checked.append(target)
    if vector is not None:
        # geopandas is not needed before the mask is there.
        from geothresh.vector.outputs import Existing, check_vector_output

        # Of a shapefile, the other files come before the one that is named.
        stem = vector.absolute().with_suffix("")
        ours = any(path.with_suffix("") == stem for path in finished)
        existing = Existing.REPLACE if overwrite or ours else Existing.REFUSE
        check_vector_output(vector, existing=existing)
    return Targets(
        mask=mask,
        confidence=confidence,
        changes=changes,
        thresholds=thresholds,
        vector=vector,
        manifest=manifest,
    )
