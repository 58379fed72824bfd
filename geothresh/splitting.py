"""Split ids by place into training and validation, or into folds, and store splits in manifests.

Ids of one place stay together. Ids are of one place if a pattern gives the same place for them, or
if they share a mark, such as the digest of their mask.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geothresh.errors import InputError, UsageError, names, number_of
from geothresh.files import require_file, write_text

#: Largest manifest, with about a million ids; a larger file is something else.
_MOST_BYTES = 16 * 2**20


def read_text(path: Path) -> str:
    """Read a small text file: a manifest, or a list of ids.

    Raises:
        InputError: the file cannot be read, is not a regular file, or is too large.
        ValueError: the file is not UTF-8.
    """
    size = require_file(str(path), path).st_size
    if size > _MOST_BYTES:
        raise InputError(
            f"{path}: {size} bytes, and a manifest or list of ids has at most {_MOST_BYTES}; give "
            "the file that is meant"
        )
    try:
        # Editors on Windows write a byte order mark.
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def read_manifest(path: Path) -> Any:
    """Read a small JSON file.

    Raises:
        InputError: see `read_text`.
        ValueError: the file is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def ids_of(manifest: Any, side: str) -> list[str]:
    """The ids of a side of a manifest; KeyError or TypeError if there is no such list."""
    ids = manifest[side]
    if not isinstance(ids, list):
        raise TypeError(f"{side} is no list")
    return [str(i) for i in ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Sorted ids of both sides."""

    train: tuple[str, ...]
    validation: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the manifest, JSON with the entries ``train`` and ``validation``.

        Raises:
            OutputError: the file cannot be written.
        """
        lists = {"train": self.train, "validation": self.validation}
        write_text(path, json.dumps(lists, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a manifest.

        Raises:
            InputError: the file is unreadable, not a manifest, or has an id on both sides.
        """
        try:
            values = read_manifest(path)
            train, validation = (sorted(ids_of(values, k)) for k in ("train", "validation"))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a split manifest ({error!r}); it is JSON with two lists of ids, "
                "train and validation"
            ) from error
        both = set(train) & set(validation)
        if both:
            raise InputError(
                f"{path}: {number_of(len(both), 'id')} on both sides: {names(both)}; "
                "remove them from one"
            )
        return cls(train=tuple(train), validation=tuple(validation))


def split_ids(
    datasets: Mapping[str, str],
    marks: Mapping[str, Sequence[str]],
    *,
    fraction: float,
    hold_out: Sequence[str] = (),
    place_pattern: str | None = None,
    seed: int = 0,
) -> Split:
    """Split ids by place.

    Args:
        datasets: the data set of each id.
        marks: the marks of each id, see `places_of`.
        fraction: share of the places of each data set that is used for validation, unless ids of
            the data set are held out by `hold_out`.
        hold_out: shell patterns of ids that are used for validation, such as ``testing_*``.
        place_pattern: regular expression whose first group is the place of an id; an id without a
            match is a place of its own.
        seed: seed of the random draw.

    Raises:
        UsageError: a pattern or the fraction is invalid, no id matches a pattern of `hold_out`, or
            a side is empty.
        InputError: there is only one place.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"validation fraction is {fraction}; it must be at least 0 and below 1")
    every = set(datasets)
    for pattern in hold_out:
        if not any(fnmatch.fnmatchcase(i, pattern) for i in every):
            # With a typing error, held-out data would be trained on.
            raise UsageError(
                f"no id matches `hold_out` {pattern!r}; ids are like {names(every, 2)}"
            )
    # Over all data sets together, as two of them may show the same ground under different names.
    everywhere = places_of(every, marks, place_pattern)
    if len(everywhere) == 1:
        raise InputError(
            f"{names(every, 2)}: the only place there is; training needs two at least, of which "
            "one is validated on: add data"
        )
    validation: set[str] = set()
    for number, dataset in enumerate(sorted(set(datasets.values()))):
        ids = {i for i in every if datasets[i] == dataset}
        named = {i for i in ids if any(fnmatch.fnmatchcase(i, h) for h in hold_out)}
        places = [place for place in everywhere if not ids.isdisjoint(place)]
        held = [place for place in places if not named.isdisjoint(place)]
        if not held:
            order = np.random.default_rng([seed, number]).permutation(len(places))
            held = [places[k] for k in order[: round(fraction * len(places))]]
        validation.update(i for place in held for i in place)
    train = every - validation
    if not train:
        raise UsageError(f"all {len(validation)} ids are held out; leave some to train on")
    if not validation:
        raise UsageError(
            f"none of {len(train)} ids is left to validate on; raise `validation_fraction`"
        )
    return Split(train=tuple(sorted(train)), validation=tuple(sorted(validation)))


def places_of(
    ids: Iterable[str], marks: Mapping[str, Sequence[str]], pattern: str | None
) -> list[tuple[str, ...]]:
    """Group ids by place.

    Args:
        ids: all ids.
        marks: for each id, texts that identify a place, such as the digest of its mask. Ids that
            share a mark are of one place. Ids may be missing, as before the data is read.
        pattern: regular expression whose first group is the place of an id; an id without a match
            is a place of its own.

    Returns:
        The sorted ids of each place, in sorted order.

    Raises:
        UsageError: the pattern is no regular expression with a group.
    """
    try:
        expression = re.compile(pattern) if pattern else None
    except re.error as error:
        raise UsageError(f"place pattern {pattern!r} is no regular expression: {error}") from error
    if expression is not None and expression.groups < 1:
        raise UsageError(f"place pattern {pattern!r} has no group; put the place in parentheses")
    # Imported here, because it takes a tenth of a second, and reading manifests does not need it.
    from scipy.cluster.hierarchy import DisjointSet

    every = sorted(ids)
    joined = DisjointSet(every)
    first: dict[tuple[str, str], str] = {}
    for i in every:
        keys = [("mark", mark) for mark in marks.get(i, ())]
        match = expression.search(i) if expression else None
        # An optional group that matches nothing names no place.
        if match and match.group(1) is not None:
            keys.append(("place", match.group(1)))
        for key in keys:
            joined.merge(i, first.setdefault(key, i))
    return sorted(tuple(sorted(place)) for place in joined.subsets())


def folds_of(
    datasets: Mapping[str, str],
    marks: Mapping[str, Sequence[str]],
    *,
    folds: int,
    place_pattern: str | None = None,
    seed: int = 0,
) -> list[tuple[str, ...]]:
    """Find the places of ids and deal them to folds, see `places_of` and `deal_places`.

    Raises:
        UsageError: there are fewer places than folds, or the pattern is invalid.
    """
    places = places_of(datasets, marks, place_pattern)
    return deal_places(places, datasets, folds=folds, seed=seed)


def deal_places(
    places: Sequence[tuple[str, ...]], datasets: Mapping[str, str], *, folds: int, seed: int
) -> list[tuple[str, ...]]:
    """Deal the places of each data set to folds of nearly equal size.

    Args:
        places: ids of each place, from `places_of`.
        datasets: the data set of each id.
        folds: number of folds, at least 2.
        seed: seed of the random draw.

    Returns:
        The sorted ids of each fold; they are disjoint and cover all ids.

    Raises:
        UsageError: there are fewer than two folds, or fewer places than folds.

    Example:
        >>> deal_places([("a",), ("b", "c"), ("d",)], dict.fromkeys("abcd", "set"), folds=2, seed=0)
        [('a', 'd'), ('b', 'c')]
    """
    if folds < 2:
        raise UsageError(f"{folds} folds: give at least 2, one to train on and one to hold out")
    if len(places) < folds:
        raise UsageError(
            f"{folds} folds of {len(places)} places ({len(datasets)} ids); give fewer `folds`, or "
            "add data"
        )
    by_dataset: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for place in places:
        by_dataset[datasets[place[0]]].append(place)
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for number, dataset in enumerate(sorted(by_dataset)):
        sizes = [0] * folds
        of_set = by_dataset[dataset]
        for k in np.random.default_rng([seed, number]).permutation(len(of_set)):
            # The fold with the fewest ids of this data set, and among these the fewest of all.
            least = min(range(folds), key=lambda f: (sizes[f], len(dealt[f]), f))
            dealt[least] += of_set[k]
            sizes[least] += len(of_set[k])
    return [tuple(sorted(ids)) for ids in dealt]
