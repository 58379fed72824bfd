"""Measure the foreground width of a raster and its share of data; check that a model fits it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from geothresh.errors import warn
from geothresh.geobox import PixelSize
from geothresh.nn.scope import TOLERANCE
from geothresh.raster.pixelsize import pixel_size
from geothresh.thresholding import median_width
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    # They import the engine and most of scipy, which `geothresh info` does without.
    from geothresh.mosaic import RasterReader
    from geothresh.run.jobs import Placed
    from geothresh.run.models import Choose, ChosenModel

# Most windows along each side of a raster that are read, and side of a window in pixels.
_WINDOWS, _WINDOW = 4, 512


def sampled_width(reader: RasterReader) -> float | None:
    """Median width in pixels of a raster's foreground, over windows that are spread evenly.

    None if no window has both foreground and background.
    """
    parts = map(reader.read, width_windows(reader.size))
    return median_width((confidence >= 0.5) & valid for confidence, valid in parts)


def sampled_share(reader: RasterReader) -> float:
    """The share of pixels with data, in the windows of `width_windows`."""
    valid = total = 0
    for window in width_windows(reader.size):
        _, has_data = reader.read(window)
        valid += int(has_data.sum())
        total += has_data.size
    return valid / total


def width_windows(size: RasterSize) -> list[PixelWindow]:
    """The windows of a raster that `sampled_width` reads."""
    return [
        PixelWindow(
            row=row, col=col, height=min(_WINDOW, size.height - row),
            width=min(_WINDOW, size.width - col),
        )
        for row in _starts(size.height)
        for col in _starts(size.width)
    ]  # fmt: skip


def _starts(side: int) -> list[int]:
    """First pixels of at most `_WINDOWS` windows along a side."""
    count = min(_WINDOWS, -(-side // _WINDOW))
    return [round(k * max(side - _WINDOW, 0) / max(count - 1, 1)) for k in range(count)]


def chosen_for(scene: Placed, choose: Choose) -> ChosenModel:
    """Choose a model and its resolution for a scene; warns if it was trained on other pixel sizes.

    Args:
        scene: the open scene.
        choose: takes ``metres``, ``width`` and ``size``, see `choose_model`.
    """
    pixel = pixel_size(scene.box)
    metres = None if pixel is None else pixel.mean
    chosen = choose(metres=metres, width=partial(sampled_width, scene), size=scene.size)
    warn_of_mismatch(scene.name, pixel, chosen)
    return chosen


def warn_of_mismatch(name: str, size: PixelSize | None, chosen: ChosenModel) -> None:
    """Warn if the resampled pixels still differ too much from those of the model's training."""
    known = chosen.scope.pixels
    if size is None or known is None or not known.differs(size.mean / chosen.resampling):
        return
    ratio = known.ratio(size.mean)
    warn(
        f"{name}: pixels of {size.text} are {max(ratio, 1 / ratio):.2g} times "
        f"{'larger' if ratio > 1 else 'smaller'} than those of {known.text} that the model "
        f"{chosen.name} was trained on, and more than {TOLERANCE:g} times may do harm; "
        "leave out `resolution`, or use a model trained at this resolution"
    )
