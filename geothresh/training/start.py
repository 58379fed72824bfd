"""The model that training starts from: what its card tells, and what of it the new model takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.errors import GeothreshWarning, names
from geothresh.nn.modelfile import beside, digest, read_card
from geothresh.nn.scope import ENTRY, GroundSampleDistance, ModelScope
from geothresh.splitting import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A model file to start from."""

    path: Path
    training: Mapping[str, Any]
    """What its card says of its own training."""

    @classmethod
    def of(cls, path: Path) -> Start:
        """Read its card.

        Raises:
            ModelError: it cannot be used.
        """
        return cls(path=path, training=read_card(path).training)

    @property
    def name(self) -> str:
        """Stem of its file."""
        return self.path.stem

    @property
    def scope(self) -> ModelScope:
        """What it was trained on and for: ModelError where its card makes no sense."""
        return ModelScope.of_card(self.training)

    def facts(self, seen: GroundSampleDistance | None) -> dict[str, Any]:
        """What the card of the new model takes from it.

        Args:
            seen: sizes of the pixels that are trained on; None = not known: those of the start are
                taken, and it is said, with the widths of its foreground in pixels.

        Raises:
            ModelError: its card tells a scope that makes no sense.
        """
        scope = self.scope
        facts: dict[str, Any] = {"init": {"name": self.name, "sha256": digest(self.path)}}
        if scope.theme:
            facts["theme"] = scope.theme
        pixels = scope.pixels
        if pixels is None:
            return facts
        if seen is None:
            _warn(
                "the data does not tell the size of its pixels on the ground, and it is taken for "
                f"that of {self.name}, {pixels.text}; say otherwise with `ground_sample_distance`"
            )
            facts[ENTRY] = [pixels.least, pixels.greatest]
            if scope.widths is not None:
                facts["widths"] = [scope.widths.least, scope.widths.greatest]
        elif pixels.differs(seen.least) or pixels.differs(seen.greatest):
            _warn(
                f"pixels of {seen.text} are unlike those of {pixels.text} that {self.name} was "
                "trained on, and are read as they are; `refine` would bring them to these: so does "
                f"`resolution={pixels.least if seen.least < pixels.least else pixels.greatest:g}`"
            )
        return facts

    def warn_of_seen(self, held: Iterable[str]) -> None:
        """Warn of held-out ids that it was trained on itself, by the manifest beside it.

        Raises:
            InputError: there is a manifest, and it cannot be read.
        """
        manifest = beside(self.path, ".split.json")
        if not manifest.exists():
            return
        every = set(held)
        seen = every & set(Split.load(manifest).train)
        if seen:
            _warn(
                f"{self.name} was trained on {len(seen)} of {len(every)} held-out ids itself "
                f"({names(seen, 3)}), by {manifest.name}; there is little to gain on them, and "
                "that tells nothing of others: hold out ids that it has not seen"
            )


def _warn(text: str) -> None:
    warnings.warn(text, GeothreshWarning, stacklevel=4)
