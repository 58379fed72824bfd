"""Export a model as ONNX."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from geothresh._version import __version__
from geothresh.errors import UsageError
from geothresh.fields import checked
from geothresh.files import check_output, write_bytes
from geothresh.nn.backends import require_packages
from geothresh.nn.modelfile import digest, load_arrays, naming, read_card
from geothresh.nn.onnx_graph import OPSET, threshnet_graph
from geothresh.nn.packaged import DEFAULT_MODEL, find_model
from geothresh.nn.scope import ModelScope
from geothresh.options import PathLike


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The ONNX file that was written, and facts about it."""

    output: Path
    """Path of the file."""
    model: str
    """The model's name."""
    model_sha256: str
    """SHA-256 of the model file that it was made from, hexadecimal."""
    tile_size: int
    """Rows and columns of the tiles that it takes."""
    opset: int
    """Version of ONNX's operators."""
    bytes: int
    """Size of the file."""
    smooth: bool
    """Whether `refine` smooths what the model reads, see `geothresh.nn.wrappers.smoothed`; the file
    does not."""
    strength: float
    """Share of the model's logit that `refine` takes, the rest is that of the (smoothed) input; the
    file gives the model's alone."""


@checked()
def export_onnx(
    model: PathLike = DEFAULT_MODEL,
    output: PathLike | None = None,
    *,
    tile_size: int = 512,
    overwrite: bool = False,
) -> ExportResult:
    """Write a model as ONNX, its batch norms folded into the convolutions.

    Input ``confidence`` and output ``refined`` are (B, 1, T, T) float32 in [0, 1]; B is free, T is
    fixed. The metadata of the file has ``model``, ``model_sha256``, ``patch``, ``tile_size``,
    ``ground_sample_distance`` (the least and the greatest in metres, if known) and ``geothresh``,
    the version. The same model gives the same bytes. The file is the network alone: what `refine`
    does around it on a tile, if the model's card says so, is in the result (`smooth`, `strength`).

    Args:
        model: a packaged model's name, or a model file.
        output: file to write; by default the model's name with ``.onnx``, in the working directory.
        tile_size: T, a multiple of the model's patch.
        overwrite: replace the file if it exists.

    Returns:
        The path of the file, its size, and what it was made from.

    Raises:
        UsageError: the package onnx is not installed, the output is the model file, or the tile
            is no multiple of the patch.
        ModelError: the model is missing or damaged.
        OutputError: the file exists or cannot be written.

    Example:
        >>> export_onnx("roads").output         # doctest: +SKIP
        PosixPath('roads.onnx')
    """
    require_packages("export to ONNX", "onnx")
    source = find_model(os.fspath(model))
    target = Path(f"{source.stem}.onnx" if output is None else os.fspath(output))
    if target.suffix.lower() != ".onnx":
        raise UsageError(f"{target}: ONNX files end in .onnx; name the output so")
    target = check_output(target, overwrite=overwrite, inputs=[source])
    card, sha256 = read_card(source), digest(source)
    if tile_size < 1 or tile_size % card.config.patch:
        raise UsageError(
            f"tile size {tile_size}: must be a multiple of the model's patch, {card.config.patch}"
        )
    metadata = {
        "geothresh": __version__,
        "model": source.stem,
        "model_sha256": sha256,
        "patch": str(card.config.patch),
        "tile_size": str(tile_size),
    }
    with naming(source):
        scope = ModelScope.of_card(card.training)
    if scope.pixels is not None:
        ends = [scope.pixels.least, scope.pixels.greatest]
        metadata["ground_sample_distance"] = json.dumps(ends)
    graph = threshnet_graph(
        load_arrays(source, card.config),
        card.config, height=tile_size, width=tile_size, **metadata,
    )  # fmt: skip
    content = graph.SerializeToString(deterministic=True)
    write_bytes(target, content)
    return ExportResult(
        output=target,
        model=source.stem,
        model_sha256=sha256,
        tile_size=tile_size,
        opset=OPSET,
        bytes=len(content),
        smooth=scope.smooth,
        strength=scope.strength,
    )
