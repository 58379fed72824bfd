"""What each thing looks like, everywhere: pictures, colour tables of rasters, styles for QGIS.

A colour is red, green and blue, 0 to 255. Added and removed differ in hue and lightness, so that
they are told apart with any colour vision.
"""

from __future__ import annotations

from typing import TypeAlias

Rgb: TypeAlias = tuple[int, int, int]

FOREGROUND: Rgb = (255, 176, 0)
"""Foreground of a mask, and what of it is as it was: amber."""
ADDED: Rgb = (60, 130, 255)
"""Became foreground: blue."""
REMOVED: Rgb = (230, 60, 45)
"""Became background: red."""
BACKGROUND: Rgb = (18, 18, 18)
"""In pictures; on a map the background is transparent."""
NO_DATA: Rgb = (120, 120, 120)
"""In pictures; on a map pixels without data are transparent."""
EMPTY: Rgb = (0, 0, 0)
"""In the colour tables of TIFFs, which know no transparency, what is transparent on a map."""
OUTLINE: Rgb = (120, 74, 0)
"""Around areas of foreground, and nodes of lines."""
BRIDGE: Rgb = (200, 0, 200)
"""Lines over gaps of a mask: magenta, seen on grey, green and brown alike."""

Stop: TypeAlias = tuple[float, Rgb, int]
"""A value, its colour, and how opaque that is, 0 to 255."""

CONFIDENCE_RAMP: tuple[Stop, ...] = (
    (0.0, (68, 1, 84), 0),
    (0.25, (59, 82, 139), 110),
    (0.5, (33, 145, 140), 190),
    (0.75, (94, 201, 98), 230),
    (1.0, (253, 231, 37), 255),
)
"""Confidences, from transparent violet through green to yellow."""
THRESHOLD_RAMP: tuple[Stop, ...] = (
    (0.05, ADDED, 200),
    (0.5, (245, 245, 245), 90),
    (0.95, REMOVED, 200),
)
"""Region-specific thresholds: a low one lets in more foreground, a high one less."""


def hexadecimal(colour: Rgb) -> str:
    """As HTML has it.

    Example:
        >>> hexadecimal((255, 176, 0))
        '#ffb000'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)
