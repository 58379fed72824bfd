"""Opening confidence rasters: what is accepted, what is valid, and what is said otherwise."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine

from geothresh.errors import GeothreshWarning, InputError, UsageError
from geothresh.options import Reading
from geothresh.raster.dataset import BlockLayout, evenly_spread
from geothresh.raster.paths import find_raster
from geothresh.raster.scene import open_scene
from geothresh.windows import PixelWindow, RasterSize
from tests.support.rasters import write_raster

FLOATS = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


def read(path: Path, **options: Any) -> tuple[Any, Any]:
    with open_scene(path, Reading(**options)) as scene:
        return scene.read(scene.size.window())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"},
        {"compress": "lzw", "predictor": 3},
        {"compress": "zstd"},
        {"compress": "lzma"},
        {"bigtiff": "YES"},
        {"endianness": "BIG"},
        {"blockysize": 1},
    ],
)
def test_containers(tmp_path: Path, options: dict[str, Any]) -> None:
    values, valid = read(write_raster(tmp_path / "any name.xyz", FLOATS, **options))
    np.testing.assert_array_equal(values, FLOATS)
    assert values.dtype == np.float32
    assert valid.dtype == np.bool_ and valid.all()


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_chosen_band_is_read(tmp_path: Path, interleave: str) -> None:
    bands = np.stack([FLOATS, FLOATS[::-1], FLOATS * 0])
    path = write_raster(tmp_path / "x.tif", bands, interleave=interleave)
    np.testing.assert_array_equal(read(path, bidx=2)[0], FLOATS[::-1])


def test_a_window_is_that_part_of_the_whole(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS)
    with open_scene(path) as scene:
        part, valid = scene.read(PixelWindow(row=1, col=2, height=2, width=1))
        np.testing.assert_array_equal(part, FLOATS[1:3, 2:3])
        assert valid.shape == (2, 1)
        with pytest.raises(ValueError, match="beyond"):
            scene.read(PixelWindow(row=1, col=2, height=3, width=1))


NAN = np.float32("nan")
LOWEST = np.float32(-3.4028234663852886e38)


@pytest.mark.parametrize(
    ("holes", "options"),
    [
        ([NAN], {}),
        ([NAN], {"nodata": NAN}),
        ([NAN, -9999], {"nodata": -9999}),
        ([LOWEST], {"nodata": -3.4028234663852886e38}),
        ([LOWEST], {"nodata": -3.40282e38}),
        ([NAN, 7], {"forced": 7}),
        ([0.3], {"nodata": np.float32(0.3)}),
        ([0.3], {"nodata": 0.3}),
    ],
)
def test_nodata_of_floats(tmp_path: Path, holes: list[float], options: dict[str, Any]) -> None:
    values = FLOATS.copy()
    expected = np.ones(values.shape, bool)
    for column, hole in enumerate(holes):
        values[1, column] = hole
        expected[1, column] = False
    forced = options.pop("forced", None)
    found, valid = read(write_raster(tmp_path / "x.tif", values, **options), nodata=forced)
    np.testing.assert_array_equal(valid, expected)
    assert not found[~valid].any()
    np.testing.assert_array_equal(found[valid], values[valid])


def test_infinities_are_no_data_and_told(tmp_path: Path) -> None:
    values = FLOATS.copy()
    values[0, :2] = np.inf, -np.inf
    path = write_raster(tmp_path / "x.tif", values)
    with pytest.warns(GeothreshWarning, match="infinite"):
        _, valid = read(path)
    assert valid.sum() == values.size - 2 and not valid[0, :2].any()


def test_nodata_of_integers(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = write_raster(tmp_path / "x.tif", values, nodata=5)
    found, valid = read(path)
    np.testing.assert_array_equal(valid, values != 5)
    np.testing.assert_allclose(found[valid], values[valid] / 255, atol=1e-7)
    _, valid = read(path, nodata=7)
    np.testing.assert_array_equal(valid, values != 7)


def test_zero_as_nodata_is_honoured_and_told(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS, nodata=0)
    with pytest.warns(GeothreshWarning, match="nodata is 0"):
        assert not read(path)[1][0, 0]


def test_nodata_that_cannot_occur(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", (FLOATS * 255).astype(np.uint8), nodata=77)
    # rasterio does not write such a tag, other programs do.
    path.write_bytes(path.read_bytes().replace(b"77\0", b".5\0"))
    with pytest.warns(GeothreshWarning, match="0.5 cannot occur"):
        assert read(path)[1].all()
    with pytest.raises(UsageError, match="`nodata"):
        open_scene(path, Reading(nodata=-9999))


def test_the_mask_band_does_not_shadow_nodata(tmp_path: Path) -> None:
    values = FLOATS.copy()
    values[0, 0], values[2, 3] = -9999, NAN
    mask = np.ones(values.shape)
    mask[1, 1] = 0
    path = write_raster(tmp_path / "x.tif", values, nodata=-9999, mask=mask)
    expected = np.ones(values.shape, bool)
    expected[[0, 1, 2], [0, 1, 3]] = False
    found, valid = read(path)
    np.testing.assert_array_equal(valid, expected)
    assert not found[~valid].any()


@pytest.mark.parametrize("nodata", [None, 3])
def test_grey_and_alpha(tmp_path: Path, nodata: int | None) -> None:
    bands = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    bands[1, 2] = 0
    path = write_raster(
        tmp_path / "x.tif", bands, photometric="MINISBLACK", alpha="YES", nodata=nodata
    )
    _, valid = read(path)
    np.testing.assert_array_equal(valid, (bands[1] > 0) & (bands[0] != nodata))
    with pytest.raises(UsageError, match="alpha"):
        open_scene(path, Reading(bidx=2))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p / "none.tif", "no such file"),
        (lambda p: p, "is a directory"),
        (lambda p: (p / "x").symlink_to(p / "gone") or p / "x", "link to"),
        (lambda p: os.mkfifo(p / "x") or p / "x", "not a regular file"),
        (lambda p: p / "x" if not (p / "x").write_bytes(b"") else p / "x", "empty"),
        (lambda p: (p / "x").write_bytes(b"II*\0") and p / "x", "cannot be opened"),
        (lambda p: (p / "x").write_bytes(b"II*\0\x08\0\0\0") and p / "x", "cannot be opened"),
        (lambda p: (p / "x").write_bytes(b"\x89PNG\r\n\x1a\n") and p / "x", "a PNG"),
        (lambda p: (p / "x").write_bytes(b"\xff\xd8\xff\xe0abc") and p / "x", "a JPEG"),
        (lambda p: (p / "x").write_bytes(b"\x89HDF\r\n\x1a\n") and p / "x", "HDF5"),
        (lambda p: (p / "x").write_text("<!DOCTYPE html><p>") and p / "x", "HTML"),
        (lambda p: (p / "x").write_text("version https://git-lfs.g") and p / "x", "git-lfs"),
        (lambda p: (p / "x").write_bytes(bytes(range(200))) and p / "x", "not a TIFF"),
        (lambda p: (p / "x.tif").write_text("<VRTDataset/>") and p / "x.tif", "`allow_vrt"),
        (lambda p: "<VRTDataset></VRTDataset>", "not the path"),
        (lambda p: f"GTIFF_DIR:1:{p}/x.tif", "not the path"),
        (lambda p: "MEM:::DATAPOINTER=1,PIXELS=1", "not the path"),
        (lambda p: "/vsistdin/", "any order"),
        (lambda p: "ftp://example.org/x.tif", "scheme"),
        (lambda p: "http://169.254.169.254/latest/x.tif", "link-local"),
        (lambda p: "/vsicurl/http://0xa9fea9fe/x.tif", "link-local"),
        (lambda p: "/vsicurl?url=http%3A%2F%2F169.254.169.254%2Fx", "link-local"),
        (lambda p: "https://user@[fe80::1%25eth0]:80/x.tif", "link-local"),
        (lambda p: "https://metadata.google.internal/x.tif", "metadata"),
    ],
)
def test_what_is_no_raster(tmp_path: Path, make: Any, text: str) -> None:
    with pytest.raises(InputError) as caught:
        open_scene(make(tmp_path))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_path() -> None:
    with pytest.raises(UsageError, match="refine_array"):
        open_scene(FLOATS)


def test_remote_names_are_left_to_gdal() -> None:
    for name in ("https://example.org/x.tif", "s3://bucket/x.tif", "/vsizip/x.zip/y.tif"):
        assert find_raster(name).remote


def test_an_open_dataset_names_its_file(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(read(dataset)[0], FLOATS)


def test_a_vrt_only_when_allowed(tmp_path: Path) -> None:
    write_raster(tmp_path / "x.tif", FLOATS)
    vrt = tmp_path / "x.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="3"><VRTRasterBand dataType="Float32" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">x.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(InputError, match="`allow_vrt"):
        open_scene(vrt)
    with pytest.warns(GeothreshWarning, match="no georeference"):
        np.testing.assert_array_equal(read(vrt, allow_vrt=True)[0], FLOATS)


def test_a_disguised_mask_file_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS)
    (tmp_path / "x.tif.msk").write_text("<VRTDataset/>")
    with pytest.raises(InputError, match="x.tif.msk"):
        open_scene(path)


@pytest.mark.parametrize(
    ("values", "options", "error", "text"),
    [
        (np.stack([FLOATS] * 3), {}, InputError, "`bidx"),
        (FLOATS.astype(np.complex64), {}, InputError, "complex64"),
        ((FLOATS * 9000).astype(np.uint16), {}, InputError, "`scale=10000`"),
        (FLOATS * 100, {}, InputError, "`scale=100`"),
        (FLOATS * 8 - 4, {}, InputError, "`scale=logit`"),
        ((FLOATS > 0.5).astype(np.uint8), {"photometric": "MINISWHITE"}, InputError, "MINISWHITE"),
        (FLOATS, {"transform": Affine(0, 0, 5, 0, 0, 5)}, InputError, "line or point"),
        (FLOATS, {"transform": Affine(1, 0, float("nan"), 0, 1, 5)}, InputError, "not finite"),
    ],
)
def test_unfit_rasters(
    tmp_path: Path, values: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    path = write_raster(tmp_path / "x.tif", values, **options)
    with pytest.raises(error) as caught:
        open_scene(path)
    assert text in str(caught.value)


@pytest.mark.parametrize("bidx", [4, 65535])
def test_bands_that_do_not_exist(tmp_path: Path, bidx: int) -> None:
    path = write_raster(tmp_path / "x.tif", np.stack([FLOATS] * 3))
    with pytest.raises(UsageError, match="from 1 to 3"):
        open_scene(path, Reading(bidx=bidx))


def test_a_colour_table_means_classes(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", (FLOATS * 3).astype(np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0)})
    with pytest.raises(InputError, match="colour table"):
        open_scene(path)


def test_one_bit(tmp_path: Path) -> None:
    bits = (FLOATS > 0.5).astype(np.uint8)
    values, _ = read(write_raster(tmp_path / "x.tif", bits, nbits=1))
    np.testing.assert_array_equal(values, bits)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"crs": None, "transform": None}, "no georeference"),
        ({"crs": None}, "no coordinate reference system"),
    ],
)
def test_a_missing_georeference_is_told(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS, **options)
    with pytest.warns(GeothreshWarning, match=text):
        open_scene(path).close()


def test_a_good_scene_warns_of_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_scene(path).close()


def noise(side: int) -> Any:
    return np.random.default_rng(0).random((side, side), np.float32)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("tiled", [True, False])
def test_a_file_cut_short_names_the_block(tmp_path: Path, part: float, tiled: bool) -> None:
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {"blockysize": 32}
    # Rewritten by GDAL, the directory stands first, as in a COG.
    plain = write_raster(tmp_path / "plain.tif", noise(256), compress="deflate", **blocks)
    path = tmp_path / "x.tif"
    with rasterio.open(plain) as dataset:
        rasterio.shutil.copy(dataset, path, driver="GTiff", compress="deflate", **blocks)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError) as caught:
        open_scene(path)
    assert "block (" in str(caught.value) and "cut short" in str(caught.value)


def test_damage_inside_a_block_names_it(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "x.tif", noise(128), compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[start : start + 300] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"block \(0, 1\) of 2 x 2, rows 0-63, columns 64-127"):
        open_scene(path)


def test_blocks_that_were_never_written_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=64, width=64, count=1, dtype="uint8", sparse_ok=True,
        tiled=True, blockxsize=16, blockysize=16, crs="EPSG:32632", transform=Affine.scale(2),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((16, 16), 9, np.uint8), 1, window=((0, 16), (0, 16)))
    with pytest.warns(GeothreshWarning, match="15 of 16 blocks are missing"):
        values, _ = read(path)
    assert values[0, 0] == pytest.approx(9 / 255) and not values[16:].any()


def test_absurd_sizes_are_refused_at_once(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS)
    with pytest.raises(InputError, match="4 x 3 pixels"):
        open_scene(path, most_pixels=11)
    huge = tmp_path / "huge.tif"
    with rasterio.open(
        huge, "w", driver="GTiff", height=40_000, width=40_000, count=1, dtype="uint8",
        sparse_ok=True, tiled=True, blockxsize=32_768, blockysize=32_768, compress="deflate",
    ):  # fmt: skip
        pass
    with pytest.raises(InputError, match="gdal_translate"):
        open_scene(huge)


def large_raster(path: Path, odd: float) -> Path:
    """Of 4096 x 4096 pixels, twice what the sample takes, with one odd value."""
    values = np.zeros((4096, 4096), np.uint8)
    values[:, 0] = 1
    layout = BlockLayout(size=RasterSize(height=4096, width=4096), part_height=64, part_width=64)
    sampled = set(evenly_spread(layout.count, 2**23 // 64**2).tolist())
    unseen = layout.window(next(i for i in range(layout.count) if i not in sampled))
    values[unseen.row + 3, unseen.col + 5] = odd
    return write_raster(path, values, tiled=True, blockxsize=64, blockysize=64, compress="lzw")


def test_a_value_that_the_sample_did_not_show(tmp_path: Path) -> None:
    path = large_raster(tmp_path / "x.tif", 200)
    with pytest.warns(GeothreshWarning, match="only 0 and 1"), open_scene(path) as scene:
        with pytest.raises(InputError) as caught:
            scene.read(scene.size.window())
        assert "200" in str(caught.value) and "`scale=255`" in str(caught.value)
    with open_scene(path, Reading(scale=255.0)) as scene:
        assert scene.read(scene.size.window())[0].max() == pytest.approx(200 / 255)


def test_threads_share_a_scene(tmp_path: Path) -> None:
    values = noise(256)
    path = write_raster(tmp_path / "x.tif", values, tiled=True, blockxsize=64, blockysize=64)
    wrong = []
    with open_scene(path) as scene:

        def work(seed: int) -> None:
            draw = np.random.default_rng(seed)
            for _ in range(50):
                row, col = (int(n) for n in draw.integers(0, 200, 2))
                window = PixelWindow(row=row, col=col, height=56, width=50)
                if not np.array_equal(scene.read(window)[0], values[window.slices()]):
                    wrong.append(window)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_spec_opens_the_same_scene_elsewhere(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", FLOATS * 100, nodata=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_scene(path, Reading(scale=100.0)) as scene:
            spec = pickle.loads(pickle.dumps(scene.spec))
            expected = scene.read(scene.size.window())
    assert hash(spec) == hash(scene.spec)
    with spec.open() as again:
        for one, other in zip(again.read(again.size.window()), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed"):
        spec.open()


@given(st.integers(1, 3000), st.integers(1, 300))
def test_evenly_spread(count: int, most: int) -> None:
    places = evenly_spread(count, most)
    assert len(places) <= most and len(places) >= min(count, most) * 0.5
    assert (np.diff(places) > 0).all() and places[0] >= 0 and places[-1] < count
    if len(places) > 3:
        assert np.diff(places).max() <= 4 * count / len(places) + 1
