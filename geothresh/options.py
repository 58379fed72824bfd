"""The options of the public functions and of the commands, each declared once.

A class holds options that belong together. A field has the option's type, its default, the accepted
values (checked when an instance is created) and the help text of the command line. Functions take
instances by keyword; `geothresh.cli.fields` makes command-line options from the classes.

Errors name an option in backticks, as `name` or `name=value`. The command line shows it as --name
or --name value, see `geothresh.cli.naming`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from geothresh.errors import UsageError
from geothresh.fields import (
    COUNT,
    FLAG,
    SHARE,
    Choice,
    File,
    Number,
    Options,
    Pairs,
    Rectangle,
    Text,
    check,
    given,
    option,
)

Backend: TypeAlias = Literal["torch", "onnxruntime", "openvino"]
"""The library that runs the network."""
BatchSize: TypeAlias = int | Literal["auto"]
"""Number of tiles in a forward pass."""
Blend: TypeAlias = Literal["hann", "gaussian", "linear", "crop"]
"""How overlapping tiles are weighted; with ``crop``, each pixel comes from exactly one tile."""
Bounds: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top."""
Compile: TypeAlias = Literal["auto", "yes", "no"]
"""Whether torch compiles the network before it runs."""
Dtype: TypeAlias = Literal["uint8", "float32"]
"""Type of the values of a confidence raster."""
LayoutOption: TypeAlias = Literal["auto", "deepglobe", "plain", "kvasir", "duts"]
"""Layout of a folder of labelled images, see `geothresh.raster.layouts`."""
Metric: TypeAlias = Literal["chessboard", "cityblock"]
"""How the distance to a contour is measured, by the element of repeated erosions: ``chessboard`` is
a 3 x 3 square, as in the code of the authors of Boundary IoU; ``cityblock`` is a 3 x 3 cross, the
default of many image libraries. Bands of the cross are narrower along slanted edges, so its scores
are lower: compare only scores of the same metric."""
PathLike: TypeAlias = str | os.PathLike[str]
"""A path of a file or directory."""
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
"""Number format inside the network."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (number done, total number) of tiles, maps, files or other parts; never by two
threads at once."""
Resolution: TypeAlias = float | Literal["auto", "native"]
"""Pixel size at which the network reads a raster: in metres, ``native`` (not resampled), or
``auto``."""
ScaleOption: TypeAlias = float | Literal["auto", "logit"]
"""How stored values become confidences: automatic, value / N, or the logistic function."""
Side: TypeAlias = Literal["train", "validation"]
"""A side of a split of the data."""
Size: TypeAlias = float | tuple[float, float]
"""Ground sample distance in metres, or a range (least, greatest)."""
Tta: TypeAlias = Literal["none", "d4"]
"""Test-time augmentation: none, or the mean over the eight symmetries of the square."""


def layout_option() -> Any:
    """Make the option for the layout of folders of pairs, which several classes share."""
    return option(
        "auto",
        "Where images and masks are in DATA: deepglobe (ID_sat.jpg, ID_mask.png), plain (image/, "
        "mask/), kvasir (images/, masks/), duts (DUTS-TR/DUTS-TR-Image and so on); auto "
        "recognises it.",
        Choice(get_args(LayoutOption)),
    )


def resize_option() -> Any:
    """Make the option to read pictures at one size, which several classes share."""
    return option(
        None,
        "Read images, maps and masks as N x N pixels, as the paper does with 512; the default is "
        "their own size.",
        Number(whole=True, least=32),
        metavar="N",
    )


def mkdir_option() -> Any:
    """Make the option to create directories of outputs, which several classes share."""
    return option(False, "Create missing directories of the outputs.", FLAG)


def overwrite_option() -> Any:
    """Make the option to replace outputs, which several classes share."""
    return option(False, "Replace existing outputs.", FLAG)


def style_option() -> Any:
    """Make the option to write styles with outputs, which several classes share."""
    return option(
        True,
        "Write styles for QGIS and names of classes: .qml and .aux.xml beside the outputs, or "
        "inside a GeoPackage. A style that you have changed stays.",
        FLAG,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Options):
    """Which band and which part of a raster is read, and how its values become confidences."""

    bidx: int | None = option(
        None,
        "Band with the confidence, counted from 1; needed where there are several.",
        COUNT,
        flags=("-b", "--bidx"),
    )
    scale: ScaleOption = option(
        "auto",
        "Confidence is value / N, or the logistic of a logit; auto decides once per file.",
        Number(least=0, above=True, words=("auto", "logit")),
        metavar="auto|N|logit",
    )
    nodata: float | None = option(
        None,
        "Value that means no data, in place of the file's.",
        Number(),
        metavar="V",
    )
    aoi: PathLike | None = option(
        None,
        "Refine only inside the polygons of a vector file; outside becomes nodata.",
        File(),
        metavar="FILE",
    )
    bounds: Bounds | None = option(
        None,
        "Refine only inside this rectangle, in SCENE's CRS: left, bottom, right, top.",
        Rectangle(),
        metavar="L,B,R,T",
    )
    allow_vrt: bool = option(False, "Accept a VRT as input.", FLAG)

    def __post_init__(self) -> None:
        check(self)
        if self.aoi is not None and self.bounds is not None:
            raise UsageError("`aoi` and `bounds`: give one of them")


READ_WHOLE = ("bidx", "scale", "nodata", "allow_vrt")
"""The fields of `Reading` that apply if a raster is read whole, without an area."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refining(Options):
    """How a model refines, and how the mask is cut from its confidences."""

    tta: Tta = option(
        "none",
        "Test-time augmentation: d4 refines every tile turned and mirrored in all eight ways and "
        "takes the mean, which takes eight times as long.",
        Choice(get_args(Tta)),
        pixels=True,
    )
    resolution: Resolution = option(
        "auto",
        "Size of the pixels that the model reads: in metres on the ground, or native, the raster's "
        "own. auto is native where the model was trained on such pixels, else the nearest size "
        "that it was trained on. Outputs have the raster's own pixels.",
        Number(least=0, above=True, words=("auto", "native")),
        metavar="auto|native|M",
    )
    threshold: float = option(
        0.5,
        "A pixel is foreground where its refined confidence is at least this.",
        SHARE,
        pixels=True,
    )
    keep_threshold: float | None = option(
        None,
        "Refined confidence down to which a pixel that is foreground in the input stays "
        "foreground: it is removed only where the model is sure.  [default: the model's, see "
        "`geothresh model show`; at most the threshold]",
        SHARE,
        metavar="T",
    )
    calibration: PathLike | None = option(
        None,
        "Do what `geothresh calibrate` advised, from the file that it wrote: it names the model "
        "and all of the above.",
        File(),
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        check(self)
        others = [name for name in given(self) if name != "calibration"]
        if self.calibration is not None and others:
            raise UsageError(
                f"`calibration` decides on `{others[0]}`, and that is given too; leave one of them "
                "out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling(Options):
    """How a raster is cut into tiles for the network, and how tiles are blended."""

    tile_size: int = option(
        512,
        "Side of the square that the network reads, in its pixels; a multiple of its patch.",
        COUNT,
        pixels=True,
    )
    overlap: int | None = option(
        None,
        "Pixels that neighbouring tiles share, in the network's pixels; a multiple of its patch.  "
        "[default: 128, the model's patch where that is larger, less for small tiles]",
        Number(whole=True, least=0),
        pixels=True,
    )
    blend: Blend = option(
        "hann",
        "How the confidences of overlapping tiles are joined.",
        Choice(get_args(Blend)),
        pixels=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTiling(Tiling):
    """Tiles of base networks.

    They are larger, because a base network needs more context and larger tiles overlap less.
    """

    tile_size: int = option(
        1024,
        "Side of the square that the network reads, in pixels; a multiple of 32.",
        COUNT,
        pixels=True,
    )
    overlap: int = option(
        128,
        "Pixels that neighbouring tiles share; a multiple of 32.",
        Number(whole=True, least=0),
        pixels=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute(Options):
    """Where and how the network runs: device, library, number format and batch size."""

    batch_size: BatchSize = option(
        "auto",
        "Tiles that go through the network at once.",
        Number(whole=True, least=1, words=("auto",)),
        metavar="auto|N",
    )
    device: str = option("auto", "Where the network runs.", Text(), metavar="auto|cpu|cuda[:i]|mps")
    precision: Precision = option(
        "auto",
        "Number format inside the network; heads and blending stay fp32.",
        Choice(get_args(Precision)),
    )
    backend: Backend = option(
        "torch",
        "Library that runs the network; onnxruntime and openvino come with geothresh[onnx] and "
        "geothresh[openvino].",
        Choice(get_args(Backend)),
    )
    compile: Compile = option(
        "auto",
        "Have torch compile the network first, which takes up to some minutes once; auto does for "
        "large rasters and networks on a GPU, where it pays.",
        Choice(get_args(Compile)),
    )
    workers: int = option(
        0,
        "Worker processes on this machine, each with its own copy of the model: for several GPUs, "
        "or dozens of cores and thousands of tiles. 0 = threads of this process.",
        Number(whole=True, least=0),
        metavar="N",
    )
    scheduler: str | None = option(
        None,
        "Workers of a running Dask cluster, tcp://HOST:PORT or tls://HOST:PORT; they see the "
        "input and the model under the same paths.",
        Text(),
        metavar="ADDRESS",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.workers and self.scheduler is not None:
            raise UsageError(
                f"{self.workers} workers and the scheduler {self.scheduler}: name the one or the "
                "other"
            )
        if self.compile == "yes" and self.backend != "torch":
            raise UsageError(f"`compile=yes` and `backend={self.backend}`: torch alone compiles")

    @property
    def remote(self) -> bool:
        """Whether other processes run the network."""
        return self.workers > 0 or self.scheduler is not None


IN_THIS_PROCESS = ("batch_size", "device", "precision", "backend", "compile")
"""The fields of `Compute` that apply if the network runs in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing(Options):
    """How rasters are written, and what happens to existing files."""

    creation_options: Mapping[str, str] = option(
        {},
        "Creation option of the GeoTIFF driver; may be repeated.",
        Pairs(),
        flags=("--co",),
        metavar="NAME=VALUE",
    )
    cog: bool = option(
        False, "Write Cloud Optimised GeoTIFFs: with overviews, in a second pass.", FLAG
    )
    overviews: bool = option(
        False,
        "Add overviews, with which large rasters are drawn fast: the nearest pixel of classes, so "
        "that thin roads do not vanish, and the mean of confidences. A COG always has them.",
        FLAG,
    )
    confidence_dtype: Dtype = option(
        "uint8",
        "How a confidence raster stores its values: uint8 as 0-254 for 0-1 with 255 for no data, "
        "or float32 as they are with NaN.",
        Choice(get_args(Dtype)),
    )
    style: bool = style_option()
    resume: bool = option(
        True,
        "Keep finished work on the disk, and resume an interrupted run from it.",
        FLAG,
    )
    restart: bool = option(
        False, "Delete what an interrupted run left, and start from the beginning.", FLAG
    )
    parents: bool = mkdir_option()
    overwrite: bool = overwrite_option()

    @property
    def resumes(self) -> bool:
        """Whether the run resumes an interrupted run."""
        return self.resume and not self.restart

    @property
    def bytes_depend_on(self) -> dict[str, object]:
        """The options that the bytes of a raster depend on, by name, for fingerprints."""
        return {
            "creation_options": dict(self.creation_options),
            "cog": self.cog,
            "overviews": self.overviews,
            "confidence_dtype": self.confidence_dtype,
        }


WRITE_IN_ONE_GO = ("creation_options", "cog", "overviews", "style", "parents", "overwrite")
"""The fields of `Writing` that apply if a raster of classes is written without resuming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs(Options):
    """Files that `refine` writes besides the mask; None = the file is not written."""

    confidence: PathLike | None = option(
        None,
        "Write the refined confidence too: uint8, 0-254 for 0-1, 255 nodata.",
        File(),
        flags=("--confidence-out",),
        metavar="FILE",
    )
    changes: PathLike | None = option(
        None,
        "Write what changed too: 0 nothing, 1 became foreground, 2 became background, 255 nodata.",
        File(),
        flags=("--diff-out",),
        metavar="FILE",
    )
    thresholds: PathLike | None = option(
        None,
        "Write the threshold of each region of 64 x 64 pixels at which SCENE is most like the "
        "mask: 5-95 for 0.05-0.95, 255 nodata.",
        File(),
        flags=("--threshold-map-out",),
        metavar="FILE",
    )
    vector: PathLike | None = option(
        None,
        "Write the foreground as polygons too: .gpkg, .fgb, .geojson, .parquet or .shp.",
        File(),
        flags=("--vector-out",),
        metavar="FILE",
    )
    report: PathLike | None = option(
        None,
        "Write a report page too, .html: before and after, where most changed, how it was made. "
        "One file, which loads nothing.",
        File(),
        metavar="FILE",
    )
