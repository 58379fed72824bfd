"""Hold out blocks of scenes to validate on, and keep chips off them wherever scenes overlap.

A scene is cut into blocks of whole bins, some of which are held out. Scenes may show the same
ground: maps by several base networks, or overlapping tiles. Scenes on the same pixels share their
blocks; a block that is held out in one scene is excluded from all others that overlap it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geothresh.errors import InputError, UsageError
from geothresh.raster.georeference import Georeference
from geothresh.splitting import Split, read_manifest
from geothresh.training.data import TILE
from geothresh.training.options import BIN
from geothresh.training.scenes import Survey
from geothresh.types import BoolArray
from geothresh.windows import PixelWindow, RasterSize

FINE = 256
"""Side of the blocks in pixels if the area to validate on is given."""

_BLOCK = 2048
_N_BLOCKS = 12

Place = tuple[int, str]
"""A block: the number of its ground, and its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """A scene, or a block of it, cut into parts of nearly equal size along whole bins."""

    rows: tuple[int, ...]
    """Row edges; for a scene the first is 0, and the last the height."""
    cols: tuple[int, ...]
    """Column edges; for a scene the first is 0, and the last the width."""

    @classmethod
    def of(cls, size: RasterSize, side: int) -> BlockGrid:
        """Cut a scene into blocks of about `side` pixels."""
        return cls(
            rows=edges(0, size.height, max(1, round(size.height / side))),
            cols=edges(0, size.width, max(1, round(size.width / side))),
        )

    def blocks(self) -> dict[str, PixelWindow]:
        """Windows by name: ``r0c2`` is the third block of the first row."""
        return {
            f"r{r}c{c}": PixelWindow(row=top, col=left, height=bottom - top, width=right - left)
            for r, (top, bottom) in enumerate(pairwise(self.rows))
            for c, (left, right) in enumerate(pairwise(self.cols))
        }


def block_side(surveys: Iterable[Survey], least: int) -> int:
    """Default side of the blocks in pixels.

    2048, or less so that there are about twelve blocks of valid pixels, but at least `least`.
    """
    pixels = sum(int(scene.valid.sum()) for scene in surveys)
    return max(least, min(_BLOCK, math.isqrt(pixels // _N_BLOCKS)))


def edges(start: int, stop: int, n: int) -> tuple[int, ...]:
    """Cut a side into n nearly equal parts, or fewer, at multiples of `BIN`."""
    inner = {round((start + (stop - start) * k / n) / BIN) * BIN for k in range(1, n)}
    return (start, *sorted(edge for edge in inner if start < edge < stop), stop)


def tiles(block: PixelWindow) -> list[PixelWindow]:
    """Cut a block into nearly equal tiles along bins.

    A side has at most `TILE` pixels, or less than a bin more where edges are rounded to bins.
    """
    rows, cols = (
        edges(start, start + side, -(-side // TILE))
        for start, side in ((block.row, block.height), (block.col, block.width))
    )
    return list(BlockGrid(rows=rows, cols=cols).blocks().values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScene:
    """A scene, its blocks, and the names of those that are held out."""

    name: str
    box: Georeference
    mask: str | None
    """Path of its labels, if they are a raster: scenes that share it show the same ground."""
    survey: Survey
    blocks: BlockGrid
    held: frozenset[str] = frozenset()

    def pixels(self, *, foreground: bool = False) -> dict[str, int]:
        """Valid (or foreground) pixels for validation, in each block that has valid pixels."""
        survey = self.survey
        counts = survey.held_foreground if foreground else survey.held_valid
        spans = {n: survey.bins.span(window) for n, window in self.blocks.blocks().items()}
        return {
            name: int(counts[bins].sum())
            for name, bins in spans.items()
            if survey.held_valid[bins].any()
        }

    def held_windows(self) -> list[PixelWindow]:
        """The blocks that are held out."""
        return [window for name, window in self.blocks.blocks().items() if name in self.held]


def split_scenes(
    scenes: Sequence[SplitScene], *, fraction: float, seed: int
) -> tuple[frozenset[str], ...]:
    """Draw blocks to hold out, until they have a given share of the valid pixels.

    Args:
        scenes: scenes without held-out blocks.
        fraction: share of the valid pixels of all scenes, at least 0 and below 1.
        seed: seed of the random order.

    Returns:
        The names of the blocks to hold, scene by scene.

    Raises:
        UsageError: fewer than two blocks have valid pixels.
        InputError: fewer than two blocks have foreground.
    """
    grounds, pixels, foreground = _counted(scenes)
    places = sorted(pixels)
    if len(places) < 2:
        raise UsageError(
            f"{len(places)} block of the scenes holds anything that counts, and one is to be "
            "trained on and another validated on; lower `block_size`, or `chip_size`, on which its "
            "default depends, give a larger scene, or name what to validate on with "
            "`validation_aoi`"
        )
    order = _shuffled(places, seed)
    with_foreground = [place for place in order if foreground[place]]
    if len(with_foreground) < 2:
        raise InputError(
            f"the labels lie in {len(with_foreground)} of {len(places)} blocks; two are needed, to "
            "train on and to validate on: lower `block_size` or give more labels"
        )
    # To have foreground on both sides, the first such block is held out, the last is trained on.
    first, last = with_foreground[0], with_foreground[-1]
    order = [first, *(place for place in order if place not in (first, last)), last]
    held, wanted = [first], fraction * sum(pixels.values())
    for place in order[1:-1]:
        # A block is taken if the share is nearer to the wanted share with it than without it.
        if sum(pixels[p] for p in held) + pixels[place] / 2 <= wanted:
            held.append(place)
    return _by_scene(held, grounds)


def fold_scenes(
    scenes: Sequence[SplitScene], *, folds: int, seed: int
) -> list[tuple[frozenset[str], ...]]:
    """Divide the blocks into folds, with foreground in each.

    Args:
        scenes: scenes without held-out blocks.
        folds: at least 2.
        seed: seed of the random order.

    Returns:
        For each fold the names of the blocks to hold, scene by scene. Each block with valid pixels
        is held out in one fold.

    Raises:
        UsageError: fewer blocks than folds have foreground.
    """
    grounds, pixels, foreground = _counted(scenes)
    order = _shuffled(sorted(pixels), seed)
    n = sum(foreground[place] > 0 for place in order)
    if n < folds:
        raise UsageError(
            f"{folds} folds, and the labels lie in {n} of {len(order)} blocks; give fewer "
            "`folds`, or lower `block_size`"
        )
    # Blocks with foreground go first, so that each fold gets one; each to the fold with the least.
    order.sort(key=lambda place: foreground[place] == 0)
    dealt: list[list[Place]] = [[] for _ in range(folds)]
    sums = [(0, 0)] * folds
    for place in order:
        least = min(range(folds), key=lambda f: sums[f])
        dealt[least].append(place)
        marked, valid = sums[least]
        sums[least] = (marked + (foreground[place] > 0), valid + pixels[place])
    return [_by_scene(held, grounds) for held in dealt]


def _shuffled(places: Sequence[Place], seed: int) -> list[Place]:
    return [places[k] for k in np.random.default_rng([seed, 2]).permutation(len(places))]


def _by_scene(held: Sequence[Place], grounds: Sequence[int]) -> tuple[frozenset[str], ...]:
    """The names of the blocks that are held out of each scene."""
    return tuple(frozenset(name for g, name in held if g == ground) for ground in grounds)


def follow_split(scenes: Sequence[SplitScene], path: Path) -> list[SplitScene]:
    """Give the scenes the blocks of a manifest that `save_split` wrote.

    Raises:
        InputError: the manifest is unreadable, or of other scenes.
    """
    sides = Split.load(path)
    try:
        entries = read_manifest(path)["scenes"]
        grids = {
            str(name): BlockGrid(
                rows=tuple(map(int, entry["rows"])), cols=tuple(map(int, entry["cols"]))
            )
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: not the split of a training on scenes ({error!r}); give one that `geothresh "
            "train` wrote for these"
        ) from error
    followed = []
    for scene in scenes:
        grid = grids.get(scene.name)
        if grid is None or not _fits(grid, scene):
            raise InputError(
                f"{path}: says nothing of {scene.name} with {scene.box.size.width} x "
                f"{scene.box.size.height} pixels; give the split of these scenes"
            )
        names = grid.blocks()
        held = frozenset(name for name in names if f"{scene.name}/{name}" in sides.validation)
        followed.append(replace(scene, blocks=grid, held=held))
    return followed


def save_split(
    scenes: Sequence[SplitScene],
    trained: Mapping[str, Sequence[str]],
    folds: Sequence[Sequence[SplitScene]] = (),
) -> str:
    """Make the text of the manifest: names of the blocks on both sides, and the grids of blocks.

    Args:
        scenes: the scenes with their held-out blocks.
        trained: names of the training blocks, by scene.
        folds: the scenes with the blocks that each fold holds out.
    """
    lists: dict[str, Any] = {
        "train": sorted(f"{scene}/{name}" for scene, names in trained.items() for name in names),
        "validation": _held(scenes),
    }
    if folds:
        lists["folds"] = [_held(fold) for fold in folds]
    lists["scenes"] = {
        scene.name: {"rows": list(scene.blocks.rows), "cols": list(scene.blocks.cols)}
        for scene in scenes
    }
    return json.dumps(lists, indent=1) + "\n"


def _held(scenes: Sequence[SplitScene]) -> list[str]:
    """Names of the held-out blocks, each with its scene."""
    named = ((scene.name, scene.pixels().keys() & scene.held) for scene in scenes)
    return sorted(f"{scene}/{name}" for scene, names in named for name in names)


def trained_blocks(scene: SplitScene, scenes: Sequence[SplitScene]) -> list[str]:
    """Names of the blocks of a scene that have valid pixels for training."""
    usable = (scene.survey.valid > 0) & ~forbidden_bins(scene, scenes)
    blocks = scene.blocks.blocks().items()
    return [name for name, window in blocks if usable[scene.survey.bins.span(window)].any()]


def forbidden_bins(scene: SplitScene, scenes: Sequence[SplitScene]) -> BoolArray:
    """(R, C) bins of a scene that no training chip may touch."""
    forbidden = np.zeros(scene.survey.valid.shape, np.bool_)
    for other in scenes:
        same = other is scene or same_ground(other, scene)
        for window in other.held_windows():
            covered = window if same else scene.box.window_over(other.box, window)
            if covered is not None:
                forbidden[scene.survey.bins.span(covered)] = True
    return forbidden


def same_ground(one: SplitScene, other: SplitScene) -> bool:
    """Whether two scenes are known to have the same pixel grid."""
    shared = one.mask is not None and one.mask == other.mask
    return shared or one.box.has_pixels_of(other.box)


def hold(scenes: Sequence[SplitScene], held: Sequence[frozenset[str]]) -> list[SplitScene]:
    """Hold these blocks out of the scenes."""
    return [replace(s, held=names) for s, names in zip(scenes, held, strict=True)]


class _Counted(NamedTuple):
    """Validation pixels of the blocks; scenes that show the same ground share their blocks."""

    grounds: list[int]
    """Number of the ground of each scene."""
    pixels: dict[Place, int]
    """Valid pixels of each block."""
    foreground: dict[Place, int]
    """Foreground pixels among them."""


def _counted(scenes: Sequence[SplitScene]) -> _Counted:
    counted = _Counted(_grounds(scenes), {}, {})
    for scene, ground in zip(scenes, counted.grounds, strict=True):
        of_scene = scene.pixels(), scene.pixels(foreground=True)
        for counts, of in zip((counted.pixels, counted.foreground), of_scene, strict=True):
            for name, count in of.items():
                counts[ground, name] = counts.get((ground, name), 0) + count
    return counted


def _grounds(scenes: Sequence[SplitScene]) -> list[int]:
    """For each scene, the number of the first scene on the same pixels of the ground."""
    return [
        next(k for k, first in enumerate(scenes) if first is scene or same_ground(first, scene))
        for scene in scenes
    ]


def _fits(grid: BlockGrid, scene: SplitScene) -> bool:
    size = scene.survey.size
    return all(
        len(edges) >= 2
        and edges[0] == 0
        and edges[-1] == length
        and all(a < b for a, b in pairwise(edges))
        for edges, length in ((grid.rows, size.height), (grid.cols, size.width))
    )
