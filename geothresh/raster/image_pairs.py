"""Pairs of an image and its mask, for training base networks: matched by name, and checked.

`geothresh.raster.layouts` knows where they are in a folder.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import InputError, names, number_of
from geothresh.files import paths_of
from geothresh.options import LayoutOption, PathLike, Progress
from geothresh.raster.layouts import find_masks, find_pictures_of, laid_out_pictures, picture_files
from geothresh.raster.pairs import (
    Labelled,
    dataset_name,
    mask_facts,
    read_mask,
    require_usable,
)
from geothresh.raster.pictures import read_rgb, resized
from geothresh.types import BoolArray, UInt8Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePair(Labelled):
    """One image and the ground truth of the same place."""

    image: Path

    def read(self) -> tuple[UInt8Array, BoolArray]:
        """Image (H, W, 3) and mask (H, W); InputError where one is unusable."""
        return self.read_image(), self.read_truth()

    def read_image(self) -> UInt8Array:
        """Read the image (H, W, 3)."""
        return resized(read_rgb(self.image), self.resize)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """Facts about an image and its mask."""

    shape: tuple[int, int]
    """Height and width."""
    foreground: int
    """Foreground pixels of the mask."""
    digest: str
    """sha256 of the pixels of image and mask, and of the size that they are resized to."""
    marks: tuple[str, ...]
    """Digests of the pixels of image and mask: equal ones show the same place."""


def find_images(
    data: PathLike | Sequence[PathLike],
    *,
    skip_unpaired: bool = False,
    layout: LayoutOption = "auto",
    resize: int | None = None,
) -> list[ImagePair]:
    """Match images and masks by id.

    Args:
        data: one or more folders.
        skip_unpaired: leave out images and masks without a partner instead of raising an error.
        layout: layout of each folder, see `geothresh.raster.layouts`.
        resize: side in pixels that images and masks are resized to; None = not resized.

    Returns:
        Pairs, sorted by data set and id.

    Raises:
        InputError: a folder is missing or empty, or ids are ambiguous or have no partner.
    """
    folders = paths_of(data)
    pairs: list[ImagePair] = []
    alone: dict[tuple[str, str], list[str]] = {("image", "a mask"): [], ("mask", "an image"): []}
    for folder in folders:
        dataset = dataset_name(folder)
        masks = find_masks(folder, layout)
        images = find_pictures_of(folder, layout)
        shared = images.keys() & masks.keys()
        alone["image", "a mask"] += [f"{dataset}/{i}" for i in images.keys() - shared]
        alone["mask", "an image"] += [f"{dataset}/{i}" for i in masks.keys() - shared]
        pairs += [
            ImagePair(id=i, image=images[i], mask=masks[i], dataset=dataset, resize=resize)
            for i in shared
        ]
    for noun, where, numbers in (
        ("name", "of several data folders", Counter(map(dataset_name, folders))),
        ("id", "in several data folders", Counter(p.id for p in pairs)),
    ):
        repeated = [name for name, n in numbers.items() if n > 1]
        if repeated:
            found = f"{number_of(len(repeated), noun)} {where}: {names(repeated)}"
            raise InputError(f"{found}; rename them")
    parts = [
        f"{number_of(len(ids), what)} without {other} ({names(ids)})"
        for (what, other), ids in alone.items()
        if ids
    ]
    if not pairs:
        raise InputError(f"{names(map(str, folders))}: no image has a mask; {', '.join(parts)}")
    if parts and not skip_unpaired:
        raise InputError(f"{' and '.join(parts)}; complete the data or add `skip_unpaired=True`")
    return sorted(pairs, key=lambda p: (p.dataset, p.id))


def find_pictures(folder: Path) -> dict[str, Path]:
    """The images of a folder by id: of any layout, or else all pictures that are not masks.

    Raises:
        InputError: there are none, or the folder cannot be listed.
    """
    found = laid_out_pictures(folder) or {
        stem: path for stem, path in picture_files(folder).items() if not stem.endswith("_mask")
    }
    if not found:
        raise InputError(f"{folder}: no pictures in it; give a folder of PNG or JPEG images")
    return found


def check_images(
    pairs: Sequence[ImagePair], *, progress: Progress | None = None
) -> dict[str, ImageFacts]:
    """Read every file once, so that broken data is found before the first step.

    Args:
        pairs: the pairs to check.
        progress: called with (pairs done, number of pairs).

    Returns:
        The facts of each pair, by id.

    Raises:
        InputError: files are unusable (up to ten are named), or no mask has any foreground.
    """
    facts: dict[str, ImageFacts] = {}
    broken: list[str] = []
    for done, pair in enumerate(pairs, 1):
        try:
            facts[pair.id] = _facts(pair)
        except InputError as error:
            broken.append(str(error))
        if progress is not None:
            progress(done, len(pairs))
    require_usable(broken, [fact.foreground for fact in facts.values()])
    return facts


def digest_of(pairs: Sequence[ImagePair], facts: Mapping[str, ImageFacts]) -> str:
    """sha256 of all the pixels and ids, whatever the order of the pairs."""
    lines = sorted(f"{p.dataset} {p.id} {facts[p.id].digest}\n" for p in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _facts(pair: ImagePair) -> ImageFacts:
    image, mask = read_rgb(pair.image), mask_facts(read_mask(pair.mask))
    height, width = image.shape[:2]
    if mask.shape != (height, width):
        raise InputError(
            f"{pair.image}: {height} x {width} pixels, its mask {pair.mask.name} has "
            f"{mask.shape[0]} x {mask.shape[1]}"
        )
    pixels = hashlib.sha256(image.tobytes()).hexdigest()
    size = "" if pair.resize is None else f" {pair.resize}"
    return ImageFacts(
        shape=(height, width),
        foreground=mask.foreground,
        digest=hashlib.sha256(f"{pixels} {mask.digest}{size}".encode()).hexdigest(),
        # A blank image does not identify a place.
        marks=(*mask.marks, *((pixels,) if image.min() != image.max() else ())),
    )
