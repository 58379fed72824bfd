"""The accessor ``geothresh`` of DataArrays, which ``import geothresh.xarray`` registers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper

import xarray

from geothresh.api.dataarrays import refine_dataarray


@xarray.register_dataarray_accessor("geothresh")
class GeothreshAccessor:
    """Methods of geothresh for a DataArray of confidences."""

    def __init__(self, array: xarray.DataArray) -> None:
        self._array = array

    @property
    def refine(self) -> Callable[..., xarray.DataArray]:
        """`geothresh.refine_dataarray` of this array: ``array.geothresh.refine(layer="mask")``."""
        return update_wrapper(partial(refine_dataarray, self._array), refine_dataarray)
