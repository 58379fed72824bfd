"""``geothresh train``: a model from confidence maps and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from geothresh.cli import options
from geothresh.cli.progress import Progress, bar_wanted, progress_bar

_POSITIVE = click.IntRange(min=1)
_SHARE = click.FloatRange(0, 1)
_WEIGHT = click.FloatRange(min=0)


@click.command()
@click.argument("data", type=options.PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=options.PATH, required=True,
    help="The model, MODEL.safetensors: the best epoch. The last epoch, the state to resume from, "
    "the log (CSV) and the split come beside it.",
)  # fmt: skip
@click.option(
    "--confidence", type=options.PATH, multiple=True, metavar="DIR",
    help="Confidence maps of one base network, <id>.png or .tif; may be repeated. The default is "
    "confidence/ in each DATA.",
)  # fmt: skip
@click.option(
    "--preset", type=click.Choice(["full", "small"]), default="small", show_default=True,
    help="Size of the network; full is the paper's and wants a GPU.",
)  # fmt: skip
@click.option(
    "--patch", type=click.Choice(["16", "32", "64", "128", "256"]), default="64",
    show_default=True, help="Side of a patch that has its own threshold, in pixels.",
)  # fmt: skip
@click.option(
    "--head", type=click.Choice(["confidence", "correction"]), default="confidence",
    show_default=True,
    help="Predict the confidence (the paper), or a correction to the logit of the input.",
)  # fmt: skip
@click.option("--init", type=options.PATH, help="Start from this model, of the same sizes.")
@click.option("--epochs", type=_POSITIVE, default=300, show_default=True, help="At most.")
@click.option(
    "--chips-per-epoch", type=_POSITIVE,
    help="Random squares that make an epoch; the default is the number of maps.",
)  # fmt: skip
@click.option(
    "--chip-size", type=_POSITIVE, default=512, show_default=True,
    help="Side of a chip in pixels, a multiple of the patch; smaller maps are mirrored outwards.",
)  # fmt: skip
@click.option(
    "--batch-size", type=_POSITIVE, default=4, show_default=True, help="Chips in a step."
)  # fmt: skip
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), default=8e-4,
    show_default=True, help="Of Adam, at the start or at its highest.",
)  # fmt: skip
@click.option(
    "--min-learning-rate", type=click.FloatRange(min=0), default=5e-8, show_default=True,
    help="Least rate.",
)  # fmt: skip
@click.option(
    "--schedule", type=click.Choice(["plateau", "cosine"]), default="plateau", show_default=True,
    help="Reduce the rate when the training loss stalls, or along half a cosine over all epochs.",
)  # fmt: skip
@click.option(
    "--patience", type=click.IntRange(min=0), default=5, show_default=True,
    help="Epochs without a lower training loss before the rate is reduced.",
)  # fmt: skip
@click.option(
    "--stop-patience", type=_POSITIVE, default=10, show_default=True,
    help="Epochs without a lower training loss before training ends (plateau only).",
)  # fmt: skip
@click.option(
    "--ema", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
    help="Decay of the moving average of the weights that becomes the model; 0 keeps the weights.",
)  # fmt: skip
@click.option(
    "--region-weight", type=_SHARE, default=0.7, show_default=True,
    help="The paper's a: weight of the loss against the region-thresholded target; 1 - a goes to "
    "the ground truth.",
)  # fmt: skip
@click.option("--focal-weight", type=_WEIGHT, default=1.0, show_default=True, help="Within a.")
@click.option("--boundary-weight", type=_WEIGHT, default=1.0, show_default=True, help="Within a.")
@click.option(
    "--overlap-weight", type=_WEIGHT, default=0.0, show_default=True,
    help="Soft IoU against the ground truth, per chip (not in the paper).",
)  # fmt: skip
@click.option("--balance", is_flag=True, help="Draw every DATA equally often.")
@click.option(
    "--mix", type=_SHARE, default=0.0, show_default=True,
    help="Share of chips that mix the maps of several base networks.",
)  # fmt: skip
@click.option(
    "--jitter", type=_WEIGHT, default=0.0, show_default=True,
    help="Spread of a random bias and temperature of each chip's logits.",
)  # fmt: skip
@click.option(
    "--regional-jitter", type=_WEIGHT, default=0.0, show_default=True,
    help="Spread of a bias of the logits that varies smoothly over the chip.",
)  # fmt: skip
@click.option(
    "--zoom", type=click.FloatRange(min=1), default=1.0, show_default=True,
    help="Enlarge or reduce half of the chips by up to this factor.",
)  # fmt: skip
@click.option(
    "--weight-decay", type=_WEIGHT, default=0.0, show_default=True, help="As in AdamW; 0 is Adam."
)
@click.option(
    "--split", type=options.PATH, help="Follow this manifest, MODEL.split.json of another run."
)  # fmt: skip
@click.option(
    "--validation-fraction", type=click.FloatRange(0, 1, max_open=True), default=0.15,
    show_default=True, help="Share of places to validate on.",
)  # fmt: skip
@click.option(
    "--hold-out", multiple=True, metavar="GLOB",
    help="Validate on the ids that match, such as 'testing_*'; may be repeated. A DATA with a "
    "match is split by it alone.",
)  # fmt: skip
@click.option(
    "--place-pattern", metavar="REGEX",
    help="Ids with the same first group are one place and stay on one side.",
)  # fmt: skip
@click.option("--skip-unpaired", is_flag=True, help="Leave out maps and masks without a partner.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all.")
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True,
    help="Number format of the convolutions; heads and losses stay fp32.",
)  # fmt: skip
@click.option(
    "--loader-workers", type=click.IntRange(min=0), default=0, show_default=True,
    help="Processes that prepare chips.",
)  # fmt: skip
@options.device
@click.option("--resume", is_flag=True, help="Go on after the last whole epoch.")
@options.overwrite
@options.as_json
@options.progress
@options.common
def train(
    data: tuple[Path, ...],
    output: Path,
    *,
    confidence: tuple[Path, ...],
    preset: str,
    patch: str,
    head: str,
    init: Path | None,
    epochs: int,
    chips_per_epoch: int | None,
    chip_size: int,
    batch_size: int,
    learning_rate: float,
    min_learning_rate: float,
    schedule: Literal["plateau", "cosine"],
    patience: int,
    stop_patience: int,
    ema: float,
    region_weight: float,
    focal_weight: float,
    boundary_weight: float,
    overlap_weight: float,
    balance: bool,
    mix: float,
    jitter: float,
    regional_jitter: float,
    zoom: float,
    weight_decay: float,
    split: Path | None,
    validation_fraction: float,
    hold_out: tuple[str, ...],
    place_pattern: str | None,
    skip_unpaired: bool,
    seed: int,
    precision: Literal["auto", "fp32", "bf16"],
    loader_workers: int,
    device: str,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    progress: bool | None,
) -> None:
    """Train a ThreshNet on the masks in DATA and the confidence maps of base networks.

    DATA holds <id>_mask.png (DeepGlobe's layout), or folders mask/ and confidence/. The maps must
    come from networks that were not trained on the same images. The defaults are the paper's.
    """
    from geothresh.nn.losses import LossWeights
    from geothresh.training import Recipe
    from geothresh.training import train as run

    recipe = Recipe(
        epochs=epochs,
        chips_per_epoch=chips_per_epoch,
        chip_size=chip_size,
        batch_size=batch_size,
        learning_rate=learning_rate,
        min_learning_rate=min_learning_rate,
        schedule=schedule,
        patience=patience,
        stop_patience=stop_patience,
        ema=ema,
        loss=LossWeights(
            region=region_weight,
            focal=focal_weight,
            boundary=boundary_weight,
            overlap=overlap_weight,
        ),
        balance=balance,
        mix=mix,
        jitter=jitter,
        regional_jitter=regional_jitter,
        zoom=zoom,
        weight_decay=weight_decay,
        precision=precision,
        seed=seed,
    )
    with (
        _checking_bar(progress) as on_check,
        _training_bar(progress, epochs) as (on_step, on_epoch),
    ):
        result = run(
            data,
            output,
            confidence=confidence,
            preset=preset,
            patch=int(patch),
            head=head,
            recipe=recipe,
            init=init,
            split=split,
            validation_fraction=validation_fraction,
            hold_out=hold_out,
            place_pattern=place_pattern,
            skip_unpaired=skip_unpaired,
            resume=resume,
            overwrite=overwrite,
            device=device,
            loader_workers=loader_workers,
            on_check=on_check,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    click.echo(result.model)
    if options.verbosity() >= 0:
        click.echo(
            f"{result.epochs} epochs, {result.steps} steps, {result.seconds:.0f} s on "
            f"{result.train_maps} maps; best epoch {result.best_epoch} on "
            f"{result.validation_maps} validation maps; log {result.log}",
            err=True,
        )


@contextmanager
def _checking_bar(wanted: bool | None) -> Iterator[Progress | None]:
    """A bar for the look at the data, which ends with it, hours before the training does."""
    with ExitStack() as bar:
        report = bar.enter_context(progress_bar(wanted, "check data", unit="map"))
        if report is None:
            yield None
            return

        def on_check(done: int, total: int) -> None:
            report(done, total)
            if done == total:
                bar.close()

        yield on_check


@contextmanager
def _training_bar(
    wanted: bool | None, epochs: int
) -> Iterator[
    tuple[Callable[[int, int, int, float], None] | None, Callable[[Mapping[str, Any]], None] | None]
]:
    """A bar per epoch on stderr, and a line with its scores when it is done."""
    if not bar_wanted(wanted):
        yield None, None
        return

    from tqdm import tqdm

    with tqdm(unit="step", dynamic_ncols=True, delay=1e-9) as bar:

        def on_step(epoch: int, step: int, n_steps: int, loss: float) -> None:
            if step == 1:
                bar.reset(total=n_steps)
                bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()

        def on_epoch(row: Mapping[str, Any]) -> None:
            bar.write(
                f"epoch {row['epoch']}: loss {row['train_total']:.4f}, validation miou "
                f"{100 * row['miou']:.2f}, Boundary IoU {100 * row['boundary_iou']:.2f}, "
                f"rate {row['learning_rate']:.1e}, {row['seconds']:.0f} s",
                file=click.get_text_stream("stderr"),
            )

        yield on_step, on_epoch
