"""Width of a raster's foreground, share of its data, and whether a model fits its pixels."""

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

# Windows along each side that are looked at, and pixels along each side of a window.
_WINDOWS, _WINDOW = 4, 512


def sampled_width(reader: RasterReader) -> float | None:
    """The width of a raster's foreground in pixels: the median over windows that are spread evenly.

    None where no window has foreground and background.
    """
    parts = map(reader.read, width_windows(reader.size))
    return median_width((confidence >= 0.5) & valid for confidence, valid in parts)


def sampled_share(reader: RasterReader) -> float:
    """The share of pixels with data, in the same windows."""
    valid = total = 0
    for window in width_windows(reader.size):
        _, there = reader.read(window)
        valid += int(there.sum())
        total += there.size
    return valid / total


def width_windows(size: RasterSize) -> list[PixelWindow]:
    """The windows of a raster that `sampled_width` looks at."""
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
    """Choose a model's resolution for a scene; warns where it was trained on other pixels.

    Args:
        scene: open.
        choose: takes ``metres``, ``width`` and ``size``, see `choose_model`.
    """
    pixel = pixel_size(scene.box)
    metres = None if pixel is None else pixel.mean
    chosen = choose(metres=metres, width=partial(sampled_width, scene), size=scene.size)
    warn_of_mismatch(scene.name, pixel, chosen)
    return chosen


def warn_of_mismatch(name: str, size: PixelSize | None, chosen: ChosenModel) -> None:
    """Warn if a raster's pixels, after resampling, are unlike those of the model's training."""
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
