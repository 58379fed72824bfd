"""Read the initial model of a training, and take entries for the new model's card from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.errors import names, warn
from geothresh.nn.modelfile import beside, digest, naming, read_card
from geothresh.nn.scope import ENTRY, GroundSampleDistance, ModelScope
from geothresh.splitting import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The initial model of a training."""

    path: Path
    training: Mapping[str, Any]
    """Entry ``training`` of its card."""

    @classmethod
    def of(cls, path: Path) -> Start:
        """Read the card of a model file.

        Raises:
            ModelError: the file cannot be used.
        """
        return cls(path=path, training=read_card(path).training)

    @property
    def name(self) -> str:
        """Stem of its file."""
        return self.path.stem

    @property
    def scope(self) -> ModelScope:
        """Theme and pixel sizes of the model; ModelError if an entry of its card is invalid."""
        with naming(self.path):
            return ModelScope.of_card(self.training)

    def facts(self, seen: GroundSampleDistance | None) -> dict[str, Any]:
        """Entries for the card of the new model.

        Args:
            seen: sizes of the pixels of the training data; None = unknown, so that pixel sizes and
                foreground widths of the initial model are taken over, with a warning.

        Raises:
            ModelError: an entry of the card is invalid.
        """
        scope = self.scope
        facts: dict[str, Any] = {"init": {"name": self.name, "sha256": digest(self.path)}}
        if scope.theme:
            facts["theme"] = scope.theme
        pixels = scope.pixels
        if pixels is None:
            return facts
        if seen is None:
            warn(
                "the data does not tell the size of its pixels on the ground, and it is taken for "
                f"that of {self.name}, {pixels.text}; say otherwise with `ground_sample_distance`"
            )
            facts[ENTRY] = [pixels.least, pixels.greatest]
            if scope.widths is not None:
                facts["widths"] = [scope.widths.least, scope.widths.greatest]
        elif pixels.differs(seen.least) or pixels.differs(seen.greatest):
            warn(
                f"pixels of {seen.text} are unlike those of {pixels.text} that {self.name} was "
                "trained on, and are read as they are; `refine` would bring them to these: so does "
                f"`resolution={pixels.least if seen.least < pixels.least else pixels.greatest:g}`"
            )
        return facts

    def warn_of_seen(self, held: Iterable[str]) -> None:
        """Warn if the initial model was trained on held-out ids, by the manifest beside it.

        Raises:
            InputError: the manifest exists but cannot be read.
        """
        manifest = beside(self.path, ".split.json")
        if not manifest.exists():
            return
        held = set(held)
        seen = held & set(Split.load(manifest).train)
        if seen:
            warn(
                f"{self.name} was trained on {len(seen)} of {len(held)} held-out ids itself "
                f"({names(seen, 3)}), by {manifest.name}; there is little to gain on them, and "
                "that tells nothing of others: hold out ids that it has not seen"
            )
