"""Refine and vectorise the scene that ships with the package, and draw what changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from geothresh.api.refine import refine
from geothresh.api.vectorize import vectorize
from geothresh.fields import checked, plain
from geothresh.files import check_output, make_directory, write_bytes
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import Outputs, Progress, Refining, Writing
from geothresh.project import ProjectLayer, write_project
from geothresh.raster.creation import CHANGES, CONFIDENCE, BandFormat, mask_band
from geothresh.raster.pictures import (
    Panel,
    change_picture,
    confidence_picture,
    mask_picture,
    read_gray,
    sheet,
    shrunk,
    write_png,
)
from geothresh.raster.scene import open_scene
from geothresh.raster.styles import raster_style
from geothresh.sidecars import put_style
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.vector.drawing import NODES
from geothresh.vector.layers import Geometry, Layer
from geothresh.vector.options import Centerlines, Foreground, Polygons, VectorWriting
from geothresh.vector.styles import style_of

#: What the demo writes, by the field of `DemoResult` that holds the path.
OUTPUTS = {
    "scene": "scene.tif",
    "mask": "scene_mask.tif",
    "confidence": "scene_refined.tif",
    "changes": "scene_changes.tif",
    "vector": "roads.gpkg",
    "centerlines": "road_lines.gpkg",
    "project": "demo.qgs",
    "picture": "before_after.png",
    "manifest": "scene_mask.manifest.json",
}

_THRESHOLD = 0.5
# Specks and pinholes are smaller than half a road's width squared; gaps are up to a plot wide.
_SIEVE, _AREAS = 40, Polygons(smooth=True)
_LINES = Centerlines(nodes=True, bridge_gaps=30.0, min_length=20.0)
_CROP = 366
_OVERVIEW_FACTOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Paths of the demo's files, and what refinement changed against a cut at 0.5."""

    scene: Path
    """The demo scene: confidence of road, a copy of the one in the package."""
    mask: Path
    """The refined mask: 0 background, 1 road, 255 no data."""
    confidence: Path
    """The refined confidence."""
    changes: Path
    """The raster of changes: 0 unchanged, 1 added, 2 removed, 255 no data."""
    vector: Path
    """The GeoPackage with the road polygons."""
    centerlines: Path
    """The GeoPackage with the road network: centrelines, and the nodes between them."""
    project: Path
    """The QGIS project with all layers, in order."""
    picture: Path
    """The PNG that shows before and after."""
    manifest: Path
    """JSON with the sha256 of mask, refined confidence and changes."""
    model: str
    """Name of the model."""
    valid_pixels: int
    """Pixels with data; each is one square metre."""
    road_before: int
    """Road pixels of the confidence cut at 0.5."""
    road_after: int
    """Road pixels of the refined mask."""
    removed: int
    """Pixels that were road and no longer are."""
    added: int
    """Pixels that are road and were not."""
    pieces_before: int
    """Connected pieces of road in the cut at 0.5; pixels are connected by their sides."""
    pieces_after: int
    """Connected pieces of road in the refined mask."""
    polygons: int
    """Features in the GeoPackage of polygons, without specks."""
    lines: int
    """Number of centrelines."""
    lines_length: float
    """Length of all centrelines in metres."""
    bridges: int
    """Gaps in the mask that centrelines bridge."""
    seconds: float
    """Wall time, from the first check to the last file."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@checked()
def demo(
    output: str | PathLike[str] = "geothresh-demo",
    *,
    model: str | Path = DEFAULT_MODEL,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Refine and vectorise the packaged scene into the directory `output`.

    Args:
        output: directory for the files of `OUTPUTS`; it is made if missing, but not its parent.
        model: a packaged model's name or a model file.
        overwrite: replace files of these names; other files are never touched.
        progress: called with (tiles done, tiles in all) while refining.

    Returns:
        The files that were written, and what refinement changed in the scene.

    Raises:
        OutputError: the directory cannot be made, or holds one of the files.
        ModelError: the model is missing or damaged.

    Example:
        >>> demo("geothresh-demo").picture
        PosixPath('geothresh-demo/before_after.png')
    """
    started = time.perf_counter()
    paths = _output_paths(Path(output), overwrite)
    packaged = files("geothresh").joinpath("data", "demo_scene.tif")
    with as_file(packaged) as source:
        refined = refine(
            source,
            paths["mask"],
            model=model,
            outputs=Outputs(confidence=paths["confidence"], changes=paths["changes"]),
            refining=Refining(threshold=_THRESHOLD),
            writing=Writing(resume=False, overwrite=overwrite),
            progress=progress,
        )
        with open_scene(source) as scene:
            confidence, valid = scene.read(scene.size.window())
            box = scene.box
        write_bytes(paths["scene"], source.read_bytes())
    put_style(paths["scene"], raster_style(CONFIDENCE), "raster")
    vectors, lines = (
        vectorize(
            paths["mask"], paths[name], confidence=paths["confidence"], draw=draw,
            foreground=Foreground(sieve=_SIEVE), writing=VectorWriting(overwrite=overwrite),
        )
        for name, draw in (("vector", _AREAS), ("centerlines", _LINES))
    )  # fmt: skip
    write_project(
        paths["project"], _layers(paths, refined.theme), title="geothresh demo",
        crs=box.crs or "", bounds=box.bounds(),
    )  # fmt: skip

    before = valid & (confidence >= _THRESHOLD)
    after = read_gray(paths["mask"], gaps=True) == 1
    write_png(paths["picture"], _before_after(confidence, before, after, valid))
    return DemoResult(
        **paths,
        model=refined.model,
        valid_pixels=int(valid.sum()),
        road_before=int(before.sum()),
        road_after=int(after.sum()),
        removed=int((before & ~after).sum()),
        added=int((after & ~before).sum()),
        pieces_before=_pieces(before),
        pieces_after=_pieces(after),
        polygons=vectors.features,
        lines=lines.features,
        lines_length=lines.length or 0.0,
        bridges=lines.bridges or 0,
        seconds=time.perf_counter() - started,
    )


def _layers(paths: Mapping[str, Path], theme: str) -> list[ProjectLayer]:
    """The layers of the project, from the top: lines over areas over rasters."""

    def vector(title: str, name: str, kind: Geometry, *, ending: str = "") -> ProjectLayer:
        path = paths[name]
        like = Layer(
            name=path.stem + ending, kind=kind, geometry=np.empty(0, object),
            attributes={"bridged": np.empty(0)} if kind == "LineString" else {},
            metadata={"geothresh_theme": theme},
        )  # fmt: skip
        return ProjectLayer(
            title=title, path=path, kind="vector", style=style_of(like), table=like.name
        )

    def raster(title: str, name: str, band: BandFormat, *, shown: bool = True) -> ProjectLayer:
        return ProjectLayer(
            title=title, path=paths[name], kind="raster", style=raster_style(band), shown=shown
        )

    return [
        vector("junctions and ends", "centerlines", "Point", ending=NODES),
        vector("centrelines", "centerlines", "LineString"),
        raster("changes", "changes", CHANGES),
        vector("road areas", "vector", "Polygon"),
        raster("refined mask", "mask", mask_band(theme), shown=False),
        raster("refined confidence", "confidence", CONFIDENCE, shown=False),
        raster("confidence", "scene", CONFIDENCE),
    ]


def _output_paths(directory: Path, overwrite: bool) -> dict[str, Path]:
    make_directory(directory)
    return {
        field: check_output(directory / name, overwrite=overwrite)
        for field, name in OUTPUTS.items()
    }


def _pieces(road: BoolArray) -> int:
    """Number of 4-connected pieces, which become one polygon each."""
    return int(ndimage.label(road)[1])


def _before_after(
    confidence: Float32Array, before: BoolArray, after: BoolArray, valid: BoolArray
) -> UInt8Array:
    """Draw the changes of the whole scene, and crops where most pixels changed."""
    overview = shrunk(change_picture(before, after, valid), _OVERVIEW_FACTOR)
    height, width = valid.shape
    rows = [[Panel(title=f"the whole scene, {width} x {height} m", image=overview)]]
    for row, col in _busiest(before ^ after, _CROP, count=2):
        cut = np.s_[row : row + _CROP, col : col + _CROP]
        pictures = {
            f"confidence, {_CROP} x {_CROP} m": confidence_picture(confidence[cut], valid[cut]),
            "cut at 0.5": mask_picture(before[cut], valid[cut]),
            "refined": mask_picture(after[cut], valid[cut]),
            "changed": change_picture(before[cut], after[cut], valid[cut]),
        }
        rows.append([Panel(title=title, image=image) for title, image in pictures.items()])
    return sheet("Road mask before and after refinement: red removed, blue added", rows)


def _busiest(changed: BoolArray, side: int, *, count: int) -> list[tuple[int, int]]:
    """Corners (row, col) of `count` squares with the most changed pixels, no two overlapping."""
    sums = np.pad(changed.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    density = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    corners = []
    for _ in range(count):
        row, col = (int(i) for i in np.unravel_index(density.argmax(), density.shape))
        corners.append((row, col))
        density[max(0, row - side) : row + side, max(0, col - side) : col + side] = -1
    return corners
