"""How a ThreshNet is trained: every number that the command line offers, and the named recipes.

No torch here: the command line shows these numbers in its help.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from geothresh.errors import UsageError
from geothresh.nn.config import Branches, Head, LossWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters; the defaults are section 4.2 of the paper."""

    name: str = ""
    """The named recipe that these numbers started from; empty = none."""
    head: Head = "confidence"
    """What the network predicts, see `geothresh.nn.config.NetworkConfig`."""
    branches: Branches = "both"
    """Which decoders the network has."""
    epochs: int = 300
    """At most."""
    chips_per_epoch: int | None = None
    """Training samples that make an epoch; None = as many as there are maps."""
    chip_size: int = 512
    """Side of a chip in pixels, a multiple of the patch; smaller maps are mirrored outwards."""
    batch_size: int = 4
    learning_rate: float = 8e-4
    min_learning_rate: float = 5e-8
    schedule: Literal["plateau", "cosine"] = "plateau"
    """plateau: a tenth after `patience` epochs without a lower training loss; cosine: a linear
    warm-up over a twentieth of the steps, then half a cosine down to the least rate."""
    patience: int = 5
    """Epochs without a lower training loss before the rate is reduced."""
    stop_patience: int = 10
    """Epochs without a lower training loss before training ends (plateau only)."""
    ema: float = 0.0
    """Decay per step of the moving average of the weights that is kept as the model; 0 = off."""
    loss: LossWeights = field(default_factory=LossWeights)
    balance: float = 0.0
    """How far small data sets catch up: one of n maps is drawn with weight n ** (1 - balance).
    0 takes every map once an epoch, 1 draws all data sets equally often."""
    mix: float = 0.0
    """Share of chips whose map is a random mean, in logits, of several base networks' maps."""
    jitter: float = 0.0
    """Spread of a random bias and log temperature of the input's logit, per chip."""
    regional_jitter: float = 0.0
    """Spread of a random bias of the input's logit that varies smoothly over the chip: what a
    threshold of its own per region is to undo."""
    zoom: float = 1.0
    """Half of the chips are enlarged or reduced by a factor between 1 / zoom and zoom."""
    degrade: float = 0.0
    """Share of chips whose map is made worse, as base networks do; see
    `geothresh.training.degradation`."""
    synthesise: float = 0.0
    """Share of chips whose map is made from the mask alone; the others may be degraded."""
    dropout: float = 0.0
    """Probability that a channel of the network's bottleneck is left out of a chip."""
    weight_decay: float = 0.0
    """Decoupled from the gradient, as in AdamW; 0 is plain Adam."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        # Written so that NaN, of which no comparison holds, passes nowhere.
        positive = {
            "epochs": self.epochs,
            "chip size": self.chip_size,
            "batch size": self.batch_size,
            "learning rate": self.learning_rate,
            "chips per epoch": 1 if self.chips_per_epoch is None else self.chips_per_epoch,
            "stop patience": self.stop_patience,
            "zoom": self.zoom,
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}; it must be above 0{_finite(value)}")
        others = {
            "least learning rate": self.min_learning_rate,
            "jitter": self.jitter,
            "regional jitter": self.regional_jitter,
            "weight decay": self.weight_decay,
            "focal weight": self.loss.focal,
            "boundary weight": self.loss.boundary,
            "overlap weight": self.loss.overlap,
            "centerline weight": self.loss.centerline,
        }
        for name, value in others.items():
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} is {value}; it must be at least 0{_finite(value)}")
        shares = {
            "EMA decay": self.ema,
            "balance": self.balance,
            "mix": self.mix,
            "dropout": self.dropout,
            "degrade": self.degrade,
            "synthesise": self.synthesise,
            "region weight": self.loss.region,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}; it must lie between 0 and 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain types, fit for JSON."""
        return asdict(self)


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(name="paper"),
    "best": Recipe(
        name="best",
        head="correction",
        epochs=11,
        chips_per_epoch=3200,
        chip_size=320,
        batch_size=8,
        schedule="cosine",
        loss=LossWeights(overlap=1.0, centerline=0.5),
        mix=0.5,
        jitter=0.5,
        zoom=1.6,
    ),
}
RECIPES["tune"] = replace(
    RECIPES["best"], name="tune", epochs=8, chips_per_epoch=320, learning_rate=4e-4
)
"""``paper`` is section 4.2; ``best`` is what measures better, and how the packaged model came
about; ``tune`` is as long and as gentle as a few labelled maps are worth, from a trained model."""

DEFAULT_RECIPE = "best"

VALIDATION_FRACTION = 0.15
"""Share of places that is validated on unless something else is said."""


def usual_recipe(init: object) -> str:
    """The recipe's name where none is asked for; `init` is the model to start from, or None."""
    return DEFAULT_RECIPE if init is None else "tune"


def _finite(value: float) -> str:
    return "" if math.isfinite(value) else " and finite"


def recipe_of(name: str, **changes: Any) -> Recipe:
    """A named recipe with some of its numbers changed.

    Args:
        name: ``paper``, ``best`` or ``tune``.
        **changes: fields of `Recipe`, or ``region_weight``, ``focal_weight`` and so on for those
            of its `LossWeights`; None keeps the recipe's, and 0 chips per epoch are as many as
            there are maps.

    Raises:
        UsageError: there is no such recipe, or a number makes no sense.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r} is unknown; there are {', '.join(RECIPES)}")
    given = {key: value for key, value in changes.items() if value is not None}
    if given.get("chips_per_epoch") == 0:
        given["chips_per_epoch"] = None
    parts = {part.name for part in fields(LossWeights)}
    weights = {part: given.pop(f"{part}_weight") for part in parts if f"{part}_weight" in given}
    recipe = RECIPES[name]
    return replace(recipe, loss=replace(recipe.loss, **weights), **given)
