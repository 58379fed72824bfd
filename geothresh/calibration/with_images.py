"""Score DenseCRF beside the candidates, on folds that its settings were not searched on.

DenseCRF reads the image, which `refine` does not, so a calibration cannot use it. Its scores
tell whether the images are worth reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geothresh.calibration.candidates import AsIs
from geothresh.calibration.counts import CountedMaps, MapCounter, Source
from geothresh.errors import InputError, names
from geothresh.evaluation.scoring import Sample
from geothresh.raster.image_pairs import find_pictures
from geothresh.raster.pairs import Pair
from geothresh.raster.pictures import read_rgb, resized
from geothresh.rivals.densecrf import DenseCRF, search
from geothresh.types import BoolArray, Float32Array, UInt8Array

_NAME = "DenseCRF"
DENSE_CRF = AsIs(key="densecrf", label=f"{_NAME}**", source=Source(_NAME, 1.0))
"""DenseCRF in the table; it is compared with the candidates, but is not a candidate."""
_SEARCHED = 4  # number of maps of other folds on which the settings are searched


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsWithImages:
    """Labelled maps, and the image of each."""

    pairs: Mapping[str, Pair]
    """Maps and masks by the name that they are counted under."""
    images: Mapping[str, Path]
    """Images by id."""

    @classmethod
    def of(cls, pairs: Mapping[str, Pair], folder: Path) -> MapsWithImages:
        """Find the image of each map in a folder of images, in any layout.

        Raises:
            InputError: an image is missing, damaged, or of another size than its map.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of images; name another `images`")
        images, ids = find_pictures(folder), {pair.id for pair in pairs.values()}
        missing = sorted(ids - images.keys())
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {len(ids)} tiles have no image in it "
                f"({names(missing)}); complete it, or leave `images` out"
            )
        found = cls(pairs=pairs, images=images)
        for pair in {pair.id: pair for pair in pairs.values()}.values():
            image, truth = found.image(pair).shape[:2], pair.read_truth().shape
            if image != truth:
                raise InputError(
                    f"{images[pair.id]}: {image[0]} x {image[1]} pixels, its mask "
                    f"{pair.mask.name} has {truth[0]} x {truth[1]}; give images of the maps' size, "
                    "or `resize`"
                )
        return found

    def image(self, pair: Pair) -> UInt8Array:
        """The image (H, W, 3) of a map."""
        return resized(read_rgb(self.images[pair.id]), pair.resize)

    def read(self, name: str) -> tuple[Float32Array, UInt8Array, BoolArray]:
        """Read the map (H, W), image (H, W, 3) and truth (H, W) of a name."""
        pair = self.pairs[name]
        confidence, truth = pair.read()
        return confidence, self.image(pair), truth


def with_dense_crf(
    counted: CountedMaps,
    maps: MapsWithImages,
    folds: Sequence[Sequence[str]],
    step: Callable[[], None],
) -> CountedMaps:
    """Add the counts of DenseCRF: each fold is refined by settings searched on others.

    Args:
        counted: the maps as they are.
        maps: the same maps with their images.
        folds: names of the maps that each fold holds out.
        step: called after each map.
    """
    counter, seconds = MapCounter(1), 0.0
    for held in folds:
        others = sorted(set(counted.ids) - set(held))
        searched = others[:: max(1, len(others) // _SEARCHED)][:_SEARCHED]
        crf = DenseCRF(settings=search([maps.read(name) for name in searched]))
        for name in held:
            confidence, image, truth = maps.read(name)
            started = time.perf_counter()
            refined = crf(confidence, image)
            seconds += time.perf_counter() - started
            sample = Sample(id=name, confidence=confidence, truth=truth, refined=refined)
            counter.add_refined(sample, _NAME, [1.0])
            step()
    per_megapixel = {DENSE_CRF.key: seconds / counted.megapixels}
    return counted.with_sources(counter.sources(counted.ids), per_megapixel)
