"""Sizes of a ThreshNet, the presets, and the weights of its loss.

torch is not imported: reading a model card must stay cheap, and the command line shows these
numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from geothresh.errors import ModelError
from geothresh.fields import AMOUNT, SHARE, Options, option

Head = Literal["confidence", "correction"]
Branches = Literal["both", "global", "local"]

LEVELS = 4
PATCHES = (16, 32, 64, 128, 256)
"""Sides of a patch, in pixels of the tile."""
#: The paper's network has at most 6 blocks in a level, and 4 grids of up to 8 cells a side. A model
#: file with far more may be made to exhaust memory.
_MOST_WIDTH, _MOST_BLOCKS, _MOST_GRIDS, _MOST_CELLS = 4096, 64, 8, 64

#: Confidences are clipped this far from 0 and 1 before their logit is taken. It is a quarter of a
#: grey level of an 8-bit map, so that 0 and 1 stay distinct from 1/255 and 254/255.
LOGIT_MARGIN = 1 / 1020


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Sizes of a ThreshNet; stored in its model file, so that the file is enough to rebuild it."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the four encoder levels."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks of the four encoder levels (ResNet-34: 3, 4, 6, 3)."""
    pool_sizes: tuple[int, ...] = (1, 2, 4, 8)
    """Grid sizes of the pyramid pooling at the bottleneck."""
    patch: int = 64
    """Side P of a patch, one of `PATCHES`."""
    shuffle: int = 1
    """Space-to-depth factor: level one works at 1/shuffle of the tile's resolution."""
    head: Head = "confidence"
    """What the heads predict: the logit of the confidence (the paper), or a correction that is
    added to the logit of the input and is zero before training."""
    branches: Branches = "both"
    """Decoders: both, whose outputs are averaged (the paper), or only one, for ablations."""

    def __post_init__(self) -> None:
        if len(self.widths) != LEVELS or len(self.blocks) != LEVELS:
            raise ModelError(
                f"network has {len(self.widths)} widths and {len(self.blocks)} block counts; "
                f"{LEVELS} of each are needed"
            )
        if len(self.pool_sizes) > _MOST_GRIDS:
            raise ModelError(f"{len(self.pool_sizes)} pool sizes; at most {_MOST_GRIDS} make sense")
        for name, sizes, most in (
            ("widths", self.widths, _MOST_WIDTH),
            ("blocks", self.blocks, _MOST_BLOCKS),
            ("pool sizes", self.pool_sizes, _MOST_CELLS),
            ("shuffle", (self.shuffle,), _MOST_CELLS),
        ):
            if not all(1 <= n <= most for n in sizes):
                raise ModelError(f"{name} {sizes} must lie between 1 and {most}")
        if self.patch not in PATCHES:
            raise ModelError(
                f"patch is {self.patch}; it must be one of {', '.join(map(str, PATCHES))}"
            )
        if self.patch % self.multiple:
            raise ModelError(
                f"patch {self.patch} is no multiple of {self.multiple}, one pixel of the deepest "
                f"level at shuffle {self.shuffle}; take a larger patch or a smaller shuffle"
            )
        for name, value, known in (
            ("head", self.head, get_args(Head)),
            ("branches", self.branches, get_args(Branches)),
        ):
            if value not in known:
                raise ModelError(f"{name} is {value!r}; it must be one of {', '.join(known)}")

    @property
    def multiple(self) -> int:
        """Side, in pixels of the tile, of one pixel of the deepest level."""
        return int(self.shuffle * 2 ** (LEVELS - 1))

    def as_dict(self) -> dict[str, Any]:
        """Give the sizes as JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Rebuild from `as_dict`; raises ModelError on unknown or missing entries."""
        names = {f.name for f in fields(cls)}
        # The first model files lack this entry, and have both branches.
        values = {"branches": "both", **values}
        if set(values) != names:
            raise ModelError(
                f"network configuration has entries {sorted(values)}; expected {sorted(names)}"
            )
        numbers: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        for name, value in numbers.items():
            if name in ("head", "branches"):
                continue
            several = name in ("widths", "blocks", "pool_sizes")
            entries = value if several and isinstance(value, tuple) else (value,)
            if several != isinstance(value, tuple) or not all(type(n) is int for n in entries):
                wanted = "a list of whole numbers" if several else "a whole number"
                raise ModelError(f"network configuration: {name} is {value!r}, not {wanted}")
        return cls(**numbers)


#: ``full`` is the paper's network. ``small`` has its first level at a quarter of the resolution and
#: a twenty-eighth of the operations: on a CPU, layers of few channels at full resolution are bound
#: by memory. A pixel of its deepest level is 32 pixels wide, so P is at least 32.
PRESETS: dict[str, NetworkConfig] = {
    "full": NetworkConfig(),
    "small": NetworkConfig(widths=(32, 64, 96, 128), blocks=(2, 2, 2, 2), shuffle=4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights(Options):
    """Weights of the terms of the loss; the defaults are those of the paper."""

    region: float = option(
        0.7,
        "The paper's a: weight of the loss against the region-thresholded target; 1 - a goes to "
        "the ground truth.",
        SHARE,
        flags=("--region-weight",),
    )
    focal: float = option(1.0, "Weight of the focal loss.", AMOUNT, flags=("--focal-weight",))
    boundary: float = option(
        1.0, "Weight of the boundary loss.", AMOUNT, flags=("--boundary-weight",)
    )
    overlap: float = option(
        0.0,
        "Soft IoU against the ground truth, per chip (not in the paper).",
        AMOUNT,
        flags=("--overlap-weight",),
    )
    centerline: float = option(
        0.0,
        "Soft centreline Dice (clDice) against the ground truth, per chip (not in the paper).",
        AMOUNT,
        flags=("--centerline-weight",),
    )
    harm: float = option(
        0.0,
        "IoU that a chip loses against the cut of its input at 0.5, if it loses (not in the "
        "paper): fewer maps get worse, and the mean gains a little less.",
        AMOUNT,
        flags=("--harm-weight",),
    )
