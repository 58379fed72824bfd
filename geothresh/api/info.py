"""Read the metadata of confidence rasters, and decide how `refine` would read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from geothresh.fields import checked
from geothresh.many.inputs import names_several
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import PathLike, Progress, Reading
from geothresh.raster.scene import open_scene
from geothresh.run.scene_info import ComparedModel, SceneInfo, describe

# Imported for many scenes only: one scene does not need most of it.
if TYPE_CHECKING:
    from geothresh.many.overview import ManyInfo


@overload
def info(
    scene: list[Any] | tuple[PathLike, ...],
    reading: Reading = ...,
    *,
    model: str | Path = ...,
    progress: Progress | None = ...,
) -> ManyInfo: ...


# Whether a name stands for many scenes is known at run time only: it may be a directory.
@overload
def info(
    scene: PathLike | Any,
    reading: Reading = ...,
    *,
    model: str | Path = ...,
    progress: Progress | None = ...,
) -> SceneInfo | Any: ...


@checked()
def info(
    scene: PathLike | Any,
    reading: Reading = Reading(),
    *,
    model: str | Path = DEFAULT_MODEL,
    progress: Progress | None = None,
) -> SceneInfo | ManyInfo:
    """Read the metadata of a scene, or of many, and decide how `refine` would read them.

    Args:
        scene: path, URL or open rasterio dataset; or what `refine_many` takes: a list of names, a
            directory of GeoTIFFs, ``@list.txt`` with one name a line, a tile index (.gti.gpkg).
        reading: as for `refine`; the area is ignored.
        model: a packaged model's name, or a model file, whose pixel sizes the scene's are compared
            with.
        progress: called with (files done, files in all) of many: first of those whose directories
            are read, then of those of which some pixels are.

    Returns:
        What ``geothresh info`` prints; ``as_dict()`` is what it prints with --json. Of many, the
        files' facts, how many pixel grids they are on, and the files that cannot be used.

    Raises:
        InputError, UsageError, ModelError: as `refine` would; a bad file of many raises nothing.

    Example:
        >>> facts = geothresh.info("scene.tif")     # doctest: +SKIP
        >>> facts.scaling, facts.pixel_size         # doctest: +SKIP
        ('uint8 / 255', (1.0, 1.0))
        >>> geothresh.info("tiles").grids           # doctest: +SKIP
        1
    """
    compared = ComparedModel.of(model)
    if isinstance(scene, list | tuple) or names_several(scene):
        named = scene if isinstance(scene, list | tuple) else [scene]
        from geothresh.many.overview import look_at_each

        return look_at_each(named, reading, compared, progress or _no_progress)
    with open_scene(scene, reading) as opened:
        return describe(opened, compared)


def _no_progress(done: int, total: int) -> None:
    """Ignore the progress."""
