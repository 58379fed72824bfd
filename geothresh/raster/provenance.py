"""Read the tags that geothresh writes into its rasters about how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import InputError
from geothresh.raster.dataset import open_dataset
from geothresh.raster.paths import RasterSource, find_raster


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The model that made a raster; a field is empty if its tag is missing."""

    model: str
    """Name of the model."""
    sha256: str
    """Digest of the model file, hexadecimal."""
    theme: str
    """Name of the foreground, such as "road"."""

    @classmethod
    def of(cls, source: RasterSource) -> Provenance:
        """Read the tags of a raster.

        Raises:
            InputError: the raster cannot be opened.
        """
        with open_dataset(source) as dataset:
            tags = dataset.tags()
        model, sha256, theme = (
            tags.get(f"GEOTHRESH_{name}", "") for name in ("MODEL", "MODEL_SHA256", "THEME")
        )
        return cls(model=model, sha256=sha256, theme="" if theme == "none" else theme)


def unit_of(path: Path) -> str | None:
    """The id in a raster's tags of the unit of a run over many files that made it, or None.

    None also if there is no readable raster. A raster with this tag is complete: it gets its name
    only then.
    """
    try:
        with open_dataset(find_raster(path)) as dataset:
            return str(dataset.tags().get("GEOTHRESH_UNIT", "")) or None
    except InputError:
        return None
