"""Define the hyperparameters of ThreshNet, and the named recipes.

Torch is not imported here, as the command line shows these numbers in its help.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from geothresh.errors import UsageError
from geothresh.fields import (
    AMOUNT,
    COUNT,
    FLAG,
    SEED,
    SHARE,
    Choice,
    Number,
    Options,
    known,
    option,
)
from geothresh.nn.config import Branches, Head, LossWeights

_ABOVE_0 = Number(least=0, above=True)
_BELOW_1 = Number(least=0, most=1, below=True)
_WHOLE = Number(whole=True, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Options):
    """Hyperparameters; the defaults are section 4.2 of the paper."""

    name: str = ""
    """Name of the recipe from which these numbers come; empty = none."""
    head: Head = option(
        "confidence",
        "Predict the confidence (the paper), or a correction to the logit of the input.",
        Choice(get_args(Head)),
    )
    """See `geothresh.nn.config.NetworkConfig`."""
    branches: Branches = option(
        "both",
        "Decoders of the network: the paper's two, or one alone.",
        Choice(get_args(Branches)),
    )
    epochs: int = option(300, "Greatest number of epochs.", COUNT)
    chips_per_epoch: int | None = option(
        None,
        "Chips (random squares) in an epoch; 0 is as many as there are maps.",
        _WHOLE,
    )
    """0 or None = as many as there are maps."""
    chip_size: int = option(
        512,
        "Side of a chip in pixels, a multiple of the patch; smaller maps are padded by mirroring.",
        COUNT,
    )
    batch_size: int = option(4, "Chips in a step.", COUNT)
    learning_rate: float = option(
        8e-4, "Learning rate of Adam: the first, or the highest.", _ABOVE_0
    )
    min_learning_rate: float = option(5e-8, "Lowest learning rate.", AMOUNT)
    schedule: Literal["plateau", "cosine"] = option(
        "plateau",
        "Reduce the learning rate when the training loss stalls (plateau), or along half a cosine "
        "over all epochs (cosine).",
        Choice(("plateau", "cosine")),
    )
    """plateau: a tenth after `patience` epochs without a lower training loss; cosine: a linear
    warm-up over a twentieth of the steps, then half a cosine down to the least rate."""
    patience: int = option(
        5, "Epochs without a lower training loss before the rate is reduced.", _WHOLE
    )
    stop_patience: int = option(
        10, "Epochs without a lower training loss before training ends (plateau only).", COUNT
    )
    ema: float = option(
        0.0,
        "Decay of the moving average of the weights that becomes the model; 0 keeps the weights.",
        _BELOW_1,
    )
    """The decay is per step."""
    loss: LossWeights = field(default_factory=LossWeights)
    balance: float = option(
        0.0,
        "Balance of several DATA: 0 takes every map once an epoch, 1 draws every DATA equally "
        "often, 0.5 draws by the square root of the number of maps.",
        SHARE,
    )
    """One of n maps is drawn with weight n ** (1 - balance)."""
    mix: float = option(0.0, "Share of chips that mix the maps of several base networks.", SHARE)
    """Such a chip has a random weighted mean of the maps' logits."""
    jitter: float = option(
        0.0, "Spread of a random bias and temperature of each chip's logits.", AMOUNT
    )
    """Standard deviation of the bias, and twice that of the logarithm of the temperature."""
    regional_jitter: float = option(
        0.0, "Spread of a random bias of the logits that varies smoothly over the chip.", AMOUNT
    )
    """Region-specific thresholds undo such a bias."""
    zoom: float = option(
        1.0, "Enlarge or reduce half of the chips by up to this factor.", Number(least=1)
    )
    degrade: float = option(
        0.0,
        "Share of chips whose map is degraded: blur, gaps, false roads, displaced outlines.",
        SHARE,
    )
    """The defects are those of base networks, see `geothresh.training.degradation`."""
    synthesise: float = option(0.0, "Share of chips whose map is made from the mask alone.", SHARE)
    """All other chips may be degraded."""
    dropout: float = option(
        0.0,
        "Dropout: probability that a channel of the bottleneck is set to 0.",
        _BELOW_1,
    )
    smooth: bool = option(
        False,
        "Smooth the logits of each map by 1 2 1 along both axes first. `refine` then does so too.",
        FLAG,
    )
    """This is also on if the initial model reads smoothed maps."""
    weight_decay: float = option(0.0, "Weight decay of AdamW; 0 is Adam.", AMOUNT)
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Number format of the convolutions; heads and losses stay fp32.",
        Choice(("auto", "fp32", "bf16")),
    )
    seed: int = option(0, "Seed of all random numbers.", SEED)

    def require_whole_patches(self, patch: int) -> None:
        """Check that chips hold whole patches, of this side in pixels.

        Raises:
            UsageError: they do not.
        """
        if self.chip_size % patch:
            raise UsageError(
                f"`chip_size` {self.chip_size} is no multiple of the patch {patch}, which keeps "
                "its grid inside every chip"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
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
"""``paper`` is section 4.2; ``best`` measures better, and the packaged models were trained with it;
``tune`` is shorter, with a lower rate, to fine-tune a model on a few labelled maps."""

DEFAULT_RECIPE = "best"


def usual_recipe(init: object) -> str:
    """Name of the default recipe; `init` is the initial model, or None."""
    return DEFAULT_RECIPE if init is None else "tune"


def recipe_of(name: str, **changes: Any) -> Recipe:
    """Make a named recipe with some of its numbers changed.

    Args:
        name: ``paper``, ``best`` or ``tune``.
        **changes: fields of `Recipe` and of its `LossWeights`; None keeps the recipe's value, and
            ``chips_per_epoch=0`` means as many as there are maps.

    Raises:
        UsageError: there is no such recipe, or a number is out of range.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r} is unknown; there are {', '.join(RECIPES)}")
    given = {key: value for key, value in changes.items() if value is not None}
    if given.get("chips_per_epoch") == 0:
        given["chips_per_epoch"] = None
    weights = {part: given.pop(part) for part in known(LossWeights) if part in given}
    recipe = RECIPES[name]
    return replace(recipe, loss=replace(recipe.loss, **weights), **given)
