"""segmentation-models-pytorch, imported when a base network is first built.

It is an optional extra, and slow to import: no module imports it at its top.
"""

from __future__ import annotations

import importlib
import logging
import sys
from functools import cache
from types import ModuleType

from geothresh.errors import UsageError

_LOGGER = logging.getLogger("geothresh.base")

# Operators of torchvision's compiled library that its Python half registers functions for.
_OPERATORS = ("nms", "qnms")
_keep: list[object] = []


@cache
def segmentation_models() -> ModuleType:
    """The module ``segmentation_models_pytorch``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        _import_torchvision()
        return importlib.import_module("segmentation_models_pytorch")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"base networks need a package that is not installed ({error.name}); "
            "run: pip install 'geothresh[base]'"
        ) from error


def _import_torchvision() -> None:
    """Import torchvision even where its compiled library cannot be loaded.

    The torchvision of PyPI is built for CUDA. Beside a torch for CPUs its library does not load;
    torchvision passes over that in silence and then fails with "operator torchvision::nms does not
    exist" when it registers the shape function of that operator. Operators of that library find
    boxes; segmentation networks never call them. So their signatures are declared, without any
    implementation, which is all that the import needs. Where the library loads, nothing is done.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    else:
        return
    _LOGGER.info("the compiled library of torchvision does not load; box operators are left out")
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]

    from torch import library

    operators = library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # The declarations last as long as this object does.
    _keep.append(operators)
    importlib.import_module("torchvision")
