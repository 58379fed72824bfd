"""Read and write model files: safetensors with metadata, of ThreshNet and of base networks.

A safetensors file holds a JSON header and raw tensors, and no code. Its metadata is a `ModelCard`
for a ThreshNet, and a `BaseCard` of `geothresh.base.networks` for a base network.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import ModelError, OutputError, number_of
from geothresh.files import file_digest, replacing
from geothresh.nn.config import NetworkConfig
from geothresh.nn.shapes import Shape, tensor_shapes
from geothresh.types import Float32Array

if TYPE_CHECKING:
    import torch

#: Larger files are refused. A full ThreshNet has 32 MB, a large base network 1 GB.
MAX_BYTES = 2 * 1024**3
_MAX_HEADER = 16 * 1024**2
# Metadata entry with the checksum of everything else.
_SEAL = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of model file."""

    format: str
    """Format tag in the metadata."""
    version: int
    """Version of the format; others are refused."""
    what: str
    """Name of the kind in messages."""
    maker: str
    """The command that writes such files."""
    use: str
    """The commands that read such files."""


THRESHNET = Kind(
    format="geothresh-threshnet",
    version=1,
    what="a ThreshNet",
    maker="geothresh train",
    use="`geothresh refine` and `evaluate`",
)
BASE = Kind(
    format="geothresh-base",
    version=1,
    what="a base network",
    maker="geothresh base train",
    use="`geothresh base predict`",
)
_KINDS = {kind.format: kind for kind in (THRESHNET, BASE)}


def read_metadata(path: str | Path, kind: Kind) -> dict[str, dict[str, Any]]:
    """Read the metadata of a model file, without its weights and without torch.

    Args:
        path: the file.
        kind: the kind that the file must be of.

    Returns:
        The entries ``config`` and ``training``, each a JSON object.

    Raises:
        ModelError: the file is missing, unreadable, damaged or of another kind.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        # Checked before opening: opening a pipe would wait for a writer.
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
        other = _KINDS.get(metadata["format"])
        if other is not None and other != kind:
            raise ModelError(
                f"{path}: is {other.what}, which is for {other.use}, not {kind.what}; name a "
                f".safetensors file that `{kind.maker}` has written"
            )
        if other is None:
            raise KeyError("format")
        version = int(metadata["format_version"])
        entries = {name: json.loads(metadata[name]) for name in ("config", "training")}
        for name, value in entries.items():
            if not isinstance(value, dict):
                raise TypeError(f"{name}, which is no JSON object")
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a geothresh model (its header lacks or garbles {error}); "
            f"name a .safetensors file that `{kind.maker}` has written"
        ) from error
    if version != kind.version:
        raise ModelError(
            f"{path}: model format {version}, this geothresh reads {kind.version}; "
            "update geothresh or train again"
        )
    return entries


def read_tensors(
    path: str | Path, expected: Mapping[str, torch.Tensor], *, prefix: str = ""
) -> dict[str, torch.Tensor]:
    """Read the tensors of a network and check names, shapes and finiteness.

    Args:
        path: a model file whose metadata was read.
        expected: name -> tensor, for example on the meta device, with the required shape and type.
        prefix: only tensors whose names in the file begin with it are read.

    Raises:
        ModelError: a tensor is missing, superfluous, of another shape, or not finite.
    """
    shapes = {name: tuple(like.shape) for name, like in expected.items()}
    found = _read(path, "pt", shapes, prefix)
    weights = {name: found[name].to(like.dtype) for name, like in expected.items()}
    _require_finite(path, {name: tensor.numpy() for name, tensor in weights.items()})
    return weights


def _read(
    path: str | Path, framework: str, shapes: Mapping[str, Shape], prefix: str = ""
) -> dict[str, Any]:
    """Read tensors of these shapes for torch ("pt") or numpy ("np"); raises like `read_tensors`."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Any] = {}
    try:
        with safe_open(path, framework=framework) as file:
            # safe_open gives no mapping: the file has keys(), but no __iter__.
            names = {n.removeprefix(prefix) for n in file.keys() if n.startswith(prefix)}  # noqa: SIM118
            if names != set(shapes):
                missing, extra = sorted(set(shapes) - names), sorted(names - set(shapes))
                raise ModelError(
                    f"{path}: {number_of(len(missing), 'tensor')} missing and {len(extra)} unknown "
                    f"(such as {(missing + extra)[0]}); the file is damaged or of another kind"
                )
            for name, needed in shapes.items():
                shape = tuple(file.get_slice(prefix + name).get_shape())
                if shape != needed:
                    raise ModelError(
                        f"{path}: tensor {name} is {shape}, the network needs {needed}"
                    )
                found[name] = file.get_tensor(prefix + name)
    # TypeError: numpy has no bf16.
    except (SafetensorError, OSError, TypeError) as error:
        raise ModelError(f"{path}: damaged model file ({error}); fetch it again") from error
    return found


def _require_finite(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    # numpy is used because torch would start threads.
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity; the model is unusable")


def write_model(
    path: str | Path,
    kind: Kind,
    *,
    tensors: Mapping[str, Any],
    entries: Mapping[str, Any],
    sealed: bool = False,
    keep: Path | None = None,
) -> None:
    """Write a model file; it appears complete or not at all. Equal content gives equal bytes.

    Args:
        path: path of the file, which is replaced if it exists.
        kind: kind of the file.
        tensors: name -> torch tensor.
        entries: entries of the metadata, name -> JSON types; NaN is written as null.
        sealed: add a checksum of the whole content, for `require_seal`.
        keep: new path for an old file at `path`; None = the old file is not kept.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    metadata = {
        "format": kind.format,
        "format_version": str(kind.version),
        **{name: json.dumps(_finite(value), allow_nan=False) for name, value in entries.items()},
    }
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = memoryview(save(flat))
    (n_header,) = struct.unpack("<Q", content[:8])
    # safetensors writes the metadata in a different order each time.
    header = {"__metadata__": metadata, **json.loads(bytes(content[8 : 8 + n_header]))}
    data = content[8 + n_header :]
    if sealed:
        metadata[_SEAL] = _checksum(header, data)
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    # safetensors requires that the tensors begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    target = Path(path)
    with replacing(target) as temporary:
        try:
            # safetensors' save_file is not used: only the owner could read its files.
            with temporary.open("wb") as file:
                for part in (struct.pack("<Q", len(text)), text, data):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and target.exists():
                # The new file is on the disk by now: at any time one of them is complete.
                target.replace(keep)
        except OSError as error:
            raise OutputError(
                f"{target}: the model cannot be written ({error.strerror})"
            ) from error


def require_seal(path: Path) -> None:
    """Verify the checksum inside a file.

    Raises:
        ModelError: the checksum does not match or is missing, or the file cannot be read.
    """
    try:
        content = memoryview(path.read_bytes())
        (n_header,) = struct.unpack("<Q", content[:8])
        header = json.loads(bytes(content[8 : 8 + n_header]))
        expected = header["__metadata__"].pop(_SEAL)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: is damaged (no checksum can be read)") from error
    if expected != _checksum(header, content[8 + n_header :]):
        raise ModelError(f"{path}: is damaged (it does not give its own checksum)")


def _checksum(header: Mapping[str, Any], data: memoryview) -> str:
    """sha256 of the header without its checksum, as sorted JSON, and of the tensors."""
    hashed = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    hashed.update(data)
    return hashed.hexdigest()


def beside(model: Path, ending: str) -> Path:
    """Path of a file beside a model, with its stem: ``roads.safetensors`` -> ``roads.csv``."""
    return model.with_name(model.name.removesuffix(".safetensors") + ending)


def digest(path: str | Path) -> str:
    """sha256 of a file, hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return file_digest(Path(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from error


def require_digest(path: str | Path, sha256: str) -> None:
    """Raise ModelError if a model file is not the one that was looked up before."""
    if digest(path) != sha256:
        raise ModelError(
            f"{path}: the model file changed while it was in use; run the command again"
        )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Context manager: put the name of the file before a ModelError about what its card says."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Metadata of a model file: config and training of the network."""

    config: NetworkConfig
    """Sizes of the network."""
    training: dict[str, Any]
    """How it was trained: recipe, data digest, epoch, metrics, version; JSON types."""


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a model file, without its weights and without torch.

    Raises:
        ModelError: the file is missing, unreadable, damaged or not a ThreshNet of geothresh.
    """
    entries = read_metadata(path, THRESHNET)
    with naming(path):
        config = NetworkConfig.from_dict(entries["config"])
    return ModelCard(config=config, training=entries["training"])


def load_weights(path: str | Path, config: NetworkConfig) -> dict[str, Any]:
    """Read the tensors of a ThreshNet, fp32, and check each.

    Args:
        path: a model file whose card was read.
        config: the sizes in its card.

    Raises:
        ModelError: a tensor is missing, superfluous, of another shape, or not finite.
    """
    import torch

    from geothresh.nn.network import ThreshNet

    with torch.device("meta"):
        expected = ThreshNet(config).state_dict()
    return read_tensors(path, expected)


def load_arrays(path: str | Path, config: NetworkConfig) -> dict[str, Float32Array]:
    """Read the tensors of a ThreshNet as numpy arrays, without torch; see `load_weights`.

    Raises:
        ModelError: see `load_weights`; also if a tensor has a format that numpy lacks.
    """
    tensors = _read(path, "np", tensor_shapes(config))
    for name, values in tensors.items():
        # Importing onnx adds bf16 to numpy; which tensors are refused must not depend on that.
        if values.dtype.kind not in "fi":
            raise ModelError(
                f"{path}: tensor {name} is {values.dtype}, which numpy lacks; take `backend=torch`"
            )
    arrays = {name: values.astype(np.float32, copy=False) for name, values in tensors.items()}
    _require_finite(path, arrays)
    return arrays


class Config(Protocol):
    """The sizes that are needed to build a network, such as `NetworkConfig`."""

    def as_dict(self) -> dict[str, Any]:
        """Give the sizes as JSON types."""
        ...


def save_model(
    path: str | Path,
    *,
    tensors: Mapping[str, Any],
    config: Config,
    training: Mapping[str, Any],
    kind: Kind = THRESHNET,
) -> None:
    """Write a model file; it appears complete or not at all.

    Args:
        path: path of the file, which is replaced if it exists.
        tensors: name -> torch tensor.
        config: sizes of the network.
        training: how it was trained, in JSON types; NaN is written as null. For a base network,
            ``training["data"]["train"]`` holds the ids that it was trained on.
        kind: kind of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    entries = {"config": config.as_dict(), "training": dict(training)}
    write_model(path, kind, tensors=tensors, entries=entries)
