"""Model files: one safetensors file whose metadata rebuilds the network and says how it came about.

safetensors only: a header of JSON and raw tensors, nothing that could run code.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.errors import ModelError, OutputError
from geothresh.files import replacing
from geothresh.nn.config import NetworkConfig

FORMAT = "geothresh-threshnet"
FORMAT_VERSION = 1
#: A full ThreshNet is 32 MB; whatever claims more than this is not one.
MAX_BYTES = 2 * 1024**3
_MAX_HEADER = 16 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a model file says of itself."""

    config: NetworkConfig
    """Sizes of the network."""
    training: dict[str, Any]
    """How it was trained: recipe, data digest, epoch, metrics, version; JSON types."""


def read_card(path: str | Path) -> ModelCard:
    """The card of a model file, without its weights and without torch.

    Raises:
        ModelError: the file is missing, unreadable, damaged or not a geothresh model.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        # Before it is opened, which on a pipe would wait for a writer.
        if not path.is_file() or size < 8:
            raise ModelError(f"{path}: {size} bytes are no model; train one or name another")
        if size > MAX_BYTES:
            raise ModelError(f"{path}: {size} bytes; a model has at most {MAX_BYTES}")
        with path.open("rb") as file:
            (n_header,) = struct.unpack("<Q", file.read(8))
            if n_header > min(_MAX_HEADER, size - 8):
                raise ModelError(
                    f"{path}: not a safetensors file (header of {n_header} bytes in a file of "
                    f"{size}); name a .safetensors file that geothresh has written"
                )
            header = json.loads(file.read(n_header))
        metadata = header["__metadata__"]
        if metadata["format"] != FORMAT:
            raise KeyError("format")
        version = int(metadata["format_version"])
        config = json.loads(metadata["config"])
        training = json.loads(metadata["training"])
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a geothresh model (its header lacks or garbles {error}); "
            "name a .safetensors file that `geothresh train` has written"
        ) from error
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version}, this geothresh reads {FORMAT_VERSION}; "
            "update geothresh or train again"
        )
    return ModelCard(config=NetworkConfig.from_dict(config), training=training)


def load_weights(path: str | Path, config: NetworkConfig, *, prefix: str = "") -> dict[str, Any]:
    """The tensors of a ThreshNet of this size, fp32, checked one by one.

    Args:
        path: a model file whose card was read.
        config: the sizes that its card gives.
        prefix: of the tensors' names in the file; only these are read.

    Raises:
        ModelError: a tensor is missing, superfluous, of another shape, or not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    from geothresh.nn.network import ThreshNet

    with torch.device("meta"):
        expected = ThreshNet(config).state_dict()
    weights: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            names = {n.removeprefix(prefix) for n in file.keys() if n.startswith(prefix)}
            if names != set(expected):
                missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
                raise ModelError(
                    f"{path}: {len(missing)} tensors missing and {len(extra)} unknown "
                    f"(such as {(missing + extra)[0]}); the file is damaged or of another kind"
                )
            for name, like in expected.items():
                shape = tuple(file.get_slice(prefix + name).get_shape())
                if shape != tuple(like.shape):
                    raise ModelError(
                        f"{path}: tensor {name} is {shape}, the network needs {tuple(like.shape)}"
                    )
                weights[name] = file.get_tensor(prefix + name).to(like.dtype)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged model file ({error}); fetch it again") from error
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity; the model is unusable")
    return weights


def save_model(
    path: str | Path,
    *,
    tensors: Mapping[str, Any],
    config: NetworkConfig,
    training: Mapping[str, Any],
) -> None:
    """Write a model file; it appears complete or not at all.

    Args:
        path: replaced if it exists.
        tensors: name -> torch tensor.
        config: sizes of the network.
        training: JSON types; NaN is written as null.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(config.as_dict()),
        "training": json.dumps(_finite(dict(training)), allow_nan=False),
    }
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    target = Path(path)
    with replacing(target) as temporary:
        try:
            # Not safetensors' save_file, which makes a new file that its owner alone may read.
            temporary.write_bytes(save(flat, metadata=metadata))
        except OSError as error:
            raise OutputError(
                f"{target}: the model cannot be written ({error.strerror})"
            ) from error


def digest(path: str | Path) -> str:
    """sha256 of a file, hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
