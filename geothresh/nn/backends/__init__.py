"""Inference backends: torch, ONNX Runtime, OpenVINO.

`geothresh.nn.refiner` holds the way through torch. Each other library has one module here, which
turns the ONNX graph of `geothresh.nn.backends.graph` into a function of arrays.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from importlib.util import find_spec
from typing import get_args

from geothresh.errors import UsageError
from geothresh.options import Backend

#: What a backend needs besides torch, and the extra that brings it.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}
_EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "openvino": "openvino"}


def require_backend(backend: str) -> None:
    """Check that a backend is known and its packages are installed, without importing them.

    Raises:
        UsageError: it is not, or they are not.
    """
    if backend not in _PACKAGES:
        known = ", ".join(get_args(Backend))
        raise UsageError(f"backend {backend!r} is unknown; say one of {known}")
    require_packages(f"backend {backend}", *_PACKAGES[backend])


def require_packages(what: str, *packages: str) -> None:
    """Raise UsageError where one of these optional packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        # The last one is what was asked for; its extra brings all others.
        raise UsageError(
            f"{what}: needs a package that is not installed ({', '.join(missing)}); "
            f"run: pip install 'geothresh[{_EXTRAS[packages[-1]]}]'"
        )


def versioned(backend: Backend) -> str:
    """A backend's name and version: the last bits of what it gives depend on both.

    Raises:
        UsageError: it is not installed.
    """
    require_backend(backend)
    if backend == "torch":
        return f"torch {version('torch')}"
    # Asked of the module: the distribution has other names too (onnxruntime-gpu).
    return f"{backend} {importlib.import_module(backend).__version__}"
