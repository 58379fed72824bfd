"""Temporary masks, such as thresholded confidences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio

from geothresh.errors import OutputError, UsageError
from geothresh.files import create_beside, discard
from geothresh.options import Progress
from geothresh.raster.dataset import open_dataset
from geothresh.raster.gdal import RASTER_ERRORS, filtered_warnings, gdal_environment, reason
from geothresh.raster.georeference import Georeference
from geothresh.raster.mask import Mask, MaskSpec
from geothresh.raster.paths import find_raster
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize


class Confidences(Protocol):
    """A confidence raster, or many as one."""

    name: str
    """For messages."""
    box: Georeference
    """Its place."""

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Confidences in [0, 1] and what of them is data, as `Scene.read`."""
        ...


@contextmanager
def cut_scene(
    scene: Confidences,
    threshold: float,
    *,
    windows: Sequence[PixelWindow],
    beside: Path,
    progress: Progress | None = None,
) -> Iterator[Mask]:
    """Threshold a scene into a temporary mask.

    Args:
        scene: the confidences, open.
        threshold: in [0, 1].
        windows: in which it is read; they cover it.
        beside: a path in whose directory the mask is put, which lives as long as the block.
        progress: called with (strips read, strips in all).

    Raises:
        InputError: the scene cannot be read.
        UsageError: the threshold is not in [0, 1].
        OutputError: the mask cannot be written.
    """
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"threshold {threshold:g} is not in [0, 1]; confidences are")

    def above() -> Iterator[tuple[PixelWindow, BoolArray]]:
        for done, window in enumerate(windows, start=1):
            confidence, valid = scene.read(window)
            # As float32, like the confidences: else 0.7 would not reach 0.7.
            yield window, (confidence >= np.float32(threshold)) & valid
            if progress:
                progress(done, len(windows))

    with rewritten(scene.name, scene.box, above(), beside) as mask:
        yield mask


@contextmanager
def rewritten(
    name: str, box: Georeference, parts: Iterable[tuple[PixelWindow, BoolArray]], beside: Path
) -> Iterator[Mask]:
    """Write a temporary mask, which lives as long as the block.

    Args:
        name: for messages.
        box: its georeference.
        parts: windows that cover it, True = foreground.
        beside: a path in whose directory the file is put.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = create_beside(beside)
    try:
        foreground = _write_temporary(temporary, box.size, parts, beside)
        spec = MaskSpec(
            source=replace(find_raster(temporary), name=name),
            bidx=1,
            mask_band=None,
            has_mask=False,
            nodata=None,
            value=1,
            foreground=foreground,
        )
        with Mask(spec, open_dataset(spec.source), box=box) as mask:
            yield mask
    finally:
        discard(temporary)


def _write_temporary(
    path: Path, size: RasterSize, parts: Iterable[tuple[PixelWindow, BoolArray]], beside: Path
) -> int:
    """Write the parts and return how many pixels are True.

    A full disk may go unnoticed at close; the count of pixels in the polygons shows it.
    """
    foreground = 0
    # Fast to write and read, and small: a mask shrinks a hundred times.
    creation = {"compress": "deflate", "zlevel": 1, "tiled": True, "sparse_ok": True}
    blocks = {"blockxsize": 512, "blockysize": 512, "bigtiff": "IF_SAFER"}
    extent = {"height": size.height, "width": size.width, "count": 1, "dtype": "uint8"}
    with gdal_environment(), filtered_warnings():
        try:
            with rasterio.open(path, "w", driver="GTiff", **extent, **creation, **blocks) as file:
                for window, part in parts:
                    foreground += int(np.count_nonzero(part))
                    file.write(part.view(np.uint8), 1, window=window.ranges)
        except RASTER_ERRORS as error:
            raise OutputError(
                f"{beside}: a temporary mask cannot be written beside it ({reason(error)}); "
                "is the disk full?"
            ) from error
    return foreground
