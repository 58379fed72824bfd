"""Figures: confidences, masks and changes in colours, and titled panels on one sheet.

Every picture here is an RGB array, uint8 (height, width, 3); `geothresh.raster.pictures` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geothresh.types import BoolArray, UInt8Array

Rgb = UInt8Array

PAPER = (255, 255, 255)
INK = (30, 30, 30)
NO_DATA = (120, 120, 120)
BACKGROUND = (18, 18, 18)
KEPT = (235, 235, 235)
REMOVED = (230, 60, 45)
ADDED = (60, 130, 255)

_GAP = 12
_TEXT = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture and the line above it."""

    title: str
    image: Rgb


def confidence_picture(confidence: NDArray[np.floating], valid: BoolArray) -> Rgb:
    """Confidence in [0, 1], (h, w), from black to white; grey where not `valid`."""
    levels = np.round(np.where(valid, confidence, 0) * 255).astype(np.uint8)
    picture = np.repeat(levels[..., None], 3, axis=-1)
    picture[~valid] = NO_DATA
    return picture


def mask_picture(foreground: BoolArray, valid: BoolArray) -> Rgb:
    """Foreground light, background dark, grey where not `valid`."""
    return change_picture(foreground, foreground, valid)


def change_picture(before: BoolArray, after: BoolArray, valid: BoolArray) -> Rgb:
    """What stayed foreground light, what was removed red, what was added blue."""
    picture = np.empty((*before.shape, 3), np.uint8)
    picture[:] = BACKGROUND
    picture[before & after] = KEPT
    picture[before & ~after] = REMOVED
    picture[~before & after] = ADDED
    picture[~valid] = NO_DATA
    return picture


def shrunk(picture: Rgb, factor: int) -> Rgb:
    """`picture` at 1/factor of its size, each pixel the mean of those it stands for."""
    size = (max(1, picture.shape[1] // factor), max(1, picture.shape[0] // factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def sheet(heading: str, rows: Sequence[Sequence[Panel]]) -> Rgb:
    """Rows of titled panels under a heading, on white paper."""
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
