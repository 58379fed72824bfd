"""The paper's tables as data: their networks, what is trained for each row, and its figures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

Paper = dict[str, tuple[float | None, ...]]
"""mIoU, mBA and MAE in the paper by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A base network of a table, and the paper's rows of it."""

    name: str
    paper: Paper = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A ThreshNet that is trained."""

    row: str
    arguments: tuple[str, ...]
    """Of `geothresh train`."""
    patch: int | None = None
    """Side of its patch, where that is what varies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the paper."""

    title: str
    data: str
    """Name of the paper's data."""
    networks: tuple[Network, ...]
    variants: tuple[Variant, ...]
    rivals: bool = True


RECIPES = (
    Variant(row="ThreshNet, recipe paper", arguments=("--recipe", "paper")),
    Variant(row="ThreshNet, recipe best", arguments=("--recipe", "best")),
)


def _rows(base: tuple, refined: tuple, crf: tuple = (), cascade: tuple = ()) -> Paper:
    return {
        "base": base, "DenseCRF": crf, "CascadePSP": cascade, RECIPES[0].row: refined,
        RECIPES[1].row: refined,
    }  # fmt: skip


def _paper(row: str, *arguments: str) -> Variant:
    return Variant(row=row, arguments=("--recipe", "paper", *arguments))


DLINKNET = (60.1, 49.8)
TABLES = {
    "1": Table(
        title="Roads", data="DeepGlobe", variants=RECIPES,
        networks=(
            Network(name="fcn8s", paper=_rows((48.6, 31.7), (54.1, 42.3), (50.9, 34.9))),
            Network(name="unet", paper=_rows((55.8, 37.6), (60.9, 47.4), (57.6, 40.5), (59.8,))),
            Network(name="deeplabv3plus", paper=_rows((59.2, 47.6), (61.9, 55.9), (59.9, 49.3))),
            Network(name="pspnet", paper=_rows((59.8, 48.2), (62.4, 56.6), (60.3, 49.7))),
            Network(name="dlinknet", paper=_rows(DLINKNET, (63.2, 56.6), (60.8, 51.4))),
        ),
    ),
    "2": Table(
        title="Polyps", data="Kvasir-SEG", variants=RECIPES,
        networks=(
            Network(name="unet", paper=_rows((41.5, 38.8), (47.8, 46.3))),
            Network(name="resunet", paper=_rows((46.8, 45.7), (52.9, 52.5))),
            Network(name="resunetpp", paper=_rows((55.9, 56.8), (61.7, 62.9))),
        ),
    ),
    "3": Table(
        title="Saliency", data="DUTS", variants=RECIPES,
        networks=(
            Network(name="rfcn", paper=_rows((52.8, 40.7, 0.0897), (57.1, 48.5, 0.0807))),
            Network(name="pfan", paper=_rows((66.1, 51.2, 0.0452), (69.9, 58.6, 0.0386))),
        ),
    ),
    "4": Table(
        title="Branches", data="DeepGlobe", rivals=False,
        variants=(
            _paper("global only", "--branches", "global"),
            _paper("local only", "--branches", "local"), _paper("both"),
        ),
        networks=(
            Network(name="dlinknet", paper={
                "base": DLINKNET, "global only": (60.5, 52.3), "local only": (62.3, 56.1),
                "both": (63.2, 56.6),
            }),
        ),
    ),
    "5": Table(
        title="Losses", data="DeepGlobe", rivals=False,
        variants=(
            _paper("L_reg only", "--region-weight", "0"),
            _paper("L_rs only", "--region-weight", "1"), _paper("both"),
        ),
        networks=(
            Network(name="dlinknet", paper={
                "base": DLINKNET, "L_reg only": (60.8, 52.8), "L_rs only": (62.6, 57.2),
                "both": (63.2, 56.6),
            }),
        ),
    ),
    "6": Table(
        title="Parts of the region-specific loss", data="DeepGlobe", rivals=False,
        variants=(
            _paper("focal only", "--boundary-weight", "0"),
            _paper("boundary only", "--focal-weight", "0"), _paper("both"),
        ),
        networks=(
            Network(name="dlinknet", paper={
                "base": DLINKNET, "focal only": (62.8, 51.9), "boundary only": (61.0, 55.4),
                "both": (63.2, 56.6),
            }),
        ),
    ),
    "figure5": Table(
        title="Patch sizes", data="DeepGlobe", rivals=False,
        variants=tuple(
            replace(_paper(f"P = {p}", "--patch", str(p)), patch=p) for p in (256, 128, 64, 32, 16)
        ),
        networks=(Network(name="dlinknet", paper={"base": DLINKNET, "P = 64": (63.2, 56.6)}),),
    ),
}  # fmt: skip
MEMORY = {"ThreshNet": "1.03 GB", "CascadePSP": "3.16 GB"}
"""GPU memory in the paper, of one map of 512 x 512."""
