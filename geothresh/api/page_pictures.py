"""Arrays as the pictures of a page."""

from __future__ import annotations

from geothresh.pages import Picture
from geothresh.raster.pictures import png_bytes, shrunk
from geothresh.types import UInt8Array


def small_picture(pixels: UInt8Array, alt: str, *, most_bytes: int) -> Picture:
    """A PNG of at most so many bytes, smaller than it was where it takes that.

    Args:
        pixels: (height, width, 3).
        alt: what there is to see, in words.
        most_bytes: of the file.
    """
    data = png_bytes(pixels)
    while len(data) > most_bytes:
        pixels = shrunk(pixels, 2)
        data = png_bytes(pixels)
    height, width = pixels.shape[:2]
    return Picture(data=data, kind="png", width=width, height=height, alt=alt)
