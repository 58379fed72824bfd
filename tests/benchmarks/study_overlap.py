"""What overlap and blend are worth: seams and masks of one scene, and its scores where labelled.

    python tests/benchmarks/study_overlap.py
    python tests/benchmarks/study_overlap.py --scene scene.tif --labels labels.tif

Every overlap is blended in every way and compared with a reference that is refined far more
densely. Without a scene it is the demo's. All tiles go through the network once: the same tile in
another grid, and the other blends, take it from memory.

- *off*: mean of abs(refined - reference) over the pixels with data, in 1/1000.
- *seams*: step from one pixel to the next across the lines where a tile begins or ends, over the
  same step in the reference: 1.00 shows nothing.
- *other mask*: pixels of the mask that differ from the reference's, in 1/10,000.
- *miou*, *Boundary IoU*: means over squares of 500 x 500 pixels, in points.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import rasterio
from measuring import machine, script_parser, table
from scenes import SCENE

import geothresh
from geothresh.metrics import MapScore, Summary
from geothresh.mosaic import mosaic_array
from geothresh.mosaic.blending import BLENDS
from geothresh.nn.refiner import TorchRefiner
from geothresh.options import Blend
from geothresh.raster.scene import open_scene
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import RasterSize

TILE, SQUARE = 512, 500
OVERLAPS = (0, 64, 128, 192, 256)


class Remembering:
    """A refiner that calls its network once for each tile that it sees."""

    def __init__(self, model: TorchRefiner) -> None:
        self._model = model
        self._seen: dict[bytes, Float32Array] = {}
        self.patch, self.name, self.digest = model.patch, model.name, model.digest

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, one by one."""
        return np.stack([self._one(tile) for tile in tiles])

    def _one(self, tile: Float32Array) -> Float32Array:
        key = hashlib.sha256(tile.tobytes()).digest()
        if key not in self._seen:
            self._seen[key] = self._model(tile[np.newaxis])[0]
        return self._seen[key]


def seams(refined: Float32Array, reference: Float32Array, overlap: int) -> float:
    """Mean step across the borders of tiles, over the reference's; NaN where there are none."""
    steps = [0.0, 0.0]
    for axis in (0, 1):
        for line in _borders(refined.shape[axis], overlap):
            for place, values in enumerate((refined, reference)):
                before, after = (values.take(at, axis) for at in (line - 1, line))
                steps[place] += float(np.nansum(np.abs(after - before)))
    return steps[0] / steps[1] if steps[1] else float("nan")


def _borders(extent: int, overlap: int) -> list[int]:
    """Where along an axis the weights of a tile begin or end, for `crop` too."""
    stride = TILE - overlap
    starts = range(stride, extent, stride)
    lines = {at + shift for at in starts for shift in (0, overlap // 2, overlap)}
    return sorted(line for line in lines if line < extent)


def scores(mask: BoolArray, labels: BoolArray, valid: BoolArray) -> Summary:
    """The mask against its labels, square by square."""
    found = []
    for row in range(0, mask.shape[0], SQUARE):
        for col in range(0, mask.shape[1], SQUARE):
            place = np.s_[row : row + SQUARE, col : col + SQUARE]
            if valid[place].any():
                found.append(
                    MapScore.of(prediction=mask[place], target=labels[place], valid=valid[place])
                )
    return Summary.of(found)


def study(
    scene: Path, labels_file: Path | None, model: TorchRefiner, reference_overlap: int
) -> None:
    """Print the table of one scene."""
    with open_scene(scene) as opened:
        confidence, valid = opened.read(opened.size.window())
        size = RasterSize(height=opened.size.height, width=opened.size.width)
    confidence = np.where(valid, confidence, np.nan).astype(np.float32)
    labels, labelled = None, valid
    if labels_file is not None:
        with rasterio.open(labels_file) as dataset:
            labels = dataset.read(1) > 0
            labelled = dataset.read_masks(1) > 0
    refiner = Remembering(model)

    def refined(overlap: int, blend: Blend) -> Float32Array:
        return mosaic_array(confidence, refiner, tile=TILE, overlap=overlap, blend=blend)

    reference = refined(reference_overlap, "hann")

    def row(overlap: int, blend: Blend, result: Float32Array) -> list[str]:
        grid = TileGrid(size=size, tile=TILE, overlap=overlap, patch=model.patch)
        off = float(np.nanmean(np.abs(result - reference))) * 1e3
        mask = result >= 0.5
        other = float((mask != (reference >= 0.5))[valid].mean()) * 1e4
        cells = [
            str(overlap), blend, str(grid.n_tiles), f"{off:.2f}",
            f"{seams(result, reference, overlap):.2f}", f"{other:.1f}",
        ]  # fmt: skip
        if labels is not None:
            summary = scores(mask, labels, valid & labelled)
            cells += [f"{100 * summary.miou:.2f}", f"{100 * summary.boundary_iou:.2f}"]
        return cells

    rows = [row(o, blend, refined(o, blend)) for o in OVERLAPS for blend in BLENDS]
    rows.append(row(reference_overlap, "hann", reference))
    head = ["overlap", "blend", "tiles", "off", "seams", "other mask"]
    if labels is not None:
        head += ["miou", "Boundary IoU"]
        cut = scores(np.nan_to_num(confidence) >= 0.5, labels, valid & labelled)
        print(f"cut at 0.5: miou {100 * cut.miou:.2f}, Boundary IoU {100 * cut.boundary_iou:.2f}\n")
    print(table(head, rows))


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--scene", type=Path, default=SCENE, help="default: the demo's")
    parser.add_argument("--labels", type=Path, help="mask of the same size, above 0 = foreground")
    parser.add_argument("--model", default="roads")
    parser.add_argument("--reference", type=int, default=384, help="overlap of the reference")
    arguments = parser.parse_args()
    print(machine("torch", "numpy"))
    model = geothresh.load_model(arguments.model)
    study(arguments.scene, arguments.labels, model, arguments.reference)


if __name__ == "__main__":
    main()
