"""The pictures of the documentation, made from the demo: ``make pictures``.

``docs/before_after.png`` is the demo's own; ``docs/network.png`` shows its polygons, lines, bridged
gaps and nodes in the colours of the styles. ``tests/api/test_demo.py`` compares both with what the
code makes now.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import geopandas
import numpy as np
import shapely
import shapely.ops
from measuring import script_parser
from PIL import Image, ImageDraw

from geothresh.api.demo import demo
from geothresh.colours import BRIDGE, FOREGROUND, OUTLINE, Rgb
from geothresh.options import Bounds
from geothresh.raster.pictures import write_png

DOCS = Path(__file__).parents[2] / "docs"
# Metres, pixels a metre, and how much finer it is drawn.
WIDTH, HEIGHT = 675, 450
SCALE, FINER = 2, 3
_DASH = 4.0


class Canvas:
    """Paper that shapes of a map are drawn on."""

    def __init__(self, bounds: Bounds) -> None:
        self._left, _, _, self._top = bounds
        self._image = Image.new("RGB", (WIDTH * SCALE * FINER, HEIGHT * SCALE * FINER), "white")
        self._draw = ImageDraw.Draw(self._image)

    def _places(self, shape: shapely.Geometry) -> list[tuple[float, float]]:
        x, y = shapely.get_coordinates(shape).T
        step = SCALE * FINER
        return list(zip((x - self._left) * step, (self._top - y) * step, strict=True))

    def area(self, shape: shapely.Polygon) -> None:
        """A polygon, its holes white."""
        pale = tuple(round(255 - (255 - part) * 0.5) for part in FOREGROUND)
        self._draw.polygon(self._places(shape.exterior), fill=pale)
        for hole in shape.interiors:
            self._draw.polygon(self._places(hole), fill="white")
        for ring in (shape.exterior, *shape.interiors):
            self.line(ring, OUTLINE, 1)

    def line(self, shape: shapely.Geometry, colour: Rgb, pixels: float) -> None:
        """A line of a width in pixels of the picture."""
        width = round(pixels * FINER)
        self._draw.line(self._places(shape), fill=colour, width=width, joint="curve")

    def dashes(self, shape: shapely.Geometry, colour: Rgb, pixels: float) -> None:
        """The same in dashes of `_DASH` metres."""
        for start in np.arange(0, shape.length, 2 * _DASH):
            self.line(shapely.ops.substring(shape, start, start + _DASH), colour, pixels)

    def dot(self, shape: shapely.Point, pixels: float) -> None:
        """A point."""
        ((x, y),) = self._places(shape)
        half = pixels * FINER / 2
        self._draw.ellipse((x - half, y - half, x + half, y + half), fill=OUTLINE)

    def pixels(self) -> np.ndarray:
        """The picture (height, width, 3)."""
        size = WIDTH * SCALE, HEIGHT * SCALE
        return np.asarray(self._image.resize(size, Image.Resampling.BOX))


def network_picture(areas: Path, lines: Path) -> np.ndarray:
    """Areas, lines, gaps and nodes around the longest gap that is bridged."""
    polygons = geopandas.read_file(areas, layer=areas.stem).geometry
    frame = geopandas.read_file(lines, layer=lines.stem)
    nodes = geopandas.read_file(lines, layer=f"{lines.stem}_nodes").geometry
    bridges = frame.geometry[frame.bridged]
    middle = bridges[bridges.length.idxmax()].centroid
    x, y = middle.x, middle.y
    canvas = Canvas((x - WIDTH / 2, y - HEIGHT / 2, x + WIDTH / 2, y + HEIGHT / 2))
    for polygon in polygons:
        canvas.area(polygon)
    for line in frame.geometry[~frame.bridged]:
        canvas.line(line, OUTLINE, 5)
    for line in frame.geometry[~frame.bridged]:
        canvas.line(line, FOREGROUND, 3)
    for line in bridges:
        canvas.dashes(line, BRIDGE, 4)
    for node in nodes:
        canvas.dot(node, 8)
    return canvas.pixels()


def make_pictures(folder: Path) -> None:
    """Write both pictures into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        made = demo(Path(scratch) / "demo")
        shutil.copyfile(made.picture, folder / "before_after.png")
        write_png(folder / "network.png", network_picture(made.vector, made.centerlines))


if __name__ == "__main__":
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=Path, default=DOCS, help="folder (default: docs)")
    make_pictures(parser.parse_args().output)
