"""Read the tags in which a raster of geothresh says how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import InputError
from geothresh.raster.dataset import open_dataset
from geothresh.raster.paths import RasterSource, find_raster


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The model that made a raster; fields are empty where tags are missing."""

    model: str
    """Its name."""
    sha256: str
    """Digest of its file, hexadecimal."""
    theme: str
    """What its foreground is, in words."""

    @classmethod
    def of(cls, source: RasterSource) -> Provenance:
        """Read the tags of a raster.

        Raises:
            InputError: it cannot be opened.
        """
        with open_dataset(source) as dataset:
            tags = dataset.tags()
        model, sha256, theme = (
            tags.get(f"GEOTHRESH_{name}", "") for name in ("MODEL", "MODEL_SHA256", "THEME")
        )
        return cls(model=model, sha256=sha256, theme="" if theme == "none" else theme)


def unit_of(path: Path) -> str | None:
    """The unit of a run over many files that made a raster, from its tags; None if there is none.

    Such a raster is complete: it is renamed to its name only then.
    """
    try:
        with open_dataset(find_raster(path)) as dataset:
            return str(dataset.tags().get("GEOTHRESH_UNIT", "")) or None
    except InputError:
        return None
