"""Join edges end to end into chains, without a Python loop over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geothresh.types import BoolArray, Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Every edge is in one chain, once."""

    halves: Int64Array
    """(m,) chain after chain, in order: 2 e where edge e runs from its first end to its second,
    2 e + 1 where it runs back."""
    starts: Int64Array
    """(n + 1,) where each chain starts in `halves`; the last entry is m."""


def chain(ends: Int64Array, through: BoolArray) -> Chains:
    """Put edges end to end at all vertices that are only passed through.

    Args:
        ends: (m, 2) the two vertices of each edge, as numbers from 0.
        through: (n,) True = exactly two ends meet at the vertex, and a chain goes on there.

    Returns:
        The chains. One that goes through nothing else starts and ends at its least vertex. The
        direction is that in which the least of the two half-edges at its ends comes first.
    """
    tails = ends.ravel()
    n_halves = tails.size
    # The two half-edges that leave a vertex which is passed: one is come by, the other left by.
    leaving = np.flatnonzero(through[tails])
    leaving = leaving[np.argsort(tails[leaving], kind="stable")]
    one, two = leaving[::2], leaving[1::2]
    before = np.full(n_halves, -1, np.int64)
    before[two], before[one] = one ^ 1, two ^ 1

    # Each half-edge learns its chain's first and its distance from it, twice as far in each round.
    first = np.where(before >= 0, before, np.arange(n_halves))
    distance = (before >= 0).astype(np.int64)
    for _ in range(n_halves.bit_length()):
        if (before[first] < 0).all():
            break
        distance += distance[first]
        first = first[first]
    circling = np.flatnonzero(before[first] >= 0)
    if circling.size:
        opened = through.copy()
        opened[_least_of_circles(tails, before, circling)] = False
        return chain(ends, opened)

    order = np.lexsort((distance, first))
    chain_starts = np.flatnonzero(distance[order] == 0)
    lengths = np.diff(np.append(chain_starts, n_halves))
    last = order[chain_starts + lengths - 1]
    # Every chain is there in both directions.
    kept = order[chain_starts] < (last ^ 1)
    return Chains(
        halves=order[np.repeat(kept, lengths)],
        starts=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
    )


def _least_of_circles(tails: Int64Array, before: Int64Array, circling: Int64Array) -> Int64Array:
    """The least vertex of each circle of half-edges."""
    least, far = tails.copy(), before
    for _ in range(circling.size.bit_length()):
        least[circling] = np.minimum(least[circling], least[far[circling]])
        # Off the circles nothing is looked at.
        far = np.where(far >= 0, far[far], -1)
    return np.unique(least[circling])
