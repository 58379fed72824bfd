"""Predict confidences with a base network: a raster for a GeoTIFF, maps for pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geothresh.base.networks import read_base_card
from geothresh.base.predictor import BasePredictor, BaseSource, predict_picture
from geothresh.durability import Journal, finished_outputs
from geothresh.errors import UsageError, warn
from geothresh.fields import checked, decisive, plain, require_only
from geothresh.files import check_output, is_directory, is_file, make_directory
from geothresh.mosaic import (
    Layers,
    MosaicStats,
    RasterReader,
    load_refiner,
    mosaic,
    where_asked,
)
from geothresh.nn.refiner import resolved
from geothresh.options import BaseTiling, Compute, Dtype, PathLike, Progress, Reading, Writing
from geothresh.raster.creation import confidence_band, require_creation
from geothresh.raster.image import ImageScene, open_image
from geothresh.raster.image_pairs import find_pictures
from geothresh.raster.paths import find_raster, is_tiff
from geothresh.raster.pictures import read_rgb, write_png
from geothresh.raster.writing import RasterWriter, stored_confidence
from geothresh.run.directories import with_directories
from geothresh.run.outputs import (
    check_raster,
    describe,
    make_strips,
    parameter_tags,
    put_in_place,
    require_room,
    run_fingerprint,
)
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize

# Tiles in one call of a worker's network, which splits them into its own batches.
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """The file or folder that was written, and counts of pixels."""

    output: Path
    """The confidence raster, the map of a picture, or the folder of maps."""
    images: int
    """Number of images predicted."""
    pixels: int
    """Pixels predicted, which are those with data."""
    foreground: int
    """Predicted pixels with a confidence of 0.5 or more."""
    model: str
    model_sha256: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@dataclass(slots=True, kw_only=True)
class _Counts:
    pixels: int = 0
    foreground: int = 0


@dataclass(frozen=True, slots=True)
class _ConfidenceLayer:
    """Makes the stored confidences of a chunk, and counts pixels."""

    dtype: Dtype
    """Type of the stored values."""

    def __call__(
        self, reader: RasterReader, window: PixelWindow, confidence: Float32Array, valid: BoolArray
    ) -> Layers:
        """Make the layer of a chunk, see `geothresh.mosaic.Finish`."""
        counts = _Counts(
            pixels=int(np.count_nonzero(valid)),
            foreground=int(np.count_nonzero(valid & (confidence >= 0.5))),
        )
        stored = stored_confidence(confidence, valid, self.dtype)
        return Layers(values=(stored,), counts=asdict(counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """A base network, and how tiles go through it."""

    source: BaseSource
    tiling: BaseTiling
    compute: Compute

    def predictor(self) -> BasePredictor:
        """The network, loaded once in this process."""
        loaded = load_refiner(self.source).refiner
        if not isinstance(loaded, BasePredictor):
            raise TypeError(f"{loaded!r} is no base network")
        return loaded

    def grid(self, size: RasterSize) -> TileGrid:
        """The tiles over an image."""
        return TileGrid(
            size=size,
            tile=self.tiling.tile_size,
            overlap=self.tiling.overlap,
            patch=self.source.patch,
        )

    def batch_size(self) -> int:
        """Number of tiles in one call of the network."""
        if self.compute.batch_size != "auto":
            return self.compute.batch_size
        return _BATCH if self.compute.workers else self.predictor().batch_size


@checked()
@with_directories
def predict_base(
    image: PathLike | Any,
    output: PathLike | None = None,
    *,
    model: PathLike,
    reading: Reading = Reading(),
    tiling: BaseTiling = BaseTiling(),
    compute: Compute = Compute(),
    writing: Writing = Writing(),
    progress: Progress | None = None,
) -> PredictResult:
    """Predict confidences with a base network.

    A GeoTIFF, of any size, becomes a confidence raster on the same grid: uint8, 0-254 for 0-1, 255
    nodata. A PNG or JPEG becomes a map of its size, a PNG with confidence x 255, and a folder of
    them a folder of maps, ``<id>.png``. Pixels without data are not predicted: they are filled
    with the mean colour that the network was trained with, whatever the file holds there.

    Args:
        image: path or URL of a GeoTIFF, an open rasterio dataset, a picture, or a folder of
            pictures; of a folder with ``<id>_sat.jpg`` only these, by their ids.
        output: file, or folder, to write; by default ``NAME_confidence`` beside the image.
        model: model file of a base network.
        reading: for a GeoTIFF, whether it may be a VRT, and the value that marks missing data where
            all three bands hold it.
        tiling: the squares that the network reads, and how they are joined.
        compute: device, number format and batches; workers are for a GeoTIFF.
        writing: as for `refine`; for pictures only whether existing files are replaced.
        progress: called with (done, total), in tiles of a GeoTIFF or in pictures.

    Returns:
        What was written, and how many pixels were predicted.

    Raises:
        UsageError: arguments contradict each other or the image.
        InputError: an image cannot be read.
        OutputError: an output exists, or cannot be written.
        ModelError: the model is missing or damaged, or no base network.

    Example:
        >>> predict_base("image.tif", model="base.safetensors").output      # doctest: +SKIP
        PosixPath('image_confidence.tif')
    """
    started = time.perf_counter()
    require_only(reading, "nodata", "allow_vrt", why="is for confidences, not for images")
    require_only(
        compute, "batch_size", "device", "precision", "workers", why="is not for base networks"
    )
    require_creation(writing)
    source = BaseSource.find(
        model,
        device=compute.device,
        precision=compute.precision,
        batch_size=compute.batch_size,
    )
    network = _Network(source=source, tiling=tiling, compute=compute)
    pictures = _pictures(image)
    if pictures is None:
        images = 1
        target, counts = _predict_scene(image, output, network, reading, writing, progress)
    else:
        why = f"is for a GeoTIFF, and {image} holds pictures, which need none"
        require_only(reading, "allow_vrt", why=why)
        require_only(compute, "batch_size", "device", "precision", why=why)
        require_only(writing, "resume", "restart", "overwrite", why=why)
        images = len(pictures)
        target, counts = _predict_pictures(
            Path(os.fspath(image)), pictures, output, network, writing.overwrite, progress
        )
    return PredictResult(
        output=target,
        images=images,
        pixels=counts.pixels,
        foreground=counts.foreground,
        model=source.name,
        model_sha256=source.sha256,
        seconds=round(time.perf_counter() - started, 3),
    )


def _pictures(image: PathLike | Any) -> dict[str, Path] | None:
    """The pictures by id; None where `image` is a GeoTIFF, or is opened as one."""
    if not isinstance(image, str | os.PathLike):
        return None
    path = Path(os.fspath(image))
    if is_directory(path):
        return find_pictures(path)
    if is_file(path) and path.suffix.lower() in (".png", ".jpg", ".jpeg") and not is_tiff(path):
        return {path.stem: path}
    return None


def _predict_scene(
    image: PathLike | Any,
    output: PathLike | None,
    network: _Network,
    reading: Reading,
    writing: Writing,
    progress: Progress | None,
) -> tuple[Path, _Counts]:
    source = find_raster(image, allow_vrt=reading.allow_vrt)
    named = source.beside("_confidence.tif", "confidence") if output is None else output
    target = Path(os.fspath(named))
    finished = finished_outputs(target) if writing.resumes else frozenset()
    ours = target.absolute() in finished
    check_raster(target, [source], overwrite=writing.overwrite, ours=ours)
    fill = read_base_card(network.source.path).config.mean
    with open_image(image, nodata=reading.nodata, allow_vrt=reading.allow_vrt, fill=fill) as scene:
        grid = network.grid(scene.size)
        batch_size = network.batch_size()
        described = _described(scene, network)
        fingerprint = run_fingerprint(
            source,
            **described,
            outputs=[target.name],
            **writing.bytes_depend_on,
        )
        outputs = {target: confidence_band(writing.confidence_dtype)}
        with Journal(target, fingerprint, restart=writing.restart, keep=writing.resume) as journal:
            if not journal.is_made([target]):
                require_room(outputs, scene.size, writing.creation_options)
                workers = network.compute.workers
                engine = partial(
                    mosaic, scene, network.source, grid=grid, blend=network.tiling.blend,
                    batch_size=batch_size, where=where_asked(workers),
                    reader_spec=scene.spec if workers else None, progress=progress,
                )  # fmt: skip
                tags = parameter_tags(described, batch_size=network.compute.batch_size)
                _write_confidence(scene, target, engine, journal, tags, writing)
            describe(outputs, style=writing.style)
            if journal.total("tiles_refined") == 0:
                warn(f"{scene.name}: holds no data at all; neither does the confidence")
            journal.finish()
    return target, _Counts(pixels=journal.total("pixels"), foreground=journal.total("foreground"))


def _write_confidence(
    scene: ImageScene,
    target: Path,
    engine: Callable[..., MosaicStats],
    journal: Journal,
    tags: Mapping[str, str],
    writing: Writing,
) -> None:
    """Predict the scene into a temporary file, verify it, and rename it into place."""
    dtype = writing.confidence_dtype
    with RasterWriter(
        target, box=scene.box, band=confidence_band(dtype), tags=tags, writing=writing
    ) as writer:
        make_strips(engine, journal, [writer], finish=_ConfidenceLayer(dtype=dtype))
        scene.require_unchanged()
        put_in_place(journal, [writer])


def _described(scene: ImageScene, network: _Network) -> dict[str, object]:
    """All parameters that the pixels of the output depend on, by name."""
    source = network.source
    device, precision = resolved(source.device, source.precision)
    return {
        "model": source.name,
        "model_sha256": source.sha256,
        "source": Path(scene.name).name,
        "bands": ",".join(map(str, scene.spec.bands)),
        "nodata": ",".join("none" if v is None else str(v) for v in scene.spec.nodata),
        **decisive(network.tiling),
        "device": device,
        "precision": precision,
    }


def _predict_pictures(
    image: Path,
    pictures: Mapping[str, Path],
    output: PathLike | None,
    network: _Network,
    overwrite: bool,
    progress: Progress | None,
) -> tuple[Path, _Counts]:
    is_single = not image.is_dir()
    if is_single:
        ((_, picture),) = pictures.items()
        target = picture.with_name(f"{picture.stem}_confidence.png") if output is None else output
        maps = {picture: Path(os.fspath(target))}
    else:
        # "." and ".." have no name of their own.
        named = image if image.name not in ("", "..") else image.resolve()
        target = named.parent / f"{named.name}_confidence" if output is None else output
        maps = {picture: Path(os.fspath(target)) / f"{i}.png" for i, picture in pictures.items()}
    # Made for its errors alone: only the last picture may be larger than a tile.
    network.grid(RasterSize(height=1, width=1))
    if not is_single:
        make_directory(Path(os.fspath(target)), parents=True)
    # Looked up by path, not compared each with each: there may be thousands.
    inputs = {picture.resolve(): picture for picture in maps}
    for file in maps.values():
        if file.suffix.lower() != ".png":
            raise UsageError(f"{file}: the map of a picture is a PNG; name it so")
        same = inputs.get(file.resolve())
        check_output(file, overwrite=overwrite, inputs=[] if same is None else [same])
    counts, predictor = _Counts(), network.predictor()
    for done, (picture, file) in enumerate(maps.items(), 1):
        values = predict_picture(
            predictor, read_rgb(picture), network.tiling, batch_size=predictor.batch_size
        )  # fmt: skip
        write_png(file, values)
        counts.pixels += values.size
        counts.foreground += int(np.count_nonzero(values >= 128))
        if progress is not None:
            progress(done, len(maps))
    return Path(os.fspath(target)), counts
