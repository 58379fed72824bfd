"""Match scenes with the masks that are their ground truth: in order, or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geothresh.addresses import path_of
from geothresh.errors import InputError, UsageError, names
from geothresh.many.inputs import find_inputs, names_several

_ENDINGS = ("", "_mask", "_truth")
"""Suffixes of a mask's name after its scene's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePair:
    """A scene and its ground truth."""

    name: str
    """The scene's file name without extension."""
    scene: Path
    """The confidence raster."""
    mask: Path
    """Its ground truth."""


def scene_pairs(data: Sequence[Path], masks: Sequence[Path], *, allow_vrt: bool) -> list[ScenePair]:
    """Match scenes and masks.

    Args:
        data: scenes, or one directory, list or tile index of them.
        masks: the mask of each scene, in the same order; or one directory, list or tile index of
            masks with the names of the scenes, which may be followed by ``_mask`` or ``_truth``.
        allow_vrt: whether lists may name VRTs.

    Raises:
        UsageError: their numbers differ, two scenes have the same name, or a folder is given
            together with a file.
        InputError: a directory, list or index cannot be read, or a scene has no mask there.
    """
    if len(data) == len(masks) == 1 and names_several(data[0]) and names_several(masks[0]):
        return _by_name(data[0], masks[0], allow_vrt=allow_vrt)
    for path in data:
        if names_several(path):
            raise UsageError(
                f"`mask` is the truth of one raster, and {path} is a folder or a list; name one "
                "with their masks, and nothing else"
            )
    if len(data) != len(masks):
        raise UsageError(
            f"{len(data)} rasters and {len(masks)} masks: `mask` is the truth of one raster; give "
            "one for each, in the same order"
        )
    pairs = [ScenePair(name=s.stem, scene=s, mask=m) for s, m in zip(data, masks, strict=True)]
    _require_names_apart(pairs)
    return pairs


def _by_name(data: Path, masks: Path, *, allow_vrt: bool) -> list[ScenePair]:
    if data.resolve() == masks.resolve():
        raise UsageError(f"{data}: is a folder of scenes and of their truth; keep them apart")
    scenes, truths = (
        [path_of(source.name) for source in find_inputs([path], allow_vrt=allow_vrt).sources]
        for path in (data, masks)
    )
    by_stem: dict[str, list[Path]] = {}
    for truth in truths:
        by_stem.setdefault(truth.stem, []).append(truth)
    pairs, without = [], []
    for scene in scenes:
        found = [path for end in _ENDINGS for path in by_stem.get(scene.stem + end, ())]
        if len(found) > 1:
            raise UsageError(
                f"{scene}: has {len(found)} masks, {names(map(str, found))}; leave one in {masks}"
            )
        if found:
            pairs.append(ScenePair(name=scene.stem, scene=scene, mask=found[0]))
        else:
            without.append(scene.name)
    if without:
        raise InputError(
            f"{masks}: has no mask of {len(without)} of {len(scenes)} scenes: {names(without)}; "
            "name masks as their scenes, or SCENE_mask.tif, or SCENE_truth.tif"
        )
    _require_names_apart(pairs)
    return pairs


def _require_names_apart(pairs: Sequence[ScenePair]) -> None:
    seen: dict[str, Path] = {}
    for pair in pairs:
        if pair.name in seen:
            raise UsageError(
                f"{pair.scene} and {seen[pair.name]} have one name, which figures and tables tell "
                "them by; rename one of them"
            )
        seen[pair.name] = pair.scene
