"""Names and shapes of the tensors of a ThreshNet, from its configuration, without torch.

So a model for another backend is read and checked in a tenth of the time that importing torch
takes. The tests compare these shapes with those of `geothresh.nn.network.ThreshNet`.
"""

from __future__ import annotations

from collections.abc import Iterator

from geothresh.nn.config import NetworkConfig

Shape = tuple[int, ...]


def tensor_shapes(config: NetworkConfig) -> dict[str, Shape]:
    """The shape of each tensor in the model file of a network of this size.

    Example:
        >>> from geothresh.nn.config import PRESETS
        >>> tensor_shapes(PRESETS["full"])["stem.0.weight"]
        (32, 1, 3, 3)
    """
    widths, s = config.widths, config.shuffle
    shapes = dict(_conv_norm("stem", s * s, widths[0], 3))
    for level, n_blocks in enumerate(config.blocks):
        n_in = widths[max(level - 1, 0)]
        for block in range(n_blocks):
            narrows = block == 0 and level > 0
            shapes |= _residual(f"encoder.{level}.{block}", n_in, widths[level], narrows)
            n_in = widths[level]
    deepest, grids = widths[-1], len(config.pool_sizes)
    for i in range(grids):
        shapes |= _conv_norm(f"pyramid.branches.{i}", deepest, deepest, 1)
    shapes |= _conv_norm("pyramid.join", deepest * (grids + 1), deepest, 1)
    for branch in ("global", "local"):
        if config.branches in ("both", branch):
            shapes |= _decoder(f"{branch}_decoder", widths, s * s)
    return shapes


def _conv(name: str, n_in: int, n_out: int) -> Iterator[tuple[str, Shape]]:
    """Tensors of a 1x1 convolution with a bias."""
    yield f"{name}.weight", (n_out, n_in, 1, 1)
    yield f"{name}.bias", (n_out,)


def _conv_norm(name: str, n_in: int, n_out: int, kernel: int) -> Iterator[tuple[str, Shape]]:
    """Tensors of a convolution without a bias, and of its batch norm."""
    yield f"{name}.0.weight", (n_out, n_in, kernel, kernel)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.1.{part}", (n_out,)
    yield f"{name}.1.num_batches_tracked", ()


def _residual(name: str, n_in: int, n_out: int, narrows: bool) -> dict[str, Shape]:
    shapes = dict(_conv_norm(f"{name}.conv1", n_in, n_out, 3))
    shapes |= _conv_norm(f"{name}.conv2", n_out, n_out, 3)
    if narrows or n_in != n_out:
        shapes |= _conv_norm(f"{name}.shortcut", n_in, n_out, 1)
    return shapes


def _decoder(name: str, widths: tuple[int, ...], n_out: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for i, level in enumerate(reversed(range(len(widths) - 1))):
        part, width = f"{name}.levels.{i}", widths[level]
        inner = max(1, width // 2)
        shapes |= _conv_norm(f"{part}.up", widths[level + 1], width, 3)
        shapes |= _conv_norm(f"{part}.gate.signal", width, inner, 1)
        shapes |= _conv_norm(f"{part}.gate.skip", width, inner, 1)
        shapes |= _conv(f"{part}.gate.weight", inner, 1)
        shapes |= _conv_norm(f"{part}.conv1", 2 * width, width, 3)
        shapes |= _conv_norm(f"{part}.conv2", width, width, 3)
    shapes |= _conv(f"{name}.head", widths[0], n_out)
    return shapes
