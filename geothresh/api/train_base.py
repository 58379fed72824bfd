"""Train a base network on images and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.base.config import BasePlan, Holdout, ImageData
from geothresh.base.networks import describe_network
from geothresh.base.pretrained import NAMED
from geothresh.base.task import BaseTask, images_of, snapshot_file, snapshot_steps
from geothresh.fields import checked, plain
from geothresh.files import check_output
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.modelfile import BASE, beside
from geothresh.raster.image_pairs import ImageFacts, ImagePair, check_images, digest_of
from geothresh.splitting import Split, split_ids
from geothresh.training.data import OnCheck
from geothresh.training.output import training_output

#: Called after each step with the steps done, their number, and the loss.
OnBaseStep = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTrainResult:
    """Paths of the base network and its split, and statistics of the training."""

    model: Path
    snapshots: list[Path]
    """Models saved during the training."""
    split: Path
    """Manifest of the training ids and the held-out ids."""
    steps: int
    images: int
    """Number of training images."""
    held_out: int
    """Number of held-out images."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@checked()
def train_base(
    data: ImageData | str | Path | Sequence[str | Path],
    output: str | Path,
    plan: BasePlan = BasePlan(),
    *,
    holdout: Holdout = Holdout(),
    resume: bool | None = None,
    overwrite: bool = False,
    device: str = "auto",
    on_check: OnCheck | None = None,
    on_step: OnBaseStep | None = None,
) -> BaseTrainResult:
    """Train a base network on images and masks.

    Args:
        data: images and masks; paths are folders of them.
        output: the model file, ``.safetensors``. Beside it come ``.split.json``, and while it is
            trained ``.state.safetensors`` and the one before it, from which a stopped run goes on.
        plan: network and recipe.
        holdout: which images are held out.
        resume: True goes on with the run that was stopped and fails where there is none; None goes
            on with it if there is one, so that the same call again is all it takes; False never
            does.
        overwrite: start anew and replace an existing model.
        device: auto, cpu, cuda, cuda:i or mps.
        on_check, on_step: progress callbacks for checked images and steps.

    Returns:
        The model, its split, and how long it took.

    Raises:
        InputError: the data cannot be used, or the encoder's weights cannot be fetched.
        OutputError: the output exists or cannot be written, or another run is making it.
        UsageError: options contradict each other or the data.
        ModelError: the state does not fit.

    Example:
        >>> train_base("DATA", "base.safetensors", holdout=Holdout(hold_out=["testing_*"])).held_out
        12
    """
    data = ImageData.of(data)
    with training_output(
        output, BASE, (".split.json",), resume=resume, overwrite=overwrite,
        inputs=() if plan.encoder_weights in NAMED else (Path(plan.encoder_weights),),
    ) as making:  # fmt: skip
        pick_dtype(plan.recipe.precision, pick_device(device))
        found = images_of(data)
        config = describe_network(plan.network, plan.encoder, plan.encoder_weights)
        draw = partial(
            _split, found, fraction=holdout.validation_fraction, hold_out=holdout.hold_out,
            place_pattern=data.place_pattern, seed=plan.recipe.seed,
        )  # fmt: skip
        saved = making.saved
        if saved is not None and plan.epochs is None:
            # Checked before the data is read, which takes long; the data itself is compared later.
            saved.require_same(
                {**saved.run, "config": config.as_dict(), "recipe": plan.recipe.as_dict()}
            )
        # Called first to find errors early: reading all images takes long, and changes no ids.
        draw({})
        facts = check_images(found, progress=on_check)
        split = draw(facts)
        training = [pair for pair in found if pair.id in set(split.train)]
        steps = plan.recipe_for(len(training)).steps
        snapshots = [snapshot_file(making.model, s) for s in snapshot_steps(steps, plan.snapshots)]
        for file in snapshots:
            check_output(file, overwrite=making.replaces)
        manifest = beside(making.model, ".split.json")
        sides = {"train": split.train, "left_out": split.validation, **data.described}
        progress = making.fit(
            lambda: BaseTask(
                training, making.model, config=config, plan=plan, device=device,
                data={"sha256": digest_of(found, facts), **sides},
                resumed=making.state is not None,
            ),
            # Written before the model, so that a finished model always has its split.
            on_begin=lambda: split.save(manifest),
            on_step=None if on_step is None else lambda _, *done: on_step(*done),
        )  # fmt: skip
        return BaseTrainResult(
            model=making.model,
            snapshots=snapshots,
            split=manifest,
            steps=steps,
            images=len(training),
            held_out=len(split.validation),
            seconds=round(progress.seconds, 1),
        )


def _split(
    pairs: Sequence[ImagePair], facts: dict[str, ImageFacts], *, fraction: float, **how: Any
) -> Split:
    """Draw the split; all ids are for training if nothing is held out."""
    if fraction == 0 and not how["hold_out"]:
        return Split(train=tuple(sorted(pair.id for pair in pairs)), validation=())
    datasets = {pair.id: pair.dataset for pair in pairs}
    marks = {i: image.marks for i, image in facts.items()}
    return split_ids(datasets, marks, fraction=fraction, **how)
