"""The report page of `refine`: the scene before and after, the changes, and the provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from geothresh.colours import ADDED, BACKGROUND, FOREGROUND, NO_DATA, REMOVED, THRESHOLD_RAMP
from geothresh.geobox import GeoBox
from geothresh.mosaic import RasterReader
from geothresh.pages import (
    Html,
    Picture,
    Section,
    Steps,
    facts,
    figure,
    fill,
    gallery,
    histogram,
    joined,
    legend,
    note,
    numbers,
    page,
    slider,
)
from geothresh.raster.creation import NODATA
from geothresh.raster.mask import Mask, MaskSpec
from geothresh.raster.paths import find_raster
from geothresh.raster.pictures import page_picture
from geothresh.raster.pixelsize import longitude_latitude
from geothresh.raster.scene import open_scene
from geothresh.run.changes import ChangeCounts
from geothresh.run.outputs import OutputFiles
from geothresh.run.survey import BINS, ReadMask, SceneStatistics, scene_statistics
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.windows import PixelWindow

# The colours of the ramp without opacity.
_THRESHOLDS = tuple((cut, colour) for cut, colour, _ in THRESHOLD_RAMP)
_CHANGES = {"added": ADDED, "removed": REMOVED, "unchanged foreground": FOREGROUND}
# Most bytes of a picture. Four of the whole scene and 24 of squares, in base64, stay below 5 MB.
_MOST_BYTES = 550_000
# Grey level of confidence 1 behind the mask of a square.
_CONFIDENCE = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refined:
    """A scene and its mask, open for reading."""

    scene: RasterReader
    mask: ReadMask
    box: GeoBox | None
    threshold: float


def refine_page(
    scene: RasterReader,
    files: OutputFiles,
    counts: ChangeCounts,
    *,
    box: GeoBox | None,
    threshold: float,
    provenance: Mapping[str, object],
) -> str:
    """Make the report page of a refinement: HTML in one file, under 5 MB for any scene.

    Reads scene and mask once more, window by window.

    Args:
        scene: the input.
        files: the finished outputs.
        counts: counts over the whole scene, made while the mask was written.
        box: the georeference; None without a transform.
        threshold: threshold of input and output.
        provenance: everything that the pixels depend on, by name.

    Raises:
        InputError: scene or mask cannot be read.
    """
    with ExitStack() as stack:
        mask = stack.enter_context(_open_mask(files.mask, counts.foreground_after))
        confidence = None
        if files.confidence is not None:
            confidence = stack.enter_context(open_scene(files.confidence))
        made = _Refined(scene=scene, mask=mask.read, box=box, threshold=threshold)
        seen = scene_statistics(scene, mask.read, threshold=threshold, refined=confidence)
        places = _places(made, seen)
    about = {name.replace("_", " "): value for name, value in provenance.items()}
    about |= {name: path.name for name, path in asdict(files).items() if path is not None}
    return page(
        f"{provenance['source']}: refined",
        f"{counts.changed:,} of {counts.valid:,} pixels with data changed "
        f"({100 * counts.changed_share:.2f} %): "
        f"{counts.added:,} became foreground, {counts.removed:,} background.",
        [
            Section(key="scene", title="The whole scene", body=_scene(seen, counts)),
            Section(key="places", title="Where most changed", body=places),
            Section(key="maps", title="Maps", body=_maps(seen)),
            Section(key="confidence", title="Confidences", body=_confidences(seen)),
            Section(key="provenance", title="How it was made", body=facts(about)),
        ],
    )


def _open_mask(path: Path, foreground: int) -> Mask:
    """Open a mask that `refine` wrote, without a pass over its pixels."""
    return MaskSpec(
        source=find_raster(path), bidx=1, mask_band=None, has_mask=False, nodata=NODATA, value=1,
        foreground=foreground,
    ).open()  # fmt: skip


def _scene(seen: SceneStatistics, counts: ChangeCounts) -> Html:
    first = _picture(_shaded(seen, (seen.before, FOREGROUND)), "The foreground of the input")
    second = _picture(_shaded(seen, (seen.after, FOREGROUND)), "The foreground of the refined mask")
    scale = "" if seen.factor == 1 else f", 1 pixel for {seen.factor} x {seen.factor}"
    drawn = slider(
        first, second, label="The whole scene", before="before", after="after",
        caption=fill("$w x $h pixels$scale", w=seen.size.width, h=seen.size.height, scale=scale),
    )  # fmt: skip
    figures = numbers(
        {
            "foreground before": f"{counts.foreground_before:,}",
            "foreground after": f"{counts.foreground_after:,}",
            "added": f"{counts.added:,}",
            "removed": f"{counts.removed:,}",
            "with data": f"{counts.valid:,}",
        }
    )
    colours = legend({"foreground": FOREGROUND, "no data": NO_DATA})
    hint = note("Drag over the picture, or focus it and use the arrow keys.")
    return joined([figures, drawn, colours, hint])


def _places(made: _Refined, seen: SceneStatistics) -> Html:
    if not seen.squares:
        return note("Nothing changed.")
    where = _where(made.box, seen.squares)
    colours = legend(_CHANGES)
    hint = note("Behind the mask the confidences of the input, the lighter the higher.")
    every = zip(seen.squares, where, strict=True)
    drawn = [_place(made, k, place, text) for k, (place, text) in enumerate(every, start=1)]
    return joined([colours, hint, gallery(drawn)])


def _place(made: _Refined, number: int, place: PixelWindow, where: str) -> Html:
    confidence, _ = made.scene.read(place)
    after, valid = made.mask(place)
    before = (confidence >= np.float32(made.threshold)) & valid
    first = _over_confidence(confidence, valid, (before, FOREGROUND))
    second = _over_confidence(
        confidence, valid, (after & before, FOREGROUND), (after & ~before, ADDED),
        (before & ~after, REMOVED),
    )  # fmt: skip
    added, removed = np.count_nonzero(after & ~before), np.count_nonzero(before & ~after)
    what = f"{added:,} pixels added, {removed:,} removed"
    return slider(
        _picture(first, f"Place {number}: the input"),
        _picture(second, f"Place {number}: {what}"),
        label=f"Place {number}", before="before", after="after",
        caption=fill(
            "<b>$number.</b> $what<br>$where<br>$pixels", number=number, what=what, where=where,
            pixels=place.text,
        ),
    )  # fmt: skip


def _where(box: GeoBox | None, places: Sequence[PixelWindow]) -> list[str]:
    """The map coordinates of the centres of windows, in words."""
    if box is None:
        return ["no georeference"] * len(places)
    centres = [(place.col + place.width / 2, place.row + place.height / 2) for place in places]
    points = box.to_map(np.array(centres, np.float64))
    texts = [f"x {x:.10g}, y {y:.10g}" for x, y in points]
    degrees = longitude_latitude(box, points)
    if degrees is None:
        return texts
    return [
        f"{text} (latitude {lat:.5f}, longitude {lon:.5f})"
        for text, (lon, lat) in zip(texts, degrees, strict=True)
    ]


def _maps(seen: SceneStatistics) -> Html:
    kept = np.clip(seen.after - seen.added, 0, 1)
    changes = _shaded(seen, (kept, FOREGROUND), (seen.removed, REMOVED), (seen.added, ADDED))
    change = figure(
        _picture(changes, "Map of what became foreground and background"),
        Html("What changed. Small changes are drawn stronger than their share of a pixel."),
    )
    colours = legend(_CHANGES)
    cuts = figure(
        _picture(_thresholds(seen), "Map of the region-specific thresholds"),
        Html(
            "The threshold of each region of 64 x 64 pixels at which the input is most like the "
            "refined mask. Where a region of the mask is empty, the lowest that leaves least."
        ),
    )
    scale = legend({f"{cut:g}": colour for cut, colour in _THRESHOLDS})
    return joined([change, colours, cuts, scale])


def _confidences(seen: SceneStatistics) -> Html:
    refined = None
    if seen.refined is not None:
        refined = Steps(name="refined", counts=seen.refined.tolist())
    drawn = histogram(
        Steps(name="input", counts=seen.confidences.tolist()), refined,
        label="Pixels by confidence", axis="confidence",
    )  # fmt: skip
    text = f"Bars: the input, in {BINS} steps"
    text += "; line: refined." if refined else ". Refined ones were not kept in a file."
    return joined([drawn, note(text)])


def _shaded(
    seen: SceneStatistics, *layers: tuple[Float32Array, tuple[int, int, int]]
) -> UInt8Array:
    """Draw layers of shares over one another, weighted by square root so that thin roads show."""
    picture = np.empty((*seen.valid.shape, 3), np.float32)
    picture[:] = BACKGROUND
    for share, colour in layers:
        weight = np.sqrt(share)[..., None]
        picture += weight * (np.array(colour, np.float32) - picture)
    picture[seen.valid == 0] = NO_DATA
    return np.rint(picture).astype(np.uint8)


def _over_confidence(
    confidence: Float32Array, valid: BoolArray, *layers: tuple[BoolArray, tuple[int, int, int]]
) -> UInt8Array:
    grey = BACKGROUND[0] + np.rint(confidence * np.float32(_CONFIDENCE - BACKGROUND[0]))
    picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    for where, colour in layers:
        picture[where] = colour
    picture[~valid] = NO_DATA
    return picture


def _thresholds(seen: SceneStatistics) -> UInt8Array:
    cuts = [cut for cut, _ in _THRESHOLDS]
    channels = [
        np.interp(seen.thresholds, cuts, [colour[channel] for _, colour in _THRESHOLDS])
        for channel in range(3)
    ]
    picture = np.stack(channels, axis=-1)
    picture[np.isnan(seen.thresholds)] = NO_DATA
    return np.rint(picture).astype(np.uint8)


def _picture(pixels: UInt8Array, alt: str) -> Picture:
    return page_picture(pixels, alt, most_bytes=_MOST_BYTES)
