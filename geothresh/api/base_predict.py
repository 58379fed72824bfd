"""From images to confidences: a GeoTIFF becomes a confidence raster, pictures become maps."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geothresh.api.durable import (
    make_strips,
    parameter_tags,
    put_in_place,
    require_room,
    run_fingerprint,
)
from geothresh.base.checkpoint import read_base_card
from geothresh.base.config import STRIDE
from geothresh.base.pictures import OVERLAP, TILE, predict_picture
from geothresh.base.predictor import BasePredictor, BaseSource
from geothresh.durability import Journal, finished_outputs
from geothresh.errors import GeothreshWarning, OutputError, UsageError
from geothresh.files import check_output
from geothresh.mosaic import (
    Layers,
    MosaicStats,
    Progress,
    RasterReader,
    load_refiner,
    mosaic,
    where_asked,
)
from geothresh.nn.refiner import resolved
from geothresh.options import BatchSize, Blend, PathLike, Precision
from geothresh.raster.creation import CONFIDENCE, gtiff_options
from geothresh.raster.image import ImageScene, open_image
from geothresh.raster.image_pairs import find_pictures
from geothresh.raster.paths import find_raster, is_tiff
from geothresh.raster.pictures import write_png
from geothresh.raster.writing import RasterWriter, confidence_values
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize, TileGrid

# Tiles that the engine hands to workers' networks at once; each cuts them into its own batches.
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """What was written."""

    output: Path
    """The confidence raster, the map of a picture, or the folder of maps."""
    images: int
    """Images predicted."""
    pixels: int
    """Pixels predicted: those with data."""
    foreground: int
    """Of these, pixels of confidence 0.5 and more."""
    model: str
    model_sha256: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "output": str(self.output)}


@dataclass(slots=True, kw_only=True)
class _Counts:
    pixels: int = 0
    foreground: int = 0


@dataclass(frozen=True, slots=True)
class _ConfidenceLayer:
    """Makes the confidence of a chunk as it is stored, and counts."""

    def __call__(
        self, reader: RasterReader, window: PixelWindow, confidence: Float32Array, valid: BoolArray
    ) -> Layers:
        """Make it, as `geothresh.mosaic.Finish` says."""
        counts = _Counts(
            pixels=int(np.count_nonzero(valid)),
            foreground=int(np.count_nonzero(valid & (confidence >= 0.5))),
        )
        return Layers(values=(confidence_values(confidence, valid),), counts=asdict(counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How tiles go through the network."""

    source: BaseSource
    tile: int
    overlap: int
    blend: Blend
    batch_size: BatchSize
    workers: int

    def predictor(self) -> BasePredictor:
        """The network, loaded once in this process."""
        loaded = load_refiner(self.source).refiner
        if not isinstance(loaded, BasePredictor):
            raise TypeError(f"{loaded!r} is no base network")
        return loaded

    def grid(self, scene: ImageScene) -> TileGrid:
        """The tiles of a scene."""
        return TileGrid(
            size=scene.size, tile=self.tile, overlap=self.overlap, patch=self.source.patch
        )


def predict(
    image: PathLike | Any,
    output: PathLike | None = None,
    *,
    model: PathLike,
    nodata: float | None = None,
    allow_vrt: bool = False,
    tile_size: int = TILE,
    overlap: int = OVERLAP,
    blend: Blend = "hann",
    batch_size: BatchSize = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    workers: int | None = 0,
    creation_options: Mapping[str, str] | None = None,
    resume: bool = True,
    restart: bool = False,
    overwrite: bool = False,
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
        model: file of a base network.
        nodata: stored value that marks missing data where all three bands hold it.
        allow_vrt: accept a VRT.
        tile_size: side of the square that the network reads, in pixels.
        overlap: pixels that neighbouring tiles share.
        blend: how overlapping tiles are weighted: hann, gaussian, linear or crop.
        batch_size: tiles that go through the network at once.
        device: auto, cpu, cuda, cuda:i or mps.
        precision: auto, fp32, bf16 or fp16.
        workers: worker processes for a GeoTIFF; 0 or None for threads of this one.
        creation_options: of the GeoTIFF driver.
        resume: of a GeoTIFF, keep finished strips on the disk, and go on from those of an
            interrupted run, as `refine` does.
        restart: throw away what an interrupted run left.
        overwrite: replace outputs that exist.
        progress: called with tiles (of a GeoTIFF) or pictures done, and their number.

    Raises:
        UsageError: arguments contradict each other or the image.
        InputError: an image cannot be read.
        OutputError: an output exists, or cannot be written.
        ModelError: the model is missing or damaged, or no base network.
    """
    started = time.perf_counter()
    gtiff_options(creation_options or {})
    if batch_size != "auto" and batch_size < 1:
        raise UsageError(f"batch size {batch_size!r}: say auto or a number of at least 1")
    way = _Way(
        source=BaseSource.find(model, device=device, precision=precision, batch_size=batch_size),
        tile=tile_size,
        overlap=overlap,
        blend=blend,
        batch_size=batch_size,
        workers=workers or 0,
    )
    counts = _Counts()
    pictures = _pictures(image)
    if pictures is None:
        images = 1
        target = _predict_scene(
            image, output, way, counts, nodata=nodata, allow_vrt=allow_vrt, overwrite=overwrite,
            creation_options=creation_options or {}, resume=resume, restart=restart,
            progress=progress,
        )  # fmt: skip
    else:
        if nodata is not None or way.workers or creation_options:
            raise UsageError(
                f"{image}: --nodata, --workers and --co are for a GeoTIFF; pictures need none"
            )
        images = len(pictures)
        target = _predict_pictures(
            Path(os.fspath(image)), pictures, output, way, counts, overwrite, progress
        )
    return PredictResult(
        output=target,
        images=images,
        pixels=counts.pixels,
        foreground=counts.foreground,
        model=Path(way.source.path).name.removesuffix(".safetensors"),
        model_sha256=way.source.sha256,
        seconds=round(time.perf_counter() - started, 3),
    )


def _pictures(image: PathLike | Any) -> dict[str, Path] | None:
    """The pictures that are meant, by id; None where it is a GeoTIFF, or to be opened as one."""
    if not isinstance(image, str | os.PathLike):
        return None
    path = Path(os.fspath(image))
    if path.is_dir():
        return find_pictures(path)
    if path.is_file() and path.suffix.lower() in (".png", ".jpg", ".jpeg") and not is_tiff(path):
        return {path.stem: path}
    return None


def _predict_scene(
    image: PathLike | Any,
    output: PathLike | None,
    way: _Way,
    counts: _Counts,
    *,
    nodata: float | None,
    allow_vrt: bool,
    overwrite: bool,
    creation_options: Mapping[str, str],
    resume: bool,
    restart: bool,
    progress: Progress | None,
) -> Path:
    source = find_raster(image, allow_vrt=allow_vrt)
    if output is None:
        if source.remote:
            raise UsageError(f"{source.name}: is not a local file; name the output with --output")
        local = Path(source.location)
        output = local.with_name(f"{local.stem}_confidence.tif")
    target = Path(os.fspath(output))
    finished = finished_outputs(target) if resume and not restart else frozenset()
    target = check_output(
        target,
        overwrite=overwrite or target.absolute() in finished,
        inputs=[] if source.remote else [source.location],
    )
    fill = read_base_card(way.source.path).config.mean
    with open_image(image, nodata=nodata, allow_vrt=allow_vrt, fill=fill) as scene:
        grid = way.grid(scene)
        batch = way.batch_size
        if batch == "auto":
            batch = _BATCH if way.workers else way.predictor().batch_size
        described = _described(scene, way)
        fingerprint = run_fingerprint(
            source, **described, outputs=[target.name], creation_options=creation_options
        )
        with Journal(target, fingerprint, restart=restart, keep=resume) as journal:
            if not journal.is_made([target]):
                require_room([target], scene.size, creation_options)
                engine = partial(
                    mosaic, scene, way.source, grid=grid, blend=way.blend, batch_size=batch,
                    where=where_asked(way.workers), reader_spec=scene.spec if way.workers else None,
                    progress=progress,
                )  # fmt: skip
                tags = parameter_tags(described, batch_size=way.batch_size)
                _write_confidence(scene, target, engine, journal, tags, creation_options)
            if journal.total("tiles_refined") == 0:
                warnings.warn(
                    f"{scene.name}: holds no data at all; neither does the confidence",
                    GeothreshWarning,
                    stacklevel=3,
                )
            counts.pixels = journal.total("pixels")
            counts.foreground = journal.total("foreground")
            journal.finish()
    return target


def _write_confidence(
    scene: ImageScene,
    target: Path,
    engine: Callable[..., MosaicStats],
    journal: Journal,
    tags: Mapping[str, str],
    creation_options: Mapping[str, str],
) -> None:
    """Predict the scene into a temporary file and put it in place when it is proven."""
    with RasterWriter(
        target, grid=scene.grid, band=CONFIDENCE, tags=tags, creation_options=creation_options,
    ) as writer:  # fmt: skip
        make_strips(engine, journal, [writer], finish=_ConfidenceLayer())
        scene.require_unchanged()
        put_in_place(journal, [writer])


def _described(scene: ImageScene, way: _Way) -> dict[str, object]:
    """All that the pixels of the output depend on, by name."""
    device, precision = resolved(way.source.device, way.source.precision)
    return {
        "model": Path(way.source.path).name.removesuffix(".safetensors"),
        "model_sha256": way.source.sha256,
        "source": Path(scene.name).name,
        "bands": ",".join(map(str, scene.spec.bands)),
        "nodata": ",".join("none" if v is None else str(v) for v in scene.spec.nodata),
        "tile_size": way.tile,
        "overlap": way.overlap,
        "blend": way.blend,
        "device": device,
        "precision": precision,
    }


def _predict_pictures(
    image: Path,
    pictures: Mapping[str, Path],
    output: PathLike | None,
    way: _Way,
    counts: _Counts,
    overwrite: bool,
    progress: Progress | None,
) -> Path:
    one = not image.is_dir()
    if one:
        ((_, picture),) = pictures.items()
        target = picture.with_name(f"{picture.stem}_confidence.png") if output is None else output
        maps = {picture: Path(os.fspath(target))}
    else:
        target = image.with_name(f"{image.name}_confidence") if output is None else output
        maps = {picture: Path(os.fspath(target)) / f"{i}.png" for i, picture in pictures.items()}
        _make_folder(Path(os.fspath(target)))
    # The first picture that is larger than a tile may be the last.
    TileGrid(size=RasterSize(height=1, width=1), tile=way.tile, overlap=way.overlap, patch=STRIDE)
    # By their names, not each against each: there may be thousands.
    inputs = {picture.resolve(): picture for picture in maps}
    for file in maps.values():
        if file.suffix.lower() != ".png":
            raise UsageError(f"{file}: the map of a picture is a PNG; name it so")
        same = inputs.get(file.resolve())
        check_output(file, overwrite=overwrite, inputs=[] if same is None else [same])
    predictor = way.predictor()
    for done, (picture, file) in enumerate(maps.items(), 1):
        values = predict_picture(
            predictor, picture, tile=way.tile, overlap=way.overlap, blend=way.blend,
            batch_size=predictor.batch_size,
        )  # fmt: skip
        write_png(file, values)
        counts.pixels += values.size
        counts.foreground += int(np.count_nonzero(values >= 128))
        if progress is not None:
            progress(done, len(maps))
    return Path(os.fspath(target))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror})") from error
