"""The size of a raster's pixels on the ground, beside that of the pixels a model knows."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from geothresh.api.models import ChosenModel
from geothresh.errors import GeothreshWarning, InputError
from geothresh.nn.resolution import TOLERANCE
from geothresh.raster.grid import RasterGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSize:
    """How large a raster's pixels are on the ground, at its centre, in metres."""

    x: float
    """Along a row."""
    y: float
    """Down a column."""

    @property
    def mean(self) -> float:
        """The side of the square of the same area: what models are compared with.

        Of oblong pixels (degrees, far from the equator) one side is taken for too small and the
        other for too large by the same factor: resampling keeps their shape.
        """
        return math.sqrt(self.x * self.y)

    @property
    def text(self) -> str:
        """Such as ``0.5 m``, or ``0.5 x 0.7 m`` where the sides differ by a hundredth and more."""
        if max(self.x / self.y, self.y / self.x) < 1.01:
            return f"{self.mean:.3g} m"
        return f"{self.x:.3g} x {self.y:.3g} m"


def pixel_size(grid: RasterGrid) -> PixelSize | None:
    """The size of a raster's pixels; None without a CRS and a transform, or where they do not say.

    Control points and RPCs are not looked at: pixels have no one size under them.
    """
    if grid.crs is None or not grid.has_transform:
        return None
    # pyproj takes a tenth of a second to import.
    from geothresh.vector.resolution import pixel_size as measured

    sizes = measured(
        grid.crs.to_wkt(), tuple(grid.transform)[:6], height=grid.height, width=grid.width
    )
    return None if sizes is None else PixelSize(x=sizes[0], y=sizes[1])


def require_pixel_size(size: PixelSize | None, name: str) -> PixelSize:
    """The size, which is needed; raises InputError where it is not known."""
    if size is None:
        raise InputError(
            f"{name}: the size of its pixels on the ground is not known (no CRS, or no transform), "
            "so that its resolution cannot be matched; leave out --match-resolution, or "
            "georeference the scene"
        )
    return size


def warn_of_mismatch(name: str, size: PixelSize | None, chosen: ChosenModel) -> None:
    """Warn of a raster whose pixels are unlike those that the model was trained on.

    Where they are resampled, nothing is said: they are like the model's then.
    """
    known = chosen.scope.pixels
    if size is None or known is None or chosen.resampling != 1 or not known.differs(size.mean):
        return
    ratio = known.ratio(size.mean)
    warnings.warn(
        f"{name}: pixels of {size.text} are {max(ratio, 1 / ratio):.2g} times "
        f"{'larger' if ratio > 1 else 'smaller'} than those of {known.text} that the model "
        f"{chosen.name} was trained on, and more than {TOLERANCE:g} times may do harm; "
        "add --match-resolution, or use a model trained at this resolution",
        GeothreshWarning,
        stacklevel=3,
    )
