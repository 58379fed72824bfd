"""The models that come with geothresh, and the model file that a name refers to."""

from __future__ import annotations

import os
from pathlib import Path

from geothresh.errors import ModelError
from geothresh.options import PathLike

DEFAULT_MODEL = "roads"
GENERAL = "general"
"""The packaged model that fits any theme."""
_PACKAGED = Path(__file__).parent / "models"


def packaged_models() -> dict[str, Path]:
    """Names and files of the models that come with geothresh."""
    return {path.stem: path for path in sorted(_PACKAGED.glob("*.safetensors"))}


def packaged_besides(name: str) -> list[str]:
    """Names of all packaged models except this one."""
    return [other for other in packaged_models() if other != name]


def find_model(model: PathLike) -> Path:
    """The file of a packaged model, by its name, or else the given path.

    Raises:
        ModelError: it is neither the name of a packaged model nor an existing file.
    """
    packaged = packaged_models()
    if str(model) in packaged:
        return packaged[str(model)]
    path = Path(model)
    # Path.is_file() fails where a name is too long for a file system.
    if not os.path.isfile(path):  # noqa: PTH113
        names = ", ".join(packaged) or "none"
        raise ModelError(
            f"{model}: no such model file, nor a packaged model (there: {names}); "
            "name one of these or a .safetensors file"
        )
    return path
