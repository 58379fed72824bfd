r"""Pictures of held-out maps that a model makes worst, and of one in the middle, as a PNG.

    python tests/benchmarks/shortfalls.py roads --data DATA --maps MAPS --ids RUN/held-out \
        --row roads-penang/fcn8s-tu-tf_efficientnet_lite0 --gsd 0.85 -o roads_shortfalls.png

A row of the picture is a map: its confidence, the cut at 0.5 and what refining changes (added blue,
removed red), with the IoU before and after. The truth is not drawn, unless ``--truth`` asks for it:
masks of most sets must not be published. Maps are refined with defaults, as in the table of the
model's card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import ids_of, map_folders, maps_parser

from geothresh.api.arrays import refine_array
from geothresh.api.models import load_model
from geothresh.metrics import Counts
from geothresh.raster.pairs import read_confidence, read_mask
from geothresh.raster.pictures import (
    Panel,
    change_picture,
    confidence_picture,
    mask_picture,
    sheet,
    write_png,
)
from geothresh.types import BoolArray, Float32Array, UInt8Array

SIDE = 320
"""Pixels of a panel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A map before and after refining."""

    id: str
    confidence: Float32Array
    refined: BoolArray
    truth: BoolArray

    @property
    def cut(self) -> BoolArray:
        """The map cut at 0.5."""
        return np.asarray(self.confidence >= 0.5)

    def iou(self, mask: BoolArray) -> float:
        """IoU with the truth, in points."""
        return 100 * Counts.of(prediction=mask, target=self.truth).iou()

    @property
    def gain(self) -> float:
        """What refining gains, in points of IoU."""
        return self.iou(self.refined) - self.iou(self.cut)

    def panels(self, *, truth: bool) -> list[Panel]:
        """Confidence, cut, changes, and the truth if it may be shown."""
        everywhere = np.ones_like(self.truth)
        images = {
            f"{self.id}: confidence": confidence_picture(self.confidence, everywhere),
            f"cut at 0.5: IoU {self.iou(self.cut):.1f}": mask_picture(self.cut, everywhere),
            f"refined: IoU {self.iou(self.refined):.1f}": change_picture(
                self.cut, self.refined, everywhere
            ),
        }
        if truth:
            images["truth"] = mask_picture(self.truth, everywhere)
        return [Panel(title=title, image=fitted(image)) for title, image in images.items()]


def shares(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Share of all pixels that are changed, and of the foreground that is removed."""
    pixels = sum(outcome.cut.size for outcome in outcomes)
    changed = sum(int((outcome.cut != outcome.refined).sum()) for outcome in outcomes)
    before = sum(int(outcome.cut.sum()) for outcome in outcomes)
    removed = sum(int((outcome.cut & ~outcome.refined).sum()) for outcome in outcomes)
    return changed / pixels, removed / max(1, before)


def fitted(image: UInt8Array) -> UInt8Array:
    """A square picture at the size of a panel, by nearest neighbours."""
    rows, columns = (np.arange(SIDE) * n // SIDE for n in image.shape[:2])
    return image[rows][:, columns]


def main() -> None:
    """Refine the maps of a row, print their gains, and draw some."""
    parser = maps_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--row", required=True, help="set and network, as in the card's table")
    parser.add_argument("--gsd", type=float, help="metres of a pixel; without it, not known")
    parser.add_argument("--worst", type=int, default=2, help="maps that lose most")
    parser.add_argument("--truth", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    dataset, network = arguments.row.split("/")
    wanted = ids_of(arguments.ids, dataset)
    folders = map_folders(arguments.data, arguments.maps, dataset)
    paths = [p for folder in folders if folder.name == network for p in folder.glob("*.png")]
    model = load_model(arguments.model, device="cpu")
    outcomes = []
    for path in sorted(p for p in paths if p.stem in wanted):
        confidence = read_confidence(path)
        refined = refine_array(confidence, model=model, ground_sample_distance=arguments.gsd)
        truth = read_mask(arguments.data / dataset / f"{path.stem}_mask.png")
        outcomes.append(
            Outcome(id=path.stem, confidence=confidence, refined=refined >= 0.5, truth=truth)
        )
    if not outcomes:
        parser.error(f"{arguments.row}: has no map with one of these ids")
    outcomes.sort(key=lambda outcome: outcome.gain)
    gains = [outcome.gain for outcome in outcomes]
    changed, removed = shares(outcomes)
    print(
        f"{arguments.row}: {len(gains)} maps, gain {np.mean(gains):+.1f}, from {gains[0]:+.1f}; "
        f"{changed:.1%} of the pixels changed, {removed:.1%} of the foreground removed"
    )
    drawn = [*outcomes[: arguments.worst], outcomes[len(outcomes) // 2], outcomes[-1]]
    rows = [outcome.panels(truth=arguments.truth) for outcome in drawn]
    heading = f"{arguments.row}: worst, middle, best of {len(gains)} maps"
    write_png(arguments.output, sheet(heading, rows))


if __name__ == "__main__":
    main()
