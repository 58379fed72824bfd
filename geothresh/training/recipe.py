"""How a ThreshNet is trained: every number that the command line offers, with its default."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from geothresh.errors import UsageError
from geothresh.nn.losses import LossWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters; the defaults are section 4.2 of the paper."""

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
    balance: bool = False
    """Draw every data set equally often instead of every map once an epoch."""
    mix: float = 0.0
    """Share of chips whose map is a random mean, in logits, of several base networks' maps."""
    jitter: float = 0.0
    """Spread of a random bias and log temperature of the input's logit, per chip."""
    regional_jitter: float = 0.0
    """Spread of a random bias of the input's logit that varies smoothly over the chip: what a
    threshold of its own per region is to undo."""
    zoom: float = 1.0
    """Half of the chips are enlarged or reduced by a factor between 1 / zoom and zoom."""
    weight_decay: float = 0.0
    """Decoupled from the gradient, as in AdamW; 0 is plain Adam."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
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
            if value <= 0:
                raise UsageError(f"{name} is {value}; it must be above 0")
        shares = {
            "EMA decay": self.ema,
            "mix": self.mix,
            "region weight": self.loss.region,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}; it must lie between 0 and 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain types, fit for JSON."""
        return asdict(self)
