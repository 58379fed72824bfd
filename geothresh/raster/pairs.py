"""Pairs of a confidence map and its mask: matched by name, and checked.

`geothresh.raster.layouts` knows where masks are in a folder; images are not needed. The maps of
each base network are files ``<id>.png`` or ``.tif`` in a folder of their own, or in
``DATA/confidence``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError, UsageError, names, number_of
from geothresh.files import paths_of
from geothresh.options import LayoutOption, PathLike, Progress
from geothresh.raster.layouts import ENDINGS, find_masks, is_hidden, is_picture, picture_files
from geothresh.raster.pictures import is_jpeg, read_gray, resized

_FAULTS_SHOWN = 10
# Values of foreground in masks of 1, 8 and 16 bits.
_FOREGROUND = (1, 255, 65535)
# JPEG masks are thresholded at 128, unless more than this share of pixels is between black and
# white, which is more than compression noise.
_UNSURE, _GREY = 0.05, (64, 191)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The ground truth mask of one place in a data set."""

    id: str
    """Name of the place; maps of several base networks share it."""
    mask: Path
    dataset: str
    """Name of the folder that holds the masks."""
    resize: int | None = None
    """Side in pixels that pictures are resized to when they are read; None = not resized."""

    def read_truth(self) -> NDArray[np.bool_]:
        """Read the mask (H, W)."""
        return resized(read_mask(self.mask), self.resize)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Labelled):
    """One confidence map and the ground truth of the same place."""

    confidence: Path
    source: str
    """Name of the folder that holds the maps: the base network."""

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read map and mask (H, W), see `read_confidence` and `read_mask`.

        Raises:
            InputError: one is unusable, or their sizes differ; a map may also have the size that
                both are resized to.
        """
        confidence, truth = read_confidence(self.confidence), read_mask(self.mask)
        self.require_same(confidence.shape, truth.shape)
        return resized(confidence, self.resize), resized(truth, self.resize)

    def require_same(self, shape: tuple[int, ...], truth: tuple[int, ...]) -> None:
        """Raise InputError where the map has neither the mask's shape nor the size of `resize`."""
        if shape not in (truth, (self.resize, self.resize)):
            raise InputError(
                f"{self.confidence}: {shape[0]} x {shape[1]} pixels, its mask {self.mask.name} has "
                f"{truth[0]} x {truth[1]}"
            )

    def read_map(self) -> NDArray[np.float32]:
        """Read the map (H, W)."""
        return resized(read_confidence(self.confidence), self.resize)


def find_pairs(
    data: PathLike | Sequence[PathLike],
    confidence: Sequence[PathLike] = (),
    *,
    skip_unpaired: bool = False,
    layout: LayoutOption = "auto",
    resize: int | None = None,
) -> list[Pair]:
    """Match maps and masks by id.

    Args:
        data: one or more folders with masks.
        confidence: folders of maps, one per base network and data set; each belongs to the data
            folder that has its ids. If empty, each data folder's own ``confidence/`` is used.
        skip_unpaired: leave out maps and masks without a partner instead of raising an error.
        layout: layout of each data folder, see `geothresh.raster.layouts`.
        resize: side in pixels that maps and masks are resized to; None = not resized.

    Returns:
        Pairs, sorted by data set, base network and id.

    Raises:
        InputError: a folder is missing or empty, or ids are ambiguous or have no partner.
    """
    folders = paths_of(data)
    masks = {folder: find_masks(folder, layout) for folder in folders}
    repeated = [i for i, n in Counter(i for ids in masks.values() for i in ids).items() if n > 1]
    if repeated:
        raise InputError(
            f"{number_of(len(repeated), 'id')} in several data folders: {names(repeated)}"
        )
    maps: list[tuple[Path, str]] = [(Path(c), dataset_name(Path(c))) for c in confidence]
    if not maps:
        maps = [(folder / "confidence", "confidence") for folder in folders]
    pairs: list[Pair] = []
    orphans: list[str] = []
    for folder, source in maps:
        files = picture_files(folder)
        if not files:
            raise InputError(_without_maps(folder))
        home = max(folders, key=lambda f: len(files.keys() & masks[f].keys()))
        orphans += [f"{dataset_name(folder)}/{i}" for i in files.keys() - masks[home].keys()]
        pairs += [
            Pair(id=i, confidence=files[i], mask=masks[home][i], dataset=dataset_name(home),
                 source=source, resize=resize)
            for i in sorted(files.keys() & masks[home].keys())
        ]  # fmt: skip
    _require_named_once(pairs)
    matched = {p.id for p in pairs}
    alone = [i for ids in masks.values() for i in ids if i not in matched]
    if not pairs:
        raise InputError(
            f"{names(map(str, folders))}: no map has the id of a mask; maps are named like "
            f"{names(orphans, 2)}, masks like {names(alone, 2)}"
        )
    if (orphans or alone) and not skip_unpaired:
        parts = [
            f"{number_of(len(ids), what)} without a {other} ({names(ids)})"
            for ids, what, other in ((orphans, "map", "mask"), (alone, "mask", "map"))
            if ids
        ]
        raise InputError(f"{' and '.join(parts)}; complete the data or add `skip_unpaired=True`")
    return sorted(pairs, key=lambda p: (p.dataset, p.source, p.id))


def _require_named_once(pairs: Sequence[Pair]) -> None:
    """Raise InputError where maps of one data set, base network and id stand in two folders."""
    repeated = [
        f"{source}/{i}"
        for (_, source, i), n in Counter((p.dataset, p.source, p.id) for p in pairs).items()
        if n > 1
    ]
    if repeated:
        raise InputError(
            f"{number_of(len(repeated), 'map')} in several confidence folders of one name "
            f"({names(repeated)}); give each base network a folder with a name of its own"
        )


def _without_maps(folder: Path) -> str:
    """The message about a folder without maps; it names subfolders that hold some."""
    below = sorted(p for p in folder.iterdir() if p.is_dir() and _has_pictures(p))
    if not below:
        return f"{folder}: no confidence maps ({', '.join(ENDINGS)}) in it"
    return (
        f"{folder}: no confidence maps in it but folders of them "
        f"({names(p.name for p in below)}); name each that is meant, as `confidence` {below[0]}"
    )


def _has_pictures(folder: Path) -> bool:
    try:
        return not is_hidden(folder) and any(is_picture(path) for path in folder.iterdir())
    except OSError:
        return False


def dataset_name(folder: Path) -> str:
    """The name of a folder of data or maps, as it was given.

    ``.`` and ``..`` are resolved to the directory's name; a link keeps its own.
    """
    return folder.resolve().name if folder.name in ("", "..") else folder.name


def by_dataset(folders: Sequence[Path], values: Sequence[Value]) -> dict[str, Value]:
    """Map the data set name of each data folder to the value given for it.

    Raises:
        UsageError: two folders have the same name but different values.
    """
    found: dict[str, Value] = {}
    for folder, value in zip(folders, values, strict=True):
        name = dataset_name(folder)
        if found.setdefault(name, value) != value:
            raise UsageError(
                f"{folder}: another data folder is named {name} too, and its pixels have "
                "another size; rename one of them"
            )
    return found


def read_confidence(path: Path) -> NDArray[np.float32]:
    """Read a confidence map (H, W) in [0, 1]: uint8 is divided by 255, floats are kept.

    Raises:
        InputError: the file is unreadable, is of another type, or has values outside [0, 1].
    """
    pixels = read_gray(path)
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"{path}: {pixels.dtype} is no confidence; write uint8 or float in [0, 1]")
    unknown = int(np.count_nonzero(np.isnan(pixels)))
    if unknown:
        raise InputError(
            f"{path}: {unknown} pixels are NaN; cut the map to where there is a confidence"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -0.01 and high <= 1.01):
        raise InputError(f"{path}: values from {low:g} to {high:g}; a confidence lies in [0, 1]")
    confidence: NDArray[np.float32] = np.clip(pixels, 0, 1).astype(np.float32)
    return confidence


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a ground truth mask (H, W), True = foreground.

    The file holds 0 and one other value: 1, 255 or 65535. In a JPEG, which blurs edges, values from
    128 on are foreground.

    Raises:
        InputError: the file is unreadable or not two-valued.
    """
    pixels = read_gray(path, stored=True)
    if is_jpeg(path):
        unsure = float(((pixels >= _GREY[0]) & (pixels <= _GREY[1])).mean())
        if unsure > _UNSURE:
            raise InputError(
                f"{path}: not a two-valued mask: {unsure:.0%} of its pixels are between black and "
                "white, more than JPEG makes of edges; write 0 and 255"
            )
        return np.asarray(pixels >= 128)
    foreground = pixels != 0
    values = np.unique(pixels[foreground])
    if len(values) > 1 or (len(values) == 1 and values[0] not in _FOREGROUND):
        shown = ", ".join(f"{v:g}" for v in values[:4]) + (" ..." if len(values) > 4 else "")
        held = f"{len(values)} values, {shown}" if len(values) > 1 else f"the value {shown}"
        raise InputError(
            f"{path}: not a two-valued mask: beside 0 it holds {held}, and expected is one value, "
            "1 or 255 (in 16 bits 65535 too); write 0 and 255, or 0 and 1"
        )
    return np.asarray(foreground)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """Facts about a mask."""

    shape: tuple[int, int]
    """Height and width."""
    foreground: int
    """Number of foreground pixels."""
    digest: str
    """sha256 of pixels and shape: equal masks show the same place under two names."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Digests that identify the place; none for an empty or full mask: all such are equal."""
        height, width = self.shape
        return (self.digest,) if 0 < self.foreground < height * width else ()


def check_pairs(pairs: Sequence[Pair], *, progress: Progress | None = None) -> dict[str, MaskFacts]:
    """Read every file once, so that broken data is found before the first epoch.

    Args:
        pairs: the pairs to check.
        progress: called with (pairs done, number of pairs).

    Returns:
        The facts of each mask, by id.

    Raises:
        InputError: files are unusable (up to ten are named), or no mask has any foreground.
    """
    facts: dict[str, MaskFacts] = {}
    broken: dict[Path, str] = {}
    for done, pair in enumerate(pairs, 1):
        try:
            if pair.id not in facts and pair.mask not in broken:
                facts[pair.id] = mask_facts(read_mask(pair.mask))
        except InputError as error:
            broken[pair.mask] = str(error)
        try:
            shape = read_confidence(pair.confidence).shape
            if pair.id in facts:
                pair.require_same(shape, facts[pair.id].shape)
        except InputError as error:
            broken[pair.confidence] = str(error)
        if progress is not None:
            progress(done, len(pairs))
    require_usable(list(broken.values()), [fact.foreground for fact in facts.values()])
    return facts


def require_usable(faults: Sequence[str], foreground: Sequence[int]) -> None:
    """Raise InputError if files have faults (up to ten are named) or no mask has foreground."""
    if faults:
        more = len(faults) - _FAULTS_SHOWN
        shown = "; ".join(faults[:_FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(f"{number_of(len(faults), 'unusable file')}: {shown}")
    if not any(foreground):
        raise InputError(
            f"none of the {len(foreground)} masks has a foreground pixel; nothing to learn"
        )


def mask_facts(mask: NDArray[np.bool_]) -> MaskFacts:
    """The facts of a ground truth (H, W)."""
    height, width = mask.shape
    hashed = hashlib.sha256(f"{height} {width} ".encode() + np.packbits(mask).tobytes())
    return MaskFacts(
        shape=(height, width), foreground=int(np.count_nonzero(mask)), digest=hashed.hexdigest()
    )
