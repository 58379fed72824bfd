"""From folders or scenes to a model: check, split, fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geothresh.errors import ModelError, UsageError
from geothresh.files import check_output, write_text
from geothresh.locks import only_run
from geothresh.nn.checkpoint import digest
from geothresh.nn.config import Head
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.modelfile import beside
from geothresh.nn.refiner import find_model
from geothresh.nn.resolution import ENTRY
from geothresh.nn.states import earlier_state, find_state, forget_states, told_how_to_go_on
from geothresh.options import ScaleOption
from geothresh.splitting import Split
from geothresh.training.loop import OnEpoch, OnStep, fit
from geothresh.training.material import Material, PairOptions, gather_pairs
from geothresh.training.pixels import Pixels
from geothresh.training.recipe import DEFAULT_RECIPE, Recipe, recipe_of
from geothresh.training.scene_material import SceneOptions, gather_scenes
from geothresh.training.sizes import choose_sizes, preset_of, require_batch
from geothresh.training.state import SavedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """Where the model is and how far it came."""

    model: Path
    """Best epoch by the mean of validation miou and Boundary IoU."""
    last: Path
    """Last epoch."""
    log: Path
    """CSV, one line per epoch."""
    split: Path
    """Manifest of the ids on either side."""
    epochs: int
    best_epoch: int
    steps: int
    seconds: float
    train_maps: int
    """Maps trained on; blocks of scenes."""
    validation_maps: int
    """Maps validated on; tiles of scenes."""
    unit: Literal["maps", "blocks"] = "maps"
    """What was trained on."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types, fit for JSON."""
        values = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def train(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    confidence: Sequence[str | Path] = (),
    labels: str | Path | Sequence[str | Path] = (),
    layer: str | None = None,
    buffer: float | None = None,
    width_field: str | None = None,
    aoi: str | Path | None = None,
    validation_aoi: str | Path | None = None,
    block_size: int | None = None,
    bidx: int | None = None,
    scale: ScaleOption = "auto",
    nodata: float | None = None,
    preset: str | None = None,
    patch: int | None = None,
    head: Head | None = None,
    recipe: Recipe | str = DEFAULT_RECIPE,
    init: str | Path | None = None,
    ground_sample_distance: Sequence[tuple[float, float]] = (),
    resolution: float | None = None,
    split: str | Path | None = None,
    validation_fraction: float = 0.15,
    hold_out: Sequence[str] = (),
    place_pattern: str | None = None,
    skip_unpaired: bool = False,
    resume: bool | None = None,
    overwrite: bool = False,
    device: str = "auto",
    loader_workers: int = 0,
    on_check: Callable[[int, int], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainResult:
    """Train a ThreshNet on confidence maps and their masks, or on scenes and their labels.

    The maps must come from base networks that have not been trained on the same images (section
    4.1 of the paper): those of the validation set, or out-of-fold maps.

    Args:
        data: one or more folders with masks, see `geothresh.raster.pairs`; or confidence rasters.
        output: the model file, ``.safetensors``. Beside it come ``.last.safetensors``,
            ``.state.safetensors`` and ``.state.previous.safetensors`` (to go on from), ``.csv`` and
            ``.split.json``.
        confidence: folders of maps; default is ``confidence/`` in each data folder.
        labels: of the rasters, one for all or one for each: vectors (GeoPackage, shapefile,
            GeoJSON, FlatGeobuf), or a mask on the same grid (1 foreground, 0 background, 255 no
            data). Vectors in another CRS are reprojected.
        layer: of the vectors, where there are several.
        buffer: metres on the ground to each side of lines and points.
        width_field: attribute with the full width of lines and points in metres; `buffer` stands
            in where it holds no number above 0.
        aoi: vector file with the polygons in which the labels are complete; what lies outside of
            them is ignored, and chips are cut where they are.
        validation_aoi: the same for what is validated on, and so not trained on; otherwise blocks
            are drawn.
        block_size: side of the blocks in pixels of which some are validated on; 2048, or less so
            that there are about twelve, if left out.
        bidx, scale, nodata: of the rasters, as in `geothresh.refine`.
        preset: ``full`` or ``small``; if left out, the initial model's, or ``small``.
        patch: side P of a patch in pixels; if left out, the initial model's, or 64.
        head: ``confidence`` (the paper) or ``correction``; if left out, the initial model's, or
            the recipe's.
        recipe: hyperparameters, or the name of a recipe: ``paper`` or ``best``.
        init: a packaged model's name or a model file to start from.
        ground_sample_distance: the least and the greatest size of a pixel on the ground in metres,
            of all data or of each; scenes that tell it need none. The model file tells it to
            `geothresh.refine`.
        resolution: size in metres of the pixels that the network is to see: all data is resampled
            to it, as `geothresh.refine` does with ``match_resolution``.
        split: manifest to follow; otherwise places are drawn.
        validation_fraction: share of places to validate on.
        hold_out: patterns of ids to validate on.
        place_pattern: what makes ids one place.
        skip_unpaired: leave out maps and masks without a partner.
        resume: True goes on with the run that was stopped and fails where there is none; None goes
            on with it if there is one, so that the same call again is all it takes; False never
            does.
        overwrite: start anew and replace an existing model and what stands beside it.
        device: auto, cpu, cuda, cuda:i or mps.
        loader_workers: processes that prepare chips.
        on_check, on_step, on_epoch: progress.

    Raises:
        InputError: the data cannot be used.
        OutputError: the output exists or cannot be written, or another run is making it.
        UsageError: options contradict each other.
        ModelError: the state or the initial model does not fit.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: a model is a .safetensors file; name it so")
    if resume and overwrite:
        raise UsageError("--resume goes on and --overwrite starts anew; give one of them")
    start = None if init is None else find_model(init)
    # The directory, before there is a lock in it; what is in its place is judged with the state.
    check_output(output, overwrite=True)
    with only_run(output):
        manifest = beside(output, ".split.json")
        state = _state_to_go_on_from(output, start, resume=resume, overwrite=overwrite)
        pixels = Pixels.of(ground_sample_distance, resolution)
        if isinstance(recipe, str):
            recipe = recipe_of(recipe)
        config = choose_sizes(
            preset=preset,
            patch=patch,
            head=head,
            usual_head=recipe.head,
            branches=recipe.branches,
            init=start,
        )
        recipe = dataclasses.replace(recipe, head=config.head, branches=config.branches)
        if recipe.chip_size % config.patch:
            raise UsageError(
                f"chip size {recipe.chip_size} is no multiple of the patch {config.patch}, which "
                "keeps its grid inside every chip"
            )
        require_batch(
            config,
            chip_size=recipe.chip_size,
            batch_size=recipe.batch_size,
            # As many as there are maps, where nothing is said: known when they are read.
            n_chips=recipe.chips_per_epoch or 2,
        )
        others_split = {
            "--hold-out": bool(hold_out),
            "--place-pattern": place_pattern is not None,
            "--validation-aoi": validation_aoi is not None,
            "--block-size": block_size is not None,
        }
        if split is not None and any(others_split.values()):
            also = next(name for name, there in others_split.items() if there)
            raise UsageError(
                f"--split says what to validate on, and so does {also}; give one or the other"
            )
        if state is not None:
            # Before the data is read, which takes long; whether that is the same is seen after.
            SavedRun.read(state).require_same_recipe(config, recipe.as_dict())
            if split is None and not any(others_split.values()) and manifest.exists():
                split = manifest
        # The data takes long to read: all that may be wrong elsewhere is found before.
        if split is not None:
            Split.load(Path(split))
        pick_dtype(recipe.precision, pick_device(device))
        paths = [Path(data)] if isinstance(data, str | Path) else [Path(d) for d in data]
        material = _gather(
            paths,
            PairOptions(
                confidence=confidence,
                hold_out=hold_out,
                place_pattern=place_pattern,
                skip_unpaired=skip_unpaired,
            ),
            SceneOptions(
                labels=[labels] if isinstance(labels, str | Path) else labels,
                layer=layer,
                buffer=buffer,
                width_field=width_field,
                aoi=aoi,
                validation_aoi=validation_aoi,
                block_size=block_size,
                bidx=bidx,
                scale=scale,
                nodata=nodata,
            ),
            pixels,
            split=None if split is None else Path(split),
            fraction=validation_fraction,
            recipe=recipe,
            patch=config.patch,
            progress=on_check,
        )
        states = beside(output, ".state.safetensors")
        if state is None:
            # Of a run that is to be replaced: nothing goes on with it any more.
            forget_states(states)
        described: dict[str, Any] = {"preset": preset_of(config), "data": material.described}
        if material.resolution is not None:
            described[ENTRY] = [material.resolution.least, material.resolution.greatest]
        if start is not None:
            described["init"] = {"name": start.stem, "sha256": digest(start)}

        def keep_split() -> None:
            # A run that goes on has its manifest; without a state, it would be taken for another's.
            if state is None or not manifest.exists():
                write_text(manifest, material.manifest)

        with told_how_to_go_on(
            states, lambda file: SavedRun.read(file).where(), overwrite=overwrite
        ):
            progress = fit(
                material.train,
                material.validation,
                config=config,
                recipe=recipe,
                output=output,
                facts=described,
                init=start,
                state=state,
                device=device,
                loader_workers=loader_workers,
                on_begin=keep_split,
                on_step=on_step,
                on_epoch=on_epoch,
            )
        return TrainResult(
            model=output,
            last=beside(output, ".last.safetensors"),
            log=beside(output, ".csv"),
            split=manifest,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
            steps=progress.step,
            seconds=progress.seconds,
            train_maps=material.n_train,
            validation_maps=material.n_validation,
            unit="blocks" if paths[0].is_file() else "maps",
        )


def _state_to_go_on_from(
    output: Path, start: Path | None, *, resume: bool | None, overwrite: bool
) -> Path | None:
    """The state of the run that goes on, None where one begins; all else that is there is refused.

    Raises:
        OutputError: a file is in the way.
        UsageError: there is no run to go on with, but one is asked for.
        ModelError: the one that is asked for is damaged.
    """
    newest = beside(output, ".state.safetensors")
    wanted = resume is not False and not overwrite
    state = find_state(newest) if wanted else None
    if resume and state is None:
        if newest.exists():
            raise ModelError(f"{newest}: no state is whole; start anew with --overwrite")
        raise UsageError(
            f"{newest}: no run to go on with; leave --resume out, or name its model with --output"
        )
    if resume is None and state is not None and SavedRun.read(state).finished:
        state = None
    endings = (".split.json", ".last.safetensors", ".state.safetensors", ".csv")
    # The start must outlive the run: whoever goes on with it, or reads its card, looks for it.
    inputs = () if start is None else (start,)
    for file in (output, *(beside(output, ending) for ending in endings), earlier_state(newest)):
        check_output(file, overwrite=overwrite or state is not None, inputs=inputs)
    return state


def _gather(
    data: Sequence[Path],
    pairs: PairOptions,
    scenes: SceneOptions,
    pixels: Pixels,
    *,
    split: Path | None,
    fraction: float,
    recipe: Recipe,
    patch: int,
    progress: Callable[[int, int], None] | None,
) -> Material:
    """Rasters with labels, or folders with masks; what belongs to the other is refused."""
    if not data:
        raise UsageError("no data; name folders with masks, or confidence rasters with --labels")
    are_scenes = bool(scenes.labels) or any(path.is_file() for path in data)
    strange = pairs.given() if are_scenes else scenes.given()
    if strange:
        raise UsageError(
            f"{strange[0]} is for {'folders with masks' if are_scenes else 'scenes with labels'}, "
            f"and {data[0]} is {'a scene' if are_scenes else 'a folder'}; leave it out"
        )
    if are_scenes:
        return gather_scenes(
            data,
            scenes,
            pixels,
            split=split,
            fraction=fraction,
            seed=recipe.seed,
            patch=patch,
            chip_size=recipe.chip_size,
            largest=recipe.chip_size * recipe.zoom,
            progress=progress,
        )
    return gather_pairs(
        data, pairs, pixels, split=split, fraction=fraction, seed=recipe.seed, progress=progress
    )
