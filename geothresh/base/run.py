"""From folders of images and masks to a base network: pair, check, split, fit, score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.base.config import BaseRecipe
from geothresh.base.loop import OnStep, fit, snapshot_file, snapshot_steps
from geothresh.base.networks import describe_network
from geothresh.base.state import SavedRun
from geothresh.errors import ModelError, UsageError
from geothresh.files import check_output
from geothresh.locks import only_run
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.modelfile import beside
from geothresh.nn.states import earlier_state, find_state, forget_states, told_how_to_go_on
from geothresh.raster.imagery import ImageFacts, ImagePair, check_images, digest_of, find_images
from geothresh.splitting import Split, split_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTrainResult:
    """Where the base network is, and what it has learnt from."""

    model: Path
    snapshots: list[Path]
    """Models of moments on the way."""
    split: Path
    """Manifest of the ids trained on and kept back."""
    steps: int
    images: int
    """Trained on."""
    held_out: int
    """Kept back."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            **asdict(self),
            "model": str(self.model),
            "snapshots": [str(file) for file in self.snapshots],
            "split": str(self.split),
        }


def train_base(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    network: str = "linknet",
    encoder: str = "resnet18",
    encoder_weights: str = "none",
    recipe: BaseRecipe | None = None,
    epochs: int | None = None,
    snapshots: int = 0,
    hold_out: Sequence[str] = (),
    validation_fraction: float = 0.0,
    place_pattern: str | None = None,
    skip_unpaired: bool = False,
    resume: bool | None = None,
    overwrite: bool = False,
    device: str = "auto",
    on_check: Callable[[int, int], None] | None = None,
    on_step: OnStep | None = None,
) -> BaseTrainResult:
    """Train a base network on images and masks.

    Args:
        data: folders of images and masks, see `geothresh.raster.imagery`.
        output: the model file, ``.safetensors``. Beside it come ``.split.json``, and while it is
            trained ``.state.safetensors`` and the one before it, from which a stopped run goes on.
        network: one of `geothresh.base.config.NETWORKS`.
        encoder: name of an encoder of segmentation-models-pytorch.
        encoder_weights: "none", "imagenet", or a safetensors file of the encoder's state dict.
        recipe: hyperparameters.
        epochs: passes through the training images, in place of the recipe's steps.
        snapshots: models of moments on the way, ``.stepNNNNN.safetensors`` beside the output.
        hold_out: patterns of ids that are kept back.
        validation_fraction: of the places of a data set that is kept back, if none of its ids is
            by name.
        place_pattern: regular expression whose first group names the place of an id.
        skip_unpaired: leave out images and masks without a partner.
        resume: True goes on with the run that was stopped and fails where there is none; None goes
            on with it if there is one, so that the same call again is all it takes; False never
            does.
        overwrite: start anew and replace an existing model.
        device: auto, cpu, cuda, cuda:i or mps.
        on_check, on_step: progress.

    Raises:
        InputError: the data cannot be used, or the encoder's weights cannot be fetched.
        OutputError: the output exists or cannot be written, or another run is making it.
        UsageError: options contradict each other or the data.
        ModelError: the state does not fit.
    """
    recipe, output = recipe or BaseRecipe(), Path(output)
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: a model is a .safetensors file; name it so")
    if resume and overwrite:
        raise UsageError("--resume goes on and --overwrite starts anew; give one of them")
    states, manifest = beside(output, ".state.safetensors"), beside(output, ".split.json")
    # The directory, before there is a lock in it; what is in its place is judged with the state.
    check_output(output, overwrite=True)
    with only_run(output):
        state = find_state(states) if resume is not False and not overwrite else None
        if resume and state is None:
            if states.exists():
                raise ModelError(f"{states}: no state is whole; start anew with --overwrite")
            raise UsageError(
                f"{states}: no run to go on with; leave --resume out, or name its model with "
                "--output"
            )
        replaces = overwrite or state is not None
        for file in (output, states, earlier_state(states), manifest):
            check_output(file, overwrite=replaces)
        pick_dtype(recipe.precision, pick_device(device))
        found = find_images(data, skip_unpaired=skip_unpaired)
        config = describe_network(network, encoder, encoder_weights)
        draw = partial(
            _split, found, fraction=validation_fraction, hold_out=hold_out,
            place_pattern=place_pattern, seed=recipe.seed,
        )  # fmt: skip
        if state is not None and epochs is None:
            # Before the data is read, which takes long; whether that is the same is seen after.
            saved = SavedRun.read(state)
            saved.require_same(config, {**saved.run, "recipe": recipe.as_dict()})
        # Once for its errors alone: to read all images takes long, and adds no other ids.
        draw({})
        facts = check_images(found, progress=on_check)
        split = draw(facts)
        training = [pair for pair in found if pair.id in set(split.train)]
        if epochs is not None:
            recipe = recipe.with_epochs(epochs, len(training))
        marks = snapshot_steps(recipe.steps, snapshots)
        for step in marks:
            check_output(snapshot_file(output, step), overwrite=replaces)
        if state is None:
            # Of a run that is to be replaced: nothing goes on with it any more.
            forget_states(states)
        with told_how_to_go_on(states, _where, overwrite=overwrite):
            seconds = fit(
                training,
                config=config,
                recipe=recipe,
                output=output,
                data={
                    "sha256": digest_of(found, facts),
                    "train": list(split.train),
                    "left_out": list(split.validation),
                },
                weights=encoder_weights,
                snapshots=snapshots,
                state=state,
                device=device,
                # Before the model: where that is, all is.
                on_begin=lambda: split.save(manifest),
                on_step=on_step,
            )
        return BaseTrainResult(
            model=output,
            snapshots=[snapshot_file(output, step) for step in marks],
            split=manifest,
            steps=recipe.steps,
            images=len(training),
            held_out=len(split.validation),
            seconds=round(seconds, 1),
        )


def _where(state: Path) -> str:
    return SavedRun.read(state).where()


def _split(
    pairs: Sequence[ImagePair], facts: dict[str, ImageFacts], *, fraction: float, **how: Any
) -> Split:
    """The sides of the split; all ids are trained on where nothing is to be kept back."""
    by_dataset: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        by_dataset[pair.dataset].append(pair.id)
    if fraction == 0 and not how["hold_out"]:
        return Split(train=tuple(sorted(pair.id for pair in pairs)), validation=())
    marks = {pair.id: facts[pair.id].marks if facts else () for pair in pairs}
    return split_ids(by_dataset, marks, fraction=fraction, **how)
