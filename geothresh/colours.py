"""The colours of pictures, colour tables of rasters, and styles for QGIS.

A colour is red, green and blue, 0 to 255. Added and removed differ in hue and lightness, so that
they can be distinguished with any colour vision.
"""

from __future__ import annotations

from typing import TypeAlias

Rgb: TypeAlias = tuple[int, int, int]

FOREGROUND: Rgb = (255, 176, 0)
"""Foreground of a mask, and unchanged foreground: amber."""
ADDED: Rgb = (60, 130, 255)
"""Pixels that became foreground: blue."""
REMOVED: Rgb = (230, 60, 45)
"""Pixels that became background: red."""
BACKGROUND: Rgb = (18, 18, 18)
"""Background in pictures; on a map it is transparent."""
NO_DATA: Rgb = (120, 120, 120)
"""Pixels without data in pictures; on a map they are transparent."""
EMPTY: Rgb = (0, 0, 0)
"""Classes that are transparent on a map, in the colour tables of TIFFs, which have no alpha."""
OUTLINE: Rgb = (120, 74, 0)
"""Outlines of foreground, and nodes of lines: brown."""
BRIDGE: Rgb = (200, 0, 200)
"""Lines over gaps of a mask: magenta, which stands out on grey, green and brown."""

Stop: TypeAlias = tuple[float, Rgb, int]
"""A value, its colour, and its opacity from 0 to 255."""

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
"""Region-specific thresholds: low ones, which give more foreground, are blue, high ones red."""


def hexadecimal(colour: Rgb) -> str:
    """A colour in the notation of HTML.

    Example:
        >>> hexadecimal((255, 176, 0))
        '#ffb000'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)
