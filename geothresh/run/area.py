"""The part of a scene that is refined: an area of interest, or a rectangle of the map."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.mosaic import RasterReader
from geothresh.options import Bounds, Reading
from geothresh.raster.features import burn
from geothresh.raster.scene import Scene, SceneSpec
from geothresh.types import BoolArray, Float32Array
from geothresh.vector.placing import PlacedShapes, place, rectangle
from geothresh.vector.reading import find_layer
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    from geothresh.run.jobs import Placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Polygons over a scene: a pixel is refined if its centre lies in one."""

    name: str
    """Name of the file, or the bounds; for tags."""
    pieces: tuple[bytes, ...]
    """The polygons in pixel coordinates, as WKB."""

    @property
    def digest(self) -> str:
        """sha256 of the polygons, hexadecimal."""
        return hashlib.sha256(b"".join(self.pieces)).hexdigest()

    def of(self, scene: RasterReader) -> AreaReader:
        """A reader of an open scene or surface that is limited to this area."""
        return AreaReader(scene, self)

    def spec_of(self, scene: Scene) -> AreaSpec:
        """A picklable description with which any process can open this area of a scene."""
        return AreaSpec(scene=scene.spec, area=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaSpec:
    """A picklable description with which any process can open an area of a scene."""

    scene: SceneSpec
    """How the scene is read."""
    area: Area
    """The area."""

    def open(self) -> AreaReader:
        """Open the scene; raises like `SceneSpec.open`."""
        return self.area.of(self.scene.open())


class AreaReader:
    """Reads a scene of which only an area is valid; several threads may use it.

    Pixels outside of the area are not refined but still read: so tiles at its border see the
    confidences around it, as if the whole scene were refined.
    """

    def __init__(self, scene: RasterReader, area: Area) -> None:
        self._scene = scene
        self._shapes = PlacedShapes.from_wkb(area.pieces)
        self.size: RasterSize = scene.size

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read a window; only pixels of the area are valid.

        A window that shares no pixel with the area is not read: its confidences are 0.
        """
        inside = burn(self._shapes.touching(window), window)
        if not inside.any():
            return np.zeros(inside.shape, np.float32), inside
        confidence, valid = self._scene.read(window)
        return confidence, valid & inside


def find_area(scene: Placed, reading: Reading) -> Area:
    """The area of interest given by `aoi` or `bounds`.

    Polygons in another CRS are reprojected, with a warning.

    Raises:
        InputError: the file cannot be read, the scene has no georeference, or the area lies
            outside of the scene.
    """
    if not scene.box.has_transform:
        raise InputError(
            f"{scene.name}: has no georeference, so that no area has a place in it; georeference "
            "it, or leave `aoi` and `bounds` out"
        )
    if reading.bounds is not None:
        return _rectangle(scene.box, reading.bounds)
    path = Path(os.fspath(reading.aoi or ""))
    layer = find_layer(path, option=None)
    shapes = place(layer, scene.box, width=None, what="area of interest")
    return Area(name=path.name, pieces=shapes.to_wkb())


def _rectangle(where: GeoBox, bounds: Bounds) -> Area:
    shown = ",".join(f"{number:.9g}" for number in bounds)
    shapes = rectangle(where, bounds)
    if shapes is None:
        theirs = ",".join(f"{number:.9g}" for number in where.bounds())
        raise InputError(
            f"{where.name}: the bounds {shown} lie outside of the scene, which has {theirs}; give "
            "them in its CRS"
        )
    return Area(name=shown, pieces=shapes.to_wkb())
