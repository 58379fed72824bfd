"""Read and write small pictures as arrays, and draw masks, maps and changes as titled panels.

What is drawn is an RGB array, uint8 (height, width, 3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geothresh.colours import ADDED, BACKGROUND, FOREGROUND, NO_DATA, REMOVED
from geothresh.errors import InputError, OutputError
from geothresh.files import replacing, require_file
from geothresh.pages import Picture
from geothresh.raster.checks import check_block, colour_bands
from geothresh.raster.dataset import open_dataset
from geothresh.raster.gdal import (
    RASTER_ERRORS,
    filtered_warnings,
    gdal_environment,
    make_error,
    reason,
)
from geothresh.raster.paths import find_raster, is_tiff
from geothresh.types import BoolArray, UInt8Array

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_FORMATS = ("PNG", "JPEG")
# Exceptions of Pillow for a damaged picture. Those of its own are OSErrors.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
make_error(Image.DecompressionBombWarning)

Value = TypeVar("Value", bound=np.generic)
Rgb = UInt8Array
PAPER = (255, 255, 255)
INK = (30, 30, 30)
_GRID = (225, 225, 225)
_GAP = 12
_TEXT = 17


def read_gray(
    path: str | os.PathLike[str], *, gaps: bool = False, stored: bool = False
) -> NDArray[Any]:
    """Read a one-band picture: a PNG, JPEG or TIFF, recognised by content.

    A PNG or JPEG in colour is accepted if its three channels are equal. An alpha channel is
    ignored. The scale and offset tags of a TIFF are applied.

    Args:
        path: path of the picture.
        gaps: accept a TIFF with missing pixels, which are returned as stored. If nodata is 0, which
            often marks background, no pixel counts as missing.
        stored: return the values of a 16-bit PNG as stored, for pictures that are not confidences.

    Returns:
        (H, W) array: uint8 as stored (1-bit pictures as 0 and 1), 16-bit PNG as float32 value /
        65535, TIFF in its own type, or float32 if it has scale tags.

    Raises:
        InputError: the file is missing, damaged, of another format, in colour, too large, or has
            missing pixels.
    """
    file = Path(os.fspath(path))
    require_file(str(file), file)
    if is_tiff(file):
        return _read_tiff(file, gaps)
    return _open_picture(file, _gray_stored if stored else _gray)


def read_rgb(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a colour picture: a PNG, JPEG or TIFF, recognised by content.

    A grey picture gives three equal channels. An alpha channel is ignored.

    Returns:
        (H, W, 3) uint8: red, green, blue.

    Raises:
        InputError: the file is missing, damaged, of another format, too large or not in 8 bits, or
            is a TIFF with unknown colours (see `colour_bands`) or missing pixels.
    """
    file = Path(os.fspath(path))
    require_file(str(file), file)
    if not is_tiff(file):
        return _open_picture(file, _rgb)
    pixels, _ = _read_bands(
        file,
        lambda dataset: colour_bands(str(file), dataset),
        # A pixel is missing where all bands are nodata: a black roof may be 0 in one band.
        lambda dataset: dataset.dataset_mask() == 0,
    )
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def is_jpeg(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a JPEG, by its first bytes."""
    with Path(path).open("rb") as opened:
        return opened.read(3) == b"\xff\xd8\xff"


def resized(pixels: NDArray[Value], side: int | None) -> NDArray[Value]:
    """Resize a picture to side x side pixels, bilinear, with area means where it shrinks.

    Args:
        pixels: (H, W) confidences, (H, W, 3) uint8, or an (H, W) mask. A new pixel of a mask is
            foreground if at least half of its area is.
        side: rows and columns of the result; None = not resized.

    Returns:
        The resized picture, in the same type.
    """
    if side is None or pixels.shape[:2] == (side, side):
        return pixels
    values: NDArray[Any] = pixels.astype(np.float32) if pixels.dtype == np.bool_ else pixels
    picture = Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR)
    new = np.asarray(picture)
    return np.asarray(new >= 0.5 if pixels.dtype == np.bool_ else new, pixels.dtype)


def _read_tiff(file: Path, gaps: bool) -> NDArray[Any]:
    def only_band(dataset: DatasetReader) -> Sequence[int]:
        if dataset.count != 1:
            raise InputError(f"{file}: holds {dataset.count} bands; give a picture with one")
        return (1,)

    def is_missing(dataset: DatasetReader) -> BoolArray:
        if gaps or dataset.nodata == 0:
            return np.zeros(0, np.bool_)
        # A stored 255 would count as a confidence of 1, or as foreground.
        return np.asarray(dataset.read_masks(1) == 0)

    bands, (scale, offset) = _read_bands(file, only_band, is_missing)
    pixels: NDArray[Any] = bands[0]
    if (scale, offset) != (1.0, 0.0):
        pixels = (pixels * scale + offset).astype(np.float32)
    return pixels


def _read_bands(
    file: Path,
    choose: Callable[[DatasetReader], Sequence[int]],
    is_missing: Callable[[DatasetReader], BoolArray],
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read bands of a small TIFF in which no pixel may be missing.

    Args:
        file: path of the picture.
        choose: the bands to read, counted from 1.
        is_missing: True for each pixel without data.

    Returns:
        (bands, H, W) stored values, and scale and offset of the first band of the file.

    Raises:
        InputError: the picture is too large or damaged, or pixels are missing.
    """
    with open_dataset(find_raster(file)) as dataset, gdal_environment():
        bands = choose(dataset)
        _require_small(file, dataset.width, dataset.height)
        check_block(str(file), dataset)
        try:
            pixels = dataset.read(bands)
            missing = int(np.count_nonzero(is_missing(dataset)))
        except RASTER_ERRORS as error:
            raise InputError(
                f"{file}: cannot be decoded ({reason(error)}); copy or write it again"
            ) from error
        scaling = dataset.scales[0], dataset.offsets[0]
    if missing:
        raise InputError(
            f"{file}: {missing} pixels have no data; cut the picture to where there is some"
        )
    return pixels, scaling


def _open_picture(file: Path, convert: Callable[[Path, Image.Image], NDArray[Any]]) -> NDArray[Any]:
    try:
        with filtered_warnings(), Image.open(file, formats=_FORMATS) as picture:
            picture.load()
            return convert(file, picture)
    except Image.DecompressionBombWarning as error:
        raise InputError(f"{file}: {error}; cut it into smaller pictures") from error
    except _PILLOW_ERRORS as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{file}: cannot be read as PNG or JPEG ({text}); copy or write it again"
        ) from error


def _gray(file: Path, picture: Image.Image) -> NDArray[Any]:
    pixels = _gray_stored(file, picture)
    # Everything but 16-bit pictures is uint8.
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32) / np.float32(65535.0)


def _gray_stored(file: Path, picture: Image.Image) -> NDArray[Any]:
    if picture.mode.startswith("I"):
        return np.asarray(picture)
    if picture.mode in ("1", "L"):
        return np.asarray(picture, np.uint8)
    if picture.mode == "LA":
        return np.asarray(picture.getchannel(0), np.uint8)
    channels = np.asarray(picture.convert("RGB"), np.uint8)
    if (channels != channels[..., :1]).any():
        raise InputError(f"{file}: is in colour ({picture.mode}); give a grey picture")
    return np.ascontiguousarray(channels[..., 0])


def _rgb(file: Path, picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode.startswith(("I", "F")) or _is_deep_png(file):
        raise InputError(f"{file}: has more than 8 bits a channel ({picture.mode}); give it in 8")
    return np.asarray(picture.convert("RGB"), np.uint8)


def _is_deep_png(file: Path) -> bool:
    """Whether a file is a PNG with 16 bits a channel; Pillow reduces those in colour to 8."""
    with file.open("rb") as opened:
        head = opened.read(25)
    return head.startswith(b"\x89PNG") and head[24:] == b"\x10"


def _require_small(file: Path, width: int, height: int) -> None:
    most = Image.MAX_IMAGE_PIXELS or 2**26
    if width * height > most:
        raise InputError(
            f"{file}: {width} x {height} pixels, more than {most}; cut it into smaller pictures"
        )


def png_bytes(pixels: NDArray[np.uint8], *, colours: int = 64) -> bytes:
    """A picture (H, W, 3) as a PNG with at most `colours` colours, for small pages."""
    picture = Image.fromarray(pixels).quantize(colours, dither=Image.Dither.NONE)
    file = BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def page_picture(pixels: UInt8Array, alt: str, *, most_bytes: int) -> Picture:
    """A PNG of an array for a page, halved in size until it is small enough.

    Args:
        pixels: (height, width, 3) uint8.
        alt: description of the picture.
        most_bytes: largest size of the PNG.
    """
    data = png_bytes(pixels)
    while len(data) > most_bytes:
        pixels = shrunk(pixels, 2)
        data = png_bytes(pixels)
    height, width = pixels.shape[:2]
    return Picture(data=data, kind="png", width=width, height=height, alt=alt)


def write_png(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write a PNG atomically.

    Args:
        pixels: (H, W) grey or (H, W, 3) red, green, blue; uint8.

    Raises:
        OutputError: the file cannot be written.
    """
    target = Path(os.fspath(path))
    with replacing(target) as temporary:
        try:
            Image.fromarray(pixels).save(temporary, format="PNG")
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture with a title above it."""

    title: str
    image: Rgb


def confidence_picture(confidence: NDArray[np.floating], valid: BoolArray) -> Rgb:
    """Draw confidence in [0, 1], (h, w), from black to white; grey where not `valid`."""
    levels = np.round(np.where(valid, confidence, 0) * 255).astype(np.uint8)
    picture = np.repeat(levels[..., None], 3, axis=-1)
    picture[~valid] = NO_DATA
    return picture


def mask_picture(foreground: BoolArray, valid: BoolArray) -> Rgb:
    """Draw foreground in amber and background dark; grey where not `valid`."""
    return change_picture(foreground, foreground, valid)


def change_picture(before: BoolArray, after: BoolArray, valid: BoolArray) -> Rgb:
    """Draw kept foreground in amber, removed in red, added in blue; grey where not `valid`."""
    picture = np.empty((*before.shape, 3), np.uint8)
    picture[:] = BACKGROUND
    picture[before & after] = FOREGROUND
    picture[before & ~after] = REMOVED
    picture[~before & after] = ADDED
    picture[~valid] = NO_DATA
    return picture


def shrunk(picture: Rgb, factor: int) -> Rgb:
    """Shrink a picture to 1 / `factor` of its height and width, by area means."""
    size = (max(1, picture.shape[1] // factor), max(1, picture.shape[0] // factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def sheet(heading: str, rows: Sequence[Sequence[Panel]]) -> Rgb:
    """Draw rows of titled panels under a heading, on white."""
    font, large = ImageFont.load_default(size=_TEXT), ImageFont.load_default(size=_TEXT + 7)
    title_height, heading_height = _TEXT + 8, _TEXT + 20
    widths = [sum(p.image.shape[1] for p in row) + _GAP * (len(row) - 1) for row in rows]
    heights = [title_height + max(p.image.shape[0] for p in row) + _GAP for row in rows]
    paper = Image.new(
        "RGB", (max(widths) + 2 * _GAP, heading_height + sum(heights) + 2 * _GAP), PAPER
    )
    draw = ImageDraw.Draw(paper)
    draw.text((_GAP, _GAP), heading, fill=INK, font=large)
    top = _GAP + heading_height
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for panel in row:
            draw.text((left, top), panel.title, fill=INK, font=font)
            paper.paste(Image.fromarray(panel.image), (left, top + title_height))
            left += panel.image.shape[1] + _GAP
        top += height
    return np.asarray(paper)


def reliability_picture(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Rgb:
    """Draw a reliability diagram: up to three named curves, and the diagonal.

    Args:
        curves: by name, points (mean confidence, share of foreground), each in [0, 1].

    Returns:
        uint8 (height, width, 3).
    """
    side, left, top = 480, 70, 50
    font = ImageFont.load_default(size=_TEXT)
    bottom = top + side
    paper = Image.new("RGB", (left + side + 30, bottom + 60 + 26 * len(curves)), PAPER)
    draw = ImageDraw.Draw(paper)

    def to_pixel(point: tuple[float, float]) -> tuple[float, float]:
        return left + point[0] * side, bottom - point[1] * side

    draw.text((left, 12), "share of pixels that are foreground, by confidence", INK, font)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.line([to_pixel((tick, 0)), to_pixel((tick, 1))], _GRID)
        draw.line([to_pixel((0, tick)), to_pixel((1, tick))], _GRID)
        draw.text((to_pixel((tick, 0))[0], bottom + 6), f"{tick:g}", INK, font, anchor="mt")
        draw.text((left - 8, to_pixel((0, tick))[1]), f"{tick:g}", INK, font, anchor="rm")
    draw.line([to_pixel((0, 0)), to_pixel((1, 1))], NO_DATA)
    for number, (name, points) in enumerate(curves.items()):
        colour = (NO_DATA, ADDED, REMOVED)[number % 3]
        dots = [to_pixel(point) for point in points]
        draw.line(dots, colour, width=3)
        for x, y in dots:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        line = bottom + 42 + 26 * number
        draw.line([(left, line + 9), (left + 30, line + 9)], colour, width=3)
        draw.text((left + 40, line), name, INK, font)
    return np.asarray(paper)
