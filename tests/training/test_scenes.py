"""Training from scenes: what counts, where chips are cut, what is held out, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine

from geothresh import fields
from geothresh.errors import GeothreshWarning, UsageError
from geothresh.nn.config import LossWeights
from geothresh.nn.losses import threshnet_loss
from geothresh.nn.scope import GroundSampleDistance, resampled_patch
from geothresh.raster.georeference import Georeference
from geothresh.training import handles
from geothresh.training.chips import ChipDataset
from geothresh.training.data import TILE, Cut, Pixels, TrainingData
from geothresh.training.holdout import BlockGrid, block_side, tiles
from geothresh.training.options import BIN, SceneData, Splitting
from geothresh.training.scene_data import gather_scenes
from geothresh.training.scenes import ChipPlaces, Survey, survey
from geothresh.windows import PixelWindow, RasterSize
from tests.support.rasters import NORTH_UP, write_raster
from tests.support.scenes import (
    HEIGHT,
    QUICK,
    ROADS,
    WIDTH,
    box,
    on_map,
    truth,
    write_layer,
    write_scene,
)


def gather(place: Path, scenes: list[Path] | None = None, **options) -> Any:
    """`TrainingData` whose sources are those of scenes."""
    recipe, pixels = options.pop("recipe", QUICK), options.pop("pixels", Pixels())
    known = {"patch": 64, "seed": 0, "progress": None}
    known |= {key: options.pop(key) for key in list(options) if key in known}
    splitting = {key: options.pop(key) for key in fields.known(Splitting) if key in options}
    options = {"labels": [place / "roads.gpkg"], "buffer": 8.0, **options}
    drawn = splitting.keys().isdisjoint({"split", "validation_aoi"})
    return gather_scenes(
        SceneData(scenes=scenes or [place / "scene.tif"], **options),
        Splitting(**{**({"validation_fraction": 0.2} if drawn else {}), **splitting}),
        pixels,
        chip_size=recipe.chip_size,
        largest=round(recipe.chip_size * recipe.zoom),
        **known,
    )


def held_pixels(material: TrainingData, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Where the manifest's validation blocks are in a scene."""
    manifest = json.loads(material.manifest)
    held = np.zeros(shape, bool)
    for name in manifest["validation"]:
        scene, block = name.split("/")
        grid = BlockGrid(**{k: tuple(v) for k, v in manifest["scenes"][scene].items()})
        held[grid.blocks()[block].slices()] = True
    return held


class Array:
    """A scene in memory."""

    def __init__(self, truth: np.ndarray, valid: np.ndarray) -> None:
        self.size = RasterSize(height=truth.shape[0], width=truth.shape[1])
        self.truth, self.valid = truth, valid

    def read(self, window: PixelWindow, side: str = "train") -> Cut:
        confidence = np.full((window.height, window.width), 0.25, np.float32)
        part = window.slices()
        return Cut(confidence, self.truth[part], self.valid[part], self.valid[part])


@settings(max_examples=20)
@given(data=st.data())
def test_a_survey_counts_what_is_there(data) -> None:
    height, width = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    truth, valid = rng.random((2, height, width)) < 0.4
    found = survey(Array(truth, valid), block_height=64, two_areas=False)
    for row, col in np.ndindex(found.valid.shape):
        one = np.s_[row * BIN : (row + 1) * BIN, col * BIN : (col + 1) * BIN]
        assert found.valid[row, col] == valid[one].sum()
        assert found.foreground[row, col] == (truth & valid)[one].sum()
    assert found.valid.sum() == valid.sum()
    blocks = BlockGrid.of(RasterSize(height=height, width=width), data.draw(st.integers(64, 200)))
    covered = np.zeros((height, width), int)
    for block in blocks.blocks().values():
        for tile in tiles(block):
            covered[tile.slices()] += 1
            assert found.valid[found.bins.span(tile)].sum() == valid[tile.slices()].sum()
    assert (covered == 1).all()


@given(data=st.data())
def test_no_square_touches_what_is_held_out(data) -> None:
    height, width = data.draw(st.integers(30, 900)), data.draw(st.integers(30, 900))
    size = RasterSize(height=height, width=width)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    shape = (-(-height // BIN), -(-width // BIN))
    valid = rng.integers(0, 2, shape) * rng.integers(0, BIN**2, shape)
    nothing = np.zeros(shape, np.int64)
    counted = Survey(
        size=size,
        valid=valid,
        foreground=nothing,
        held_valid=nothing,
        held_foreground=nothing,
        digest="",
    )
    held = np.zeros(shape, bool)
    pixels = np.zeros((height, width), bool)
    for block in BlockGrid.of(size, data.draw(st.integers(64, 400))).blocks().values():
        if rng.random() < 0.25:
            held[counted.bins.span(block)] = True
            pixels[block.slices()] = True
    largest = data.draw(st.integers(16, 300))
    try:
        places = ChipPlaces(counted, held, largest)
    except UsageError as error:
        assert "no chip of" in str(error)
        return
    for _ in range(30):
        side = data.draw(st.integers(8, largest))
        window = places.draw(side, rng)
        assert (window.height, window.width) == (min(side, height), min(side, width))
        assert window.row >= 0 and window.row_stop <= height
        assert window.col >= 0 and window.col_stop <= width
        assert not pixels[window.slices()].any()
    with pytest.raises(ValueError, match="wider than the largest"):
        places.draw(largest + 1, rng)


def test_chips_show_the_scene_off_the_blocks_to_validate_on(site: Path) -> None:
    material = gather(site, recipe=dataclasses.replace(QUICK, zoom=1.4))
    held = held_pixels(material)
    assert 0.1 < held.mean() < 0.4
    reads = []
    scene = material.train[0].scene
    original = scene.read
    scene.read = lambda window, side="train": reads.append(window) or original(window, side)
    chips = ChipDataset(material.train, dataclasses.replace(QUICK, zoom=1.4), patch=32)
    for epoch in range(12):
        chips.set_epoch(epoch)
        for k in range(len(chips)):
            assert chips[k].valid.any()
    assert len(reads) >= 96
    seen = np.zeros((HEIGHT, WIDTH), bool)
    for window in reads:
        seen[window.slices()] = True
    assert not (seen & held).any()
    assert seen[~held].mean() > 0.5


def test_values_without_data_change_nothing(site: Path, tmp_path: Path) -> None:
    other = write_scene(tmp_path / "scene.tif", under=201)
    recipe = dataclasses.replace(QUICK, zoom=1.3, jitter=0.5, regional_jitter=0.5)
    outcomes = []
    for scene in (site / "scene.tif", other):
        material = gather(site, [scene], recipe=recipe)
        chips = ChipDataset(material.train, recipe, patch=32)
        drawn = [chips[k] for k in range(24)]
        batch = [torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True)]
        confidence, target, true, valid = batch
        logits = [(confidence * s - 1).requires_grad_(True) for s in (3, 2)]
        weights = LossWeights(overlap=1.0, centerline=1.0, harm=1.0)
        found = threshnet_loss(
            confidence=confidence, logits=logits, region_target=target, truth=true,
            weights=weights, valid=valid,
        )  # fmt: skip
        gradients = torch.autograd.grad(found["total"], logits)
        outcomes.append((batch, found["total"], gradients, material.described["sha256"]))
    (batch, loss, gradients, digest), (others, other_loss, other_gradients, other_digest) = outcomes
    valid = batch[3]
    assert 0.5 < valid.mean() < 1, "the corner without data must be among the chips"
    for one, two in zip(batch, others, strict=True):
        assert torch.equal(one, two)
    assert loss == other_loss and digest == other_digest
    for one, two in zip(gradients, other_gradients, strict=True):
        assert torch.equal(one, two)
        assert not one[valid == 0].any()


def test_labels_are_the_same_as_vectors_as_a_mask_and_in_degrees(
    site: Path, tmp_path: Path
) -> None:
    # With corners all along: the file's own edges are straight in its own coordinates.
    areas = [shapely.segmentize(shapely.buffer(road, 8.0, quad_segs=64), 20) for road in ROADS]
    here = write_layer(tmp_path / "areas.gpkg", areas)
    there = write_layer(tmp_path / "degrees.gpkg", areas, to="EPSG:4326")
    mask = gather(site, labels=[site / "mask.tif"], buffer=None)
    lines = gather(site)
    polygons = gather(site, labels=[here], buffer=None)
    with pytest.warns(GeothreshWarning, match="reprojected to EPSG:32632"):
        degrees = gather(site, labels=[there], buffer=None)
    whole = RasterSize(height=HEIGHT, width=WIDTH).window()
    expected = mask.train[0].scene.read(whole).truth
    np.testing.assert_array_equal(expected, truth())
    for material, most in ((lines, 0), (polygons, 0), (degrees, 3)):
        found = material.train[0].scene.read(whole)
        assert (found.truth != expected).sum() <= most
    assert lines.described["sha256"] == mask.described["sha256"]


def test_only_the_area_of_interest_counts(site: Path) -> None:
    with pytest.warns(GeothreshWarning, match="area of interest will be reprojected"):
        material = gather(site, aoi=site / "aoi.geojson")
    whole = RasterSize(height=HEIGHT, width=WIDTH).window()
    cut = material.train[0].scene.read(whole)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[10:390, 10:300] = True
    assert (cut.valid != (inside & cut.data)).sum() <= 2
    assert cut.data[:, 320:400].all(), "what lies outside is still seen"
    for tile in material.validation:
        assert tile.read().valid.any()


def test_the_area_to_validate_on_is_trained_on_nowhere(site: Path, tmp_path: Path) -> None:
    corner = write_layer(tmp_path / "corner.gpkg", [box(5, 5, 60, 60)])
    material = gather(site, validation_aoi=corner)
    held = held_pixels(material)
    assert held[5:60, 5:60].all() and held.mean() < 0.5
    counted = np.sum([tile.read().valid.sum() for tile in material.validation])
    assert counted == 55 * 55
    places = material.train[0].places
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert not held[places.draw(64, rng).slices()].any()


def test_the_blocks_trained_on_are_those_beside_the_area_to_validate_on(
    site: Path, tmp_path: Path
) -> None:
    """They were told to be none: only what counts in validation was looked at."""
    corner = write_layer(tmp_path / "corner.gpkg", [box(300, 10, 500, 390)])
    labelled = write_layer(tmp_path / "labelled.gpkg", [box(0, 0, 500, 400)])
    options = {"validation_aoi": corner, "aoi": labelled, "block_size": 128}
    material = gather(site, **options)
    manifest = json.loads(material.manifest)
    sides = {side: set(manifest[side]) for side in ("train", "validation")}
    assert sides["train"] and not sides["train"] & sides["validation"]
    assert material.n_train == len(sides["train"])
    assert material.described["train_maps"] == {"roads/scene": len(sides["train"])}
    blocks = BlockGrid(**{k: tuple(v) for k, v in manifest["scenes"]["scene"].items()}).blocks()
    usable = np.zeros((HEIGHT, WIDTH), bool)
    usable[:400, :500] = True
    usable &= ~held_pixels(material)
    expected = {f"scene/{name}" for name, w in blocks.items() if usable[w.slices()].any()}
    assert sides["train"] == expected

    split = tmp_path / "split.json"
    split.write_text(material.manifest)
    followed = gather(site, split=split, aoi=labelled)
    assert held_pixels(followed).any()
    assert json.loads(followed.manifest)["train"] == manifest["train"]
    # Written before the blocks were counted so.
    split.write_text(json.dumps({**manifest, "train": []}))
    assert gather(site, split=split, aoi=labelled).manifest == followed.manifest


@pytest.mark.parametrize(("patch", "factor"), [(16, 2.2), (16, 2.3), (64, 2.25)])
def test_a_tile_to_validate_on_is_seen_in_one_pass(site: Path, patch: int, factor: float) -> None:
    """Not a pixel more than the network takes in at once, which would take four."""
    size = GroundSampleDistance(least=factor, greatest=factor)
    pixels = Pixels(given=(size,), resolution=1.0)
    tiles = gather(site, pixels=pixels, patch=patch, block_size=64).validation
    side = 512 // patch * resampled_patch(patch, factor)
    assert tiles[0].factor == factor and side != round(512 / factor)
    assert {tile.read().truth.shape for tile in tiles} == {(side, side)}


def test_scenes_of_one_ground_share_their_blocks(site: Path, tmp_path: Path) -> None:
    other = write_scene(tmp_path / "other.tif", seed=1)
    material = gather(site, [site / "scene.tif", other])
    sides = json.loads(material.manifest)
    held = {name.split("/")[1] for name in sides["validation"]}
    for scene in ("scene", "other"):
        assert {n.split("/")[1] for n in sides["validation"] if n.startswith(f"{scene}/")} == held
    first, second = material.train
    assert first.others == [second.scene]
    mixed = first.cut(64, np.random.default_rng(0), mix=1.0)
    plain = first.cut(64, np.random.default_rng(0), mix=0.0)
    assert (mixed.confidence != plain.confidence).any()
    np.testing.assert_array_equal(mixed.truth, plain.truth)


def test_what_is_held_out_in_one_scene_is_cut_out_of_another_that_overlaps(
    site: Path, tmp_path: Path
) -> None:
    """The second scene begins half a pixel off, 150 pixels further right, on pixels of 3 m."""
    east = Affine(3.0, 0, NORTH_UP.c + 301, 0, -3.0, NORTH_UP.f - 1)
    values = np.full((260, 400), 255, np.uint8)
    write_raster(tmp_path / "east.tif", values, transform=east)
    material = gather(site, [site / "scene.tif", tmp_path / "east.tif"], validation_fraction=0.4)
    manifest = json.loads(material.manifest)
    rng = np.random.default_rng(0)
    held = [(n.split("/")[0], n.split("/")[1]) for n in manifest["validation"]]
    transforms = {"scene": NORTH_UP, "east": east}
    areas = []
    for scene, block in held:
        grid = BlockGrid(**{k: tuple(v) for k, v in manifest["scenes"][scene].items()})
        window = grid.blocks()[block]
        left, top = on_map(transforms[scene], window.col, window.row)
        right, bottom = on_map(transforms[scene], window.col_stop, window.row_stop)
        areas.append(shapely.box(left, bottom, right, top))
    assert {scene for scene, _ in held} == {"scene", "east"}
    for source in material.train:
        transform = transforms[source.scene.name]
        for _ in range(100):
            window = source.places.draw(64, rng)
            left, top = on_map(transform, window.col, window.row)
            right, bottom = on_map(transform, window.col_stop, window.row_stop)
            chip = shapely.box(left, bottom, right, top)
            assert max(shapely.area(shapely.intersection(chip, a)) for a in areas) < 1e-6


def test_a_window_is_found_in_a_raster_of_another_crs() -> None:
    utm, degrees = (CRS.from_epsg(code).to_wkt() for code in (32632, 4326))
    size = RasterSize(height=400, width=700)
    here = Georeference(size=size, transform=tuple(NORTH_UP)[:6], crs=utm)
    frame = geopandas.GeoSeries([box(100, 100, 200, 160)], crs="EPSG:32632").to_crs("EPSG:4326")
    left, bottom, right, top = frame.total_bounds
    there = Georeference(
        size=RasterSize(height=90, width=80),
        transform=((right - left) / 50, 0, left, 0, (bottom - top) / 60, top),
        crs=degrees,
    )
    window = PixelWindow(row=100, col=100, height=60, width=100)
    found = there.window_over(here, window)
    assert found is not None
    assert (found.row, found.col) == (0, 0)
    assert 60 <= found.height <= 61 and 50 <= found.width <= 51
    assert there.window_over(here, PixelWindow(row=0, col=500, height=9, width=9)) is None
    nowhere = Georeference(size=RasterSize(height=9, width=9))
    assert nowhere.window_over(here, window) is None


@pytest.mark.parametrize("left", [179.5, -180.5, -180.5 + 720])
@pytest.mark.parametrize("in_utm", [True, False])
def test_a_window_is_found_on_both_sides_of_the_180th_meridian(left: float, in_utm: bool) -> None:
    utm, degrees = (CRS.from_epsg(code).to_wkt() for code in (32601, 4326))
    size = RasterSize(height=1000, width=1000)
    here = Georeference(size=size, transform=(0.001, 0, 179.5, 0, -0.001, 10.5), crs=degrees)
    if in_utm:
        # Its columns 0 to 1000 reach from 8 km west of the meridian to 2 km east of it.
        here = dataclasses.replace(here, transform=(10, 0, 163_000.0, 0, -10, 1_111_000.0), crs=utm)
    there = dataclasses.replace(here, transform=(0.001, 0, left, 0, -0.001, 10.5), crs=degrees)
    west, east = (
        there.window_over(here, PixelWindow(row=400, col=col, height=90, width=90))
        for col in (0, 900)
    )
    assert west is not None and east is not None
    assert west.width < 100 and east.width < 100
    assert 400 < east.col - west.col < 950 if not in_utm else 70 < east.col - west.col < 90


def test_coordinates_that_are_no_longitudes_are_not_turned() -> None:
    size, crs = RasterSize(height=100, width=100), CRS.from_epsg(4326).to_wkt()
    here = Georeference(size=size, transform=(1, 0, 500_000.0, 0, -1, 5_600_000.0), crs=crs)
    window = PixelWindow(row=10, col=10, height=9, width=9)
    assert here.window_over(here, window) == window
    aside = dataclasses.replace(here, transform=(1, 0, 500_360.0, 0, -1, 5_600_000.0))
    assert aside.window_over(here, window) is None


def test_a_scene_that_lost_its_crs_still_shows_the_same_ground() -> None:
    size, crs = RasterSize(height=400, width=700), CRS.from_epsg(32632).to_wkt()
    known = Georeference(size=size, transform=tuple(NORTH_UP)[:6], crs=crs)
    bare = dataclasses.replace(known, crs=None)
    window = PixelWindow(row=100, col=100, height=60, width=100)
    assert known.has_pixels_of(bare) and bare.has_pixels_of(known)
    assert bare.window_over(known, window) == known.window_over(bare, window) == window
    turned = dataclasses.replace(known, transform=(0.0, 2.0, 500_000.0, 2.0, 0.0, 5_600_000.0))
    assert turned.has_pixels_of(turned) and not turned.has_pixels_of(known)


def test_the_usual_block_is_smaller_in_smaller_scenes() -> None:
    def counted(side: int) -> Survey:
        counts = np.full((side, side), BIN**2)
        size = RasterSize(height=side * BIN, width=side * BIN)
        fields = ("valid", "foreground", "held_valid", "held_foreground")
        return Survey(size=size, digest="", **dict.fromkeys(fields, counts))

    assert block_side([counted(500)], 512) == 2048
    assert block_side([counted(40)], 512) == 739
    assert block_side([counted(10)], 512) == 512
    assert block_side([counted(10)] * 30, 512) == 1011


@given(start=st.integers(0, 40), side=st.integers(1, 6000))
def test_tiles_are_less_than_a_bin_larger_than_what_the_network_reads(
    start: int, side: int
) -> None:
    cut = tiles(PixelWindow(row=start * BIN, col=0, height=side, width=BIN))
    assert max(tile.height for tile in cut) < TILE + BIN
    assert sum(tile.height for tile in cut) == side


def test_scenes_travel_to_other_processes(site: Path) -> None:
    material = gather(site)
    recipe = dataclasses.replace(QUICK, zoom=1.0)
    chips = ChipDataset(material.train, recipe, patch=32)
    here = [chips[k] for k in range(8)]
    again = pickle.loads(pickle.dumps(chips))
    loader = torch.utils.data.DataLoader(chips, batch_size=None, num_workers=2)
    for one, two, three in zip(here, (again[k] for k in range(8)), loader, strict=True):
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, np.asarray(c))


def blank_scenes(folder: Path, sides: list[int]) -> list[Path]:
    """Scenes of noise side by side, each with a mask of its size beside it."""
    rng = np.random.default_rng(0)
    for k, side in enumerate(sides):
        place = NORTH_UP @ Affine.translation(5000 * k, 0)
        truth = (rng.random((side, side)) < 0.3).astype(np.uint8)
        write_raster(folder / f"s{k}.tif", truth * 99 + 50, transform=place)
        write_raster(folder / f"s{k}_mask.tif", truth, transform=place)
    return [folder / f"s{k}.tif" for k in range(len(sides))]


def gather_masked(scenes: list[Path], **options: Any) -> Any:
    masks = [path.with_name(f"{path.stem}_mask.tif") for path in scenes]
    return gather(scenes[0].parent, scenes, labels=masks, buffer=None, **options)


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_too_small_is_told_with_the_chip_size_that_fits(tmp_path: Path, seed: int) -> None:
    scenes = blank_scenes(tmp_path, [800])
    recipe = dataclasses.replace(QUICK, chip_size=320, zoom=1.6)
    with pytest.raises(UsageError, match=r"^s0: no chip of 512 pixels .*larger scene$") as caught:
        gather_masked(scenes, recipe=recipe, seed=seed)
    assert "validation_fraction" not in str(caught.value)
    found = re.search(r"lower `chip_size` to (\d+)", str(caught.value))
    assert found is not None and int(found[1]) % 64 == 0
    smaller = dataclasses.replace(recipe, chip_size=int(found[1]))
    assert gather_masked(scenes, recipe=smaller, seed=seed).train
    larger = dataclasses.replace(recipe, chip_size=int(found[1]) + 64)
    with pytest.raises(UsageError, match="no chip of"):
        gather_masked(scenes, recipe=larger, seed=seed)


def test_scenes_without_room_are_left_out_with_a_warning(tmp_path: Path) -> None:
    scenes = blank_scenes(tmp_path, [1400, 500])
    recipe = dataclasses.replace(QUICK, chip_size=256, zoom=1.0)
    split = tmp_path / "split.json"
    material = gather_masked(scenes, recipe=dataclasses.replace(recipe, chip_size=64))
    manifest = json.loads(material.manifest)
    grid = {"rows": [0, 256, 500], "cols": [0, 256, 500]}
    manifest["scenes"]["s1"] = grid
    manifest["validation"] = ["s1/r0c0"]
    manifest["train"] = [name for name in manifest["train"] if name.startswith("s0")]
    split.write_text(json.dumps(manifest))
    with pytest.warns(GeothreshWarning, match="1 scene not trained on.*held out: s1; lower"):
        material = gather_masked(scenes, recipe=recipe, split=split)
    assert [source.scene.name for source in material.train] == ["s0"]
    assert {name.split("/")[0] for name in json.loads(material.manifest)["train"]} == {"s0"}
    assert material.validation


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs the list of open files")
    scenes = blank_scenes(tmp_path, [200] * 12)
    before = len(list(descriptors.iterdir()))
    monkeypatch.setattr(handles.RecentFiles.__init__, "__defaults__", (3,))
    material = gather_masked(scenes)
    chips = ChipDataset(material.train, dataclasses.replace(QUICK, zoom=1.0), patch=32)
    first = [chips[k] for k in range(len(chips))]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(chips.__getitem__, range(len(chips))))
    for one, two in zip(first, again, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(list(descriptors.iterdir())) - before <= 2 * 3
