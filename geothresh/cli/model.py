"""``geothresh model``: list, show and export models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geothresh.cli import options
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.terminal import print_note, print_result

if TYPE_CHECKING:
    from geothresh.api.export import ExportResult


@click.group()
@options.common
def model() -> None:
    """List the packaged models, show what one is, or export it."""


@model.command(
    cls=HelpfulCommand,
    name="list",
    examples={
        "All packaged models": "geothresh model list",
    },
)
@options.as_json
@options.common
def list_models(as_json: bool) -> None:
    """List the models that come with geothresh, with their purpose and pixel size."""
    from geothresh.nn.packaged import packaged_models

    models = [_described(path) for path in packaged_models().values()]
    if as_json:
        options.print_json({"models": models})
        return
    from geothresh.nn.scope import ModelScope

    for entry in models:
        purpose = ModelScope.of_card(entry["training"]).text() or "does not tell what it is for"
        print_result(f"{entry['name']:<12} {entry['bytes'] / 1e6:5.1f} MB   {purpose}")


@model.command(
    cls=HelpfulCommand,
    examples={
        "A packaged model": "geothresh model show roads",
    },
)
@click.argument("name", metavar="NAME|FILE")
@options.as_json
@options.common
def show(name: str, as_json: bool) -> None:
    """Show a model's configuration and how it was trained."""
    from geothresh.nn.packaged import find_model

    entry = _described(find_model(name))
    if as_json:
        options.print_json(entry)
        return
    for key, value in _flattened(entry):
        print_result(f"{key}: {value}")


@model.command(
    cls=HelpfulCommand,
    examples={
        "The packaged model roads as roads.onnx": "geothresh model export roads",
    },
)
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--format", "kind", default="onnx", show_default=True, type=click.Choice(["onnx"]),
    help="Format of the file.",
)  # fmt: skip
@options.output
@click.option(
    "--tile-size", default=512, show_default=True, type=click.IntRange(min=1), metavar="N",
    help="Side of the tiles that the exported model takes; a multiple of its patch.",
)  # fmt: skip
@options.overwrite
@options.as_json
@options.common
def export(
    name: str, kind: str, output: Path | None, tile_size: int, overwrite: bool, as_json: bool
) -> None:
    """Write a model for programs other than geothresh.

    The format is ONNX, which needs the extra geothresh[onnx]. The input `confidence` and the output
    `refined` are float32 from 0 to 1, of shape (B, 1, T, T), for any number B of tiles of T x T
    pixels. The file is NAME.onnx in the current directory, or the one named with -o; its path is
    printed.
    """
    from geothresh.api.export import export_onnx

    result = export_onnx(name, output, tile_size=tile_size, overwrite=overwrite)
    if as_json:
        options.print_json({"format": kind, **asdict(result)})
        return
    print_result(result.output)
    if options.verbosity() >= 0:
        print_note(
            f"ONNX, opset {result.opset}, {result.bytes / 1e6:.1f} MB; takes tiles of "
            f"{tile_size} x {tile_size}, any number at once"
        )
        for line in _around(result):
            print_note(line)


def _around(result: ExportResult) -> Iterator[str]:
    """What `refine` does around an exported network, for programs that run it."""
    if result.smooth:
        yield "`geothresh refine` smooths the logits of each tile first (1 2 1 along both axes)"
    if result.strength != 1:
        share = f"{result.strength:g} x the logit of the output"
        rest = f"{1 - result.strength:g} x that of the input"
        yield f"`geothresh refine` takes {share} + {rest}"


def _described(path: Path) -> dict[str, Any]:
    """Name, card and digest of a model file, as JSON types."""
    from geothresh.nn.modelfile import digest, read_card

    card = read_card(path)
    text = path.with_suffix(".md")
    return {
        "name": path.stem,
        "file": str(path),
        "card": str(text) if text.is_file() else None,
        "bytes": path.stat().st_size,
        "sha256": digest(path),
        "config": card.config.as_dict(),
        "training": card.training,
    }


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """One (dotted name, text) for every entry that is not itself a mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield prefix + key, ", ".join(map(str, value))
        else:
            yield prefix + key, "-" if value is None else str(value)
