"""The interface of refiners that ThreshNet is compared with."""

from __future__ import annotations

from typing import Protocol

from geothresh.errors import UsageError
from geothresh.types import Float32Array, UInt8Array


class Rival(Protocol):
    """A function of a confidence map and its image that returns a refined confidence map."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    def __call__(self, confidence: Float32Array, image: UInt8Array | None = None) -> Float32Array:
        """Refine a map.

        Args:
            confidence: (H, W) in [0, 1].
            image: (H, W, 3) red, green, blue; None = there is no image.

        Returns:
            (H, W) in [0, 1]; 0.5 and more is foreground.

        Raises:
            UsageError: the image is needed but missing, or has another size.
        """
        ...


def require_image(name: str, confidence: Float32Array, image: UInt8Array | None) -> UInt8Array:
    """Return the image; UsageError if it is missing, has no three bands, or another size."""
    if image is None:
        raise UsageError(f"{name} looks at the image, and there is none; give the folder of images")
    if image.shape != (*confidence.shape, 3):
        raise UsageError(
            f"{name}: the image has the shape {image.shape}, its map {confidence.shape}; give an "
            "image (H, W, 3), red, green and blue, of the map's size"
        )
    return image
