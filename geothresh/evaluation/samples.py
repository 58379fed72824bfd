"""Read maps with their truth one by one, from folders of pairs or the cells of a raster."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from geothresh.errors import InputError, UsageError, names, number_of, warn
from geothresh.evaluation.scoring import Sample
from geothresh.options import Side
from geothresh.raster.mask import Mask
from geothresh.raster.pairs import Pair
from geothresh.raster.scene import Scene
from geothresh.splitting import ids_of, read_text
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

Refine = Callable[[Float32Array], Float32Array]
"""Function of a confidence map (H, W) in [0, 1] that gives the refined map."""

CELL = 512
"""Side in pixels of the cells of a raster: the paper's size, and a multiple of every patch."""


def pair_sample(pair: Pair, refine: Refine | None = None) -> Sample:
    """Read one pair, and refine it if a refiner is given.

    Raises:
        InputError: a file cannot be used, or the sizes differ.
    """
    confidence, truth = pair.read()
    refined = None if refine is None else refine(confidence)
    return Sample(id=pair.id, confidence=confidence, truth=truth, refined=refined)


def pair_samples(
    pairs: Iterable[Pair], refine: Refine | None = None, *, at_once: int = 1
) -> Iterator[Sample]:
    """Read and refine pairs in threads; samples come in the order of the pairs.

    Args:
        pairs: the pairs.
        refine: the refiner; None = maps are not refined.
        at_once: number of threads, and of samples that are prefetched.

    Raises:
        InputError: a file cannot be used, or the sizes differ.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="geothresh-samples") as pool:
        waiting: deque[Future[Sample]] = deque()
        for pair in pairs:
            waiting.append(pool.submit(pair_sample, pair, refine))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def by_source(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """Group pairs by data set and base network, with a name for each group."""
    ordered = sorted(pairs, key=lambda p: (p.dataset, p.source, p.id))
    several = len({pair.dataset for pair in pairs}) > 1
    return [
        (f"{dataset}/{source}" if several else source, list(group))
        for (dataset, source), group in groupby(ordered, key=lambda p: (p.dataset, p.source))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """Ids of the maps to evaluate."""

    ids: frozenset[str]
    origin: Path
    """The file that lists them."""
    listed: bool
    """True = one a line; False = a side of a split manifest, which may cover other data too."""


def read_ids(path: Path, side: Side | None = None) -> Ids:
    """Read ids from a file: one a line, or the split manifest that training writes.

    Args:
        path: path of the file; a manifest is JSON with the lists ``train`` and ``validation``.
        side: which list of a manifest; validation if left out.

    Raises:
        InputError: the file is unreadable, of neither form, or without ids.
        UsageError: a side is given, but the file has no sides.
    """
    wanted = side or "validation"
    try:
        text = read_text(path)
        is_manifest = text.lstrip().startswith("{")
        if is_manifest:
            found = ids_of(json.loads(text), wanted)
        else:
            found = [line.strip() for line in text.splitlines()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: neither one id a line nor a split manifest with a list {wanted} ({error!r})"
        ) from error
    ids = frozenset(i for i in found if i)
    if not ids:
        what = f"its list {wanted} is empty" if is_manifest else "0 ids in it; write one a line"
        raise InputError(f"{path}: {what}")
    if side is not None and not is_manifest:
        raise UsageError(
            f"{path}: lists {len(ids)} ids without sides, and `split` {side} is one; leave it out"
        )
    return Ids(ids=ids, origin=path, listed=not is_manifest)


def choose(pairs: Sequence[Pair], ids: Ids) -> list[Pair]:
    """Select the pairs with these ids, with a warning of listed ids that no pair has.

    Raises:
        InputError: no pair has one of the ids.
    """
    known = {pair.id for pair in pairs}
    lost = ids.ids - known
    if lost == ids.ids:
        raise InputError(
            f"{ids.origin}: none of its {number_of(len(lost), 'id')} ({names(lost, 2)}) is "
            f"among the {len(known)} of the data ({names(known, 2)})"
        )
    if lost and ids.listed:
        warn(
            f"{ids.origin}: {len(lost)} of its {len(ids.ids)} ids ({names(lost, 2)}) are not among "
            f"the {len(known)} of the data, and are left out"
        )
    return [pair for pair in pairs if pair.id in ids.ids]


def cells(size: RasterSize) -> RegularGrid:
    """The cells of a raster."""
    return RegularGrid(size=size, part_height=CELL, part_width=CELL)


def cell_samples(
    scene: Scene,
    labels: Mask,
    window: PixelWindow,
    refined: Float32Array | None = None,
) -> Iterable[Sample]:
    """Read the cells of a window of a raster; those without a valid pixel are left out.

    Args:
        scene: the confidences.
        labels: the truth, on the same grid.
        window: the window, of whole cells.
        refined: refined confidence of the window, in [0, 1].

    Raises:
        InputError: a block cannot be decoded or a value contradicts the scaling.
    """
    grid = cells(scene.size)
    for cell in map(grid.window, grid.touching(window)):
        confidence, known = scene.read(cell)
        truth, labelled = labels.read(cell)
        valid: BoolArray = known & labelled
        if not valid.any():
            continue
        yield Sample(
            id=f"row{cell.row}_col{cell.col}",
            confidence=np.where(valid, confidence, np.float32(0)),
            truth=truth,
            valid=valid,
            refined=None if refined is None else refined[cell.within(window)],
        )
