"""Read training data from scenes with labels: open, survey and split them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geothresh.errors import InputError, UsageError, names, number_of, warn
from geothresh.geobox import GeoBox
from geothresh.options import PathLike
from geothresh.raster.mask import MaskSpec, open_labels
from geothresh.raster.paths import is_tiff
from geothresh.raster.pixelsize import pixel_size
from geothresh.raster.scene import Scene, open_scene
from geothresh.training.data import Fold, OnCheck, Pixels, TrainingData, ValidationMap
from geothresh.training.handles import RecentFiles
from geothresh.training.holdout import (
    FINE,
    BlockGrid,
    SplitScene,
    block_side,
    fold_scenes,
    follow_split,
    forbidden_bins,
    hold,
    same_ground,
    save_split,
    split_scenes,
    tiles,
    trained_blocks,
)
from geothresh.training.options import SceneData, Splitting
from geothresh.training.scenes import (
    ChipPlaces,
    LabelledScene,
    NoRoomError,
    OpenFiles,
    SceneSource,
    SceneTile,
    Survey,
    survey,
)
from geothresh.vector.placing import PlacedShapes, Width, place
from geothresh.vector.reading import find_layer


def gather_scenes(
    data: SceneData,
    splitting: Splitting,
    pixels: Pixels,
    *,
    seed: int,
    patch: int,
    chip_size: int,
    largest: float,
    progress: OnCheck | None,
) -> TrainingData:
    """Open, check and split scenes.

    Args:
        data: confidence rasters and the files of their labels.
        splitting: what is held out for validation.
        pixels: size of the pixels on the ground, and the resolution of the network.
        seed: seed of the random split.
        patch: side of the network's patch.
        chip_size: side of a chip in pixels of the network.
        largest: side of the largest square that chips are cut from, in pixels of the network.
        progress: called with (rows read, rows in all).

    Raises:
        InputError: the data cannot be used.
        UsageError: options contradict each other.
    """
    paths = [Path(path) for path in data.scenes]
    labels = _label_sources(paths, data)
    files: RecentFiles[OpenFiles] = RecentFiles()
    opened = [
        open_labelled(path, source, data, validation_aoi=splitting.validation_aoi, files=files)
        for path, source in zip(paths, labels, strict=True)
    ]
    _require_names(opened)
    sizes = pixels.sizes(paths, [pixel_size(scene.box) for scene in opened])
    factors = pixels.factors(paths, sizes)
    surveys = _surveys(opened, two_areas=splitting.validation_aoi is not None, progress=progress)
    _require_labels(opened, surveys, data)

    cutting = _Cutting(opened, factors, patch=patch, chip_size=chip_size, largest=largest)
    scenes = cutting.blocked(surveys, splitting)
    splits = _hold_out(scenes, splitting, seed)
    try:
        sides = [cutting.fold(held) for held in splits]
    except NoRoomError as error:
        fitting = cutting.fitting(surveys, splitting, seed)
        smaller = "" if fitting is None else f"lower `chip_size` to {fitting}, or "
        raise UsageError(f"{error}; {smaller}give a larger scene") from error
    folded = splitting.folds is not None
    # With folds, the model is finally trained on all data.
    scenes = hold(scenes, [frozenset()] * len(scenes)) if folded else splits[0]
    train, validation = cutting.fold(scenes) if folded else sides[0]
    used = {source.scene.name for source in train if isinstance(source, SceneSource)}
    trained = {
        scene.name: trained_blocks(scene, scenes) if scene.name in used else [] for scene in scenes
    }
    manifest = save_split(scenes, trained, splits if folded else ())
    n_train = {name: len(blocks) for name, blocks in trained.items()}
    return TrainingData(
        train=train,
        validation=validation,
        folds=sides if folded else (),
        described=_describe(opened, scenes, validation, n_train, manifest, data)
        | pixels.described([one.name for one in opened], sizes)
        | ({"folds": len(sides)} if folded else {}),
        manifest=manifest,
        n_train=sum(n_train.values()),
        n_validation=sum(len(side.validation) for side in sides),
        resolution=pixels.seen(sizes),
    )


def _require_names(opened: Sequence[LabelledScene]) -> None:
    stems = Counter(scene.name for scene in opened)
    repeated = [stem for stem, n in stems.items() if n > 1]
    if repeated:
        raise InputError(
            f"{len(repeated)} names stand for several scenes: {names(repeated)}; rename them, so "
            "that the split and the log can tell them apart"
        )


def _label_sources(scenes: Sequence[Path], data: SceneData) -> list[Path]:
    """The source of labels of each scene."""
    labels = [Path(path) for path in data.labels]
    if not labels:
        raise UsageError(
            f"{scenes[0]}: is a file; name its labels with `labels`, or give a folder with masks"
        )
    folders = [path for path in scenes if path.is_dir()]
    if folders:
        raise UsageError(
            f"{folders[0]}: is a folder, and `labels` are for rasters; train on folders with "
            "masks, or on scenes with labels, in runs of their own (the second with `init`)"
        )
    if len(labels) not in (1, len(scenes)):
        raise UsageError(
            f"{len(labels)} sources of labels for {len(scenes)} scenes; give one for all of "
            "them, or one for each in the same order"
        )
    return labels * len(scenes) if len(labels) == 1 else labels


def open_labelled(
    path: Path,
    labels: Path,
    data: SceneData,
    *,
    validation_aoi: PathLike | None = None,
    files: RecentFiles[OpenFiles] | None = None,
) -> LabelledScene:
    """Open a confidence raster and lay its labels over it.

    Args:
        path: path of the raster.
        labels: path of the vectors or of the mask.
        data: options with which both are read.
        validation_aoi: polygons to validate on.
        files: open files that the scenes share; None = its own.

    Raises:
        InputError: a file cannot be used, or raster and labels do not overlap.
        UsageError: options do not suit the labels.
    """
    with open_scene(path, data.reading) as scene:
        box = scene.box
        aoi = _area(data.aoi, box, "area of interest")
        held = _area(validation_aoi, box, "area to validate on", required=False)
        return LabelledScene(
            scene.spec,
            box=box,
            block_height=scene.layout.part_height,
            dataset=labels.stem,
            labels=_labels(labels, scene, box, data),
            aoi=aoi,
            validation_aoi=held,
            files=files,
        )


def _labels(path: Path, scene: Scene, box: GeoBox, data: SceneData) -> PlacedShapes | MaskSpec:
    if path.is_file() and is_tiff(path):
        for name in ("layer", "buffer", "width_field"):
            if getattr(data, name) is not None:
                raise UsageError(
                    f"{path}: labels that are a raster have no `{name}`; leave it out, or give the "
                    "vectors"
                )
        with open_labels(path) as labels:
            labels.box.require_same(scene.box)
            return labels.spec
    layer = find_layer(path, data.layer)
    if not scene.box.has_transform:
        raise InputError(
            f"{scene.name}: has no georeference, so {layer} cannot be laid over it; give labels "
            "as a raster of the same size"
        )
    width = Width(buffer=data.buffer, field=data.width_field)
    return place(layer, box, width=width, what="labels")


def _area(
    path: PathLike | None, box: GeoBox, what: str, *, required: bool = True
) -> PlacedShapes | None:
    if path is None:
        return None
    return place(find_layer(path, option=None), box, width=None, what=what, required=required)


def _surveys(
    opened: Sequence[LabelledScene], *, two_areas: bool, progress: OnCheck | None
) -> list[Survey]:
    total = sum(one.size.height for one in opened)
    surveys: list[Survey] = []
    before = 0
    for one in opened:

        def report(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        surveys.append(
            survey(one, block_height=one.block_height, two_areas=two_areas, progress=report)
        )
        before += one.size.height
    return surveys


def _require_labels(
    opened: Sequence[LabelledScene], surveys: Sequence[Survey], data: SceneData
) -> None:
    for one, counted in zip(opened, surveys, strict=True):
        if not counted.valid.any():
            where = f"the area of interest {data.aoi}" if data.aoi else "it"
            raise InputError(
                f"{one.spec.source.name}: no pixel of {where} has both a confidence and a "
                "label; check the nodata values and the area"
            )
    if not any(counted.foreground.any() for counted in surveys):
        raise InputError(
            f"the labels of {len(opened)} scenes cover no pixel that counts; nothing to learn: "
            "give labels of this place, or another area of interest"
        )


def _hold_out(
    scenes: Sequence[SplitScene], splitting: Splitting, seed: int
) -> list[list[SplitScene]]:
    """Hold blocks out of the scenes, once or for each fold."""
    if splitting.folds is not None:
        return [
            hold(scenes, held) for held in fold_scenes(scenes, folds=splitting.folds, seed=seed)
        ]
    if splitting.split is not None:
        split = follow_split(scenes, Path(splitting.split))
    elif splitting.validation_aoi is not None:
        split = hold(scenes, [frozenset(scene.pixels()) for scene in scenes])
    else:
        sides = split_scenes(scenes, fraction=splitting.validation_fraction, seed=seed)
        split = hold(scenes, sides)
    held = [
        counted.survey.held_foreground[counted.survey.bins.span(window)].sum()
        for counted in split
        for window in counted.held_windows()
    ]
    if not held:
        raise InputError(
            f"{splitting.validation_aoi or 'the split'}: none of the {len(scenes)} scenes has "
            "anything to validate on there; give an area or a split of these scenes"
        )
    if not sum(held):
        raise InputError(
            f"none of the {len(held)} blocks to validate on has a foreground pixel; choose others"
        )
    return [split]


@dataclass(frozen=True, slots=True)
class _Cutting:
    """Makes chip sources and validation tiles of scenes."""

    opened: Sequence[LabelledScene]
    factors: Sequence[float]
    """Pixels of the network per pixel of each scene."""
    _: KW_ONLY
    patch: int
    chip_size: int
    largest: float
    """Side of the largest square that chips are cut from, in pixels of the network."""

    def blocked(self, surveys: Sequence[Survey], splitting: Splitting) -> list[SplitScene]:
        """Cut the scenes into blocks, none of which is held out yet."""
        # With an area to validate on, blocks are small, so that little around the area is lost.
        fine = None if splitting.validation_aoi is None else FINE
        least = math.ceil(self.largest / min(self.factors))
        side = splitting.block_size or fine or block_side(surveys, least)
        return [
            SplitScene(
                name=one.name,
                box=one.box,
                mask=one.mask,
                survey=counted,
                blocks=BlockGrid.of(one.size, side),
            )
            for one, counted in zip(self.opened, surveys, strict=True)
        ]

    def fitting(self, surveys: Sequence[Survey], splitting: Splitting, seed: int) -> int | None:
        """The largest smaller `chip_size` of whole patches with which chips fit; None = none."""
        for chip_size in range(self.chip_size - self.patch, 0, -self.patch):
            largest = self.largest * chip_size / self.chip_size
            smaller = replace(self, chip_size=chip_size, largest=largest)
            try:
                for held in _hold_out(smaller.blocked(surveys, splitting), splitting, seed):
                    smaller._sources(held)
            except (InputError, UsageError):
                continue  # such a chip does not fit either
            return chip_size
        return None

    def fold(self, scenes: Sequence[SplitScene]) -> Fold:
        """Make training and held-out data of the scenes with their held-out blocks.

        Raises:
            NoRoomError: a chip fits in no scene.
            UsageError: all valid pixels are held out.
        """
        sources, crowded = self._sources(scenes)
        if crowded:
            warn(
                f"{number_of(len(crowded), 'scene')} not trained on, without room for a chip "
                f"beside the blocks that are held out: {names(crowded)}; lower `chip_size` to "
                "train on them too"
            )
        return Fold(sources, self._tiles(scenes))

    def _sources(self, scenes: Sequence[SplitScene]) -> tuple[list[SceneSource], list[str]]:
        """Sources of chips, and the names of the scenes without room for a chip."""
        sources = []
        crowded: dict[str, NoRoomError] = {}
        for one, scene, factor in zip(self.opened, scenes, self.factors, strict=True):
            forbidden = forbidden_bins(scene, scenes)
            free = int(np.where(forbidden, 0, scene.survey.valid).sum())
            if not free:
                continue
            try:
                places = ChipPlaces(scene.survey, forbidden, math.ceil(self.largest / factor))
            except NoRoomError as error:
                crowded[one.name] = error
                continue
            others = [
                other
                for other, its_split in zip(self.opened, scenes, strict=True)
                if its_split is not scene and same_ground(its_split, scene)
            ]
            sources.append(
                SceneSource(
                    scene=one,
                    places=places,
                    n_chips=math.ceil(free / (self.chip_size / factor) ** 2),
                    others=others,
                    factor=factor,
                )
            )
        if not sources and crowded:
            name, reason = next(iter(crowded.items()))
            raise NoRoomError(f"{name}: {reason}")
        if not sources:
            raise UsageError(
                "all that counts is held out to validate on; leave something to train on"
            )
        return sources, [*crowded]

    def _tiles(self, scenes: Sequence[SplitScene]) -> list[SceneTile]:
        return [
            SceneTile(scene=one, window=tile, patch=self.patch, factor=factor)
            for one, scene, factor in zip(self.opened, scenes, self.factors, strict=True)
            for block in scene.held_windows()
            for tile in tiles(block)
            if scene.survey.held_valid[scene.survey.bins.span(tile)].any()
        ]


def _describe(
    opened: Sequence[LabelledScene],
    scenes: Sequence[SplitScene],
    validation: Sequence[ValidationMap],
    n_train: dict[str, int],
    manifest: str,
    data: SceneData,
) -> dict[str, Any]:
    hashed = hashlib.sha256(manifest.encode())
    for scene in scenes:
        hashed.update(f"{scene.name} {scene.survey.digest}\n".encode())
    labels = {one.name: one.dataset for one in opened}
    return {
        "sha256": hashed.hexdigest(),
        "train_maps": {f"{labels[name]}/{name}": n for name, n in n_train.items()},
        "validation_maps": dict(Counter(f"{t.dataset}/{t.source}" for t in validation)),
        "labels": {
            "files": [Path(path).name for path in data.labels],
            "layer": data.layer,
            "buffer": data.buffer,
            "width_field": data.width_field,
            "aoi": None if data.aoi is None else Path(data.aoi).name,
        },
    }
