"""Outputs that are complete or not there, on the input's grid."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.rpc import RPC
from rasterio.transform import Affine

from geothresh.errors import OutputError, UsageError
from geothresh.files import check_output, replacing, write_bytes, write_text
from geothresh.options import Writing
from geothresh.raster.creation import CONFIDENCE, gtiff_options, mask_band
from geothresh.raster.georeference import Georeference
from geothresh.raster.scene import open_scene
from geothresh.raster.writing import RasterWriter, confidence_values, mask_values
from geothresh.windows import PixelWindow, RasterSize

DRAW = np.random.default_rng(0)


def pattern(height: int, width: int) -> Any:
    return DRAW.integers(0, 2, (height, width), dtype=np.uint8)


def write(path: Path, values: Any, box: Georeference | None = None, **options: Any) -> Path:
    height, width = values.shape
    box = box or Georeference(size=RasterSize(height=height, width=width))
    options = {"band": mask_band(), "tags": {"GEOTHRESH_MODEL": "m"}, **options}
    with RasterWriter(path, box=box, **options) as writer:
        for row in range(0, height, 512):
            window = PixelWindow(row=row, col=0, height=min(512, height - row), width=width)
            writer.write(window, values[window.slices()])
        writer.finish()
        writer.publish()
    return path


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (513, 3), (600, 1100)])
def test_a_mask_as_it_is_promised(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = pattern(*shape)
    values[0, 0] = 255
    path = write(tmp_path / "m.tif", values)
    with rasterio.open(path) as mask:
        np.testing.assert_array_equal(mask.read(1), values)
        assert mask.dtypes == ("uint8",) and mask.nodata == 255
        assert mask.mask_flag_enums == ([MaskFlags.nodata],)
        assert mask.block_shapes == [(512, 512)] and mask.profile["tiled"]
        assert mask.profile["compress"] == "deflate"
        assert mask.colorinterp == (ColorInterp.palette,)
        colours = mask.colormap(1)
        assert colours[0] == (0, 0, 0, 255) and max(colours[1][:3]) == 255
        assert colours[255][3] == 0
        assert mask.tags()["GEOTHRESH_MODEL"] == "m"
    assert os.listdir(tmp_path) == ["m.tif"]


def test_a_confidence_reads_back_with_its_scale(tmp_path: Path) -> None:
    confidence = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    valid = np.ones(confidence.shape, bool)
    valid[3, 4] = False
    path = write(tmp_path / "c.tif", confidence_values(confidence, valid), band=CONFIDENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = open_scene(path)
    found, found_valid = scene.read(scene.size.window())
    np.testing.assert_array_equal(found_valid, valid)
    assert np.abs(found - confidence)[valid].max() <= 0.5 / 254 + 1e-6
    assert "scale" in scene.spec.scaling.text


def test_quantising() -> None:
    confidence = np.array([[0, 0.5, np.nextafter(np.float32(0.5), 0), 1, 0]], np.float32)
    valid = np.array([[True, True, True, True, False]])
    assert mask_values(confidence >= 0.5, valid).tolist() == [[0, 1, 0, 1, 255]]
    assert mask_values(confidence >= 0.0, valid).tolist() == [[1, 1, 1, 1, 255]]
    assert confidence_values(confidence, valid).tolist() == [[0, 127, 127, 254, 255]]


numbers = st.floats(-1e7, 1e7, allow_nan=False)
sizes = st.floats(1e-9, 1e5).flatmap(lambda size: st.sampled_from([size, -size]))


@given(
    origin=st.tuples(numbers, numbers),
    pixel=st.tuples(sizes, sizes),
    turn=st.sampled_from([0.0, 33.0, 90.0, 181.0]),
    crs=st.sampled_from([None, "EPSG:4326", "EPSG:32633", "ESRI:54030", "IAU_2015:49900"]),
    meaning=st.sampled_from([None, "Area", "Point"]),
)
def test_the_grid_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    origin: tuple[float, float],
    pixel: tuple[float, float],
    turn: float,
    crs: str | None,
    meaning: str | None,
) -> None:
    transform = Affine.translation(*origin) @ Affine.rotation(turn) @ Affine.scale(*pixel)
    tags = {"AREA_OR_POINT": meaning} if meaning else {}
    folder = tmp_path_factory.mktemp("grid")
    with rasterio.open(
        folder / "in.tif", "w", driver="GTiff", height=2, width=3, count=1, dtype="uint8",
        crs=crs, transform=transform,
    ) as dataset:  # fmt: skip
        dataset.update_tags(**tags)
        dataset.write(np.zeros((1, 2, 3), np.uint8))
    with rasterio.open(folder / "in.tif") as dataset:
        box = Georeference.of(dataset)
    write(folder / "out.tif", pattern(2, 3), box)
    with rasterio.open(folder / "out.tif") as dataset:
        found = Georeference.of(dataset)
    # What a GeoTIFF tells of a CRS without a name is not the same text each time.
    assert found.parsed_crs == box.parsed_crs
    assert dataclasses.replace(found, crs=None) == dataclasses.replace(box, crs=None)


def test_control_points_of_no_known_crs_are_copied(tmp_path: Path) -> None:
    points = tuple(GroundControlPoint(row, 3, row + 5, 7, 0, str(row)) for row in range(3))
    box = Georeference(size=RasterSize(height=4, width=4), gcps=points)
    with rasterio.open(write(tmp_path / "x.tif", pattern(4, 4), box)) as dataset:
        found, crs = dataset.gcps
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(r, 3, r + 5, 7) for r in range(3)]
        assert not crs


def test_control_points_and_rpcs_are_copied(tmp_path: Path) -> None:
    points = (
        GroundControlPoint(0, 0, 1, 2, 3, "1"),
        GroundControlPoint(0, 9, 3, 2, 0, "2"),
        GroundControlPoint(9, 0, 1, 5, 0, "3"),
    )
    rpcs = RPC(
        height_off=1, height_scale=2, lat_off=3, lat_scale=4, line_off=5, line_scale=6,
        long_off=7, long_scale=8, samp_off=9, samp_scale=10, err_bias=1, err_rand=2,
        line_den_coeff=[1.5] * 20, line_num_coeff=[2.5] * 20,
        samp_den_coeff=[3.5] * 20, samp_num_coeff=[4.5] * 20,
    )  # fmt: skip
    box = Georeference(
        size=RasterSize(height=10, width=10), gcps=points, gcps_crs=CRS.from_epsg(4326), rpcs=rpcs
    )
    with rasterio.open(write(tmp_path / "m.tif", pattern(10, 10), box)) as dataset:
        found, crs = dataset.gcps
        assert [asdict_of(point) for point in found] == [asdict_of(point) for point in points]
        assert crs == box.gcps_crs
        assert dataset.rpcs == rpcs
        assert dataset.transform == Affine.identity()


def asdict_of(point: GroundControlPoint) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("row", "col", "x", "y", "z", "id")}


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ({"compress": "zstd"}, {"compress": "zstd"}),
        ({"COMPRESS": "LZW", "PREDICTOR": "2"}, {"compress": "lzw"}),
        ({"BLOCKXSIZE": "256", "BLOCKYSIZE": "128"}, {"blockxsize": 256, "blockysize": 128}),
        ({"TILED": "NO"}, {"tiled": False}),
        ({"TILED": "NO", "BLOCKYSIZE": "7"}, {"tiled": False, "blockysize": 7}),
        ({"SPARSE_OK": "TRUE"}, {"tiled": True}),
    ],
)
def test_creation_options(tmp_path: Path, wished: dict[str, str], expected: Any) -> None:
    values = pattern(700, 800)
    values[:512] = 0
    path = write(tmp_path / "m.tif", values, writing=Writing(creation_options=wished))
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), values)
        assert expected.items() <= dataset.profile.items()


@pytest.mark.parametrize(
    "wished",
    [
        {"COMPRESS": "JPEG"},
        {"COMPRESS": "FAST"},
        {"PROFILE": "BASELINE"},
        {"NBITS": "1"},
        {"TFW": "YES"},
        {"BLOCKXSIZE": "100"},
        {"BLOCKYSIZE": "big"},
        {"BLOCKXSIZE": "\N{SUPERSCRIPT TWO}"},
        {"BLOCKXSIZE": "1048576"},
        {"BLOCKYSIZE": "0", "TILED": "NO"},
        {"ZLEVEL": "abc"},
        {"ZLEVEL": "99"},
        {"ZSTD_LEVEL": "-1"},
        {"LZMA_PRESET": "10"},
        {"NUM_THREADS": "many"},
        {"TILED": "MAYBE"},
    ],
)
def test_creation_options_that_would_lose_something(wished: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(wished))):
        gtiff_options(wished)
    assert gtiff_options({"NUM_THREADS": "all_cpus"})["NUM_THREADS"] == "ALL_CPUS"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("finished", [False, True])
def test_nothing_stays_of_a_run_that_failed(
    tmp_path: Path, error: type[BaseException], finished: bool
) -> None:
    target = tmp_path / "m.tif"
    target.write_text("old")
    box = Georeference(size=RasterSize(height=9, width=9))
    with (
        pytest.raises(error),
        RasterWriter(target, box=box, band=mask_band(), tags={}) as writer,
    ):
        assert target.read_text() == "old"
        writer.write(PixelWindow(row=0, col=0, height=9, width=9), pattern(9, 9))
        if finished:
            writer.finish()
        raise error
    assert os.listdir(tmp_path) == ["m.tif"] and target.read_text() == "old"


def test_a_block_that_was_not_written_is_found(tmp_path: Path) -> None:
    box = Georeference(size=RasterSize(height=1024, width=512))
    options = {"SPARSE_OK": "TRUE"}
    with RasterWriter(
        tmp_path / "m.tif",
        box=box,
        band=mask_band(),
        tags={},
        writing=Writing(creation_options=options),
    ) as writer:
        window = PixelWindow(row=0, col=0, height=512, width=512)
        writer.write(window, pattern(512, 512))
        # As GDAL does when a disk was full at close: a block is missing, nobody says so.
        writer._sparse = False
        with pytest.raises(OutputError, match="1 blocks could not be written"):
            writer.finish()
    assert not os.listdir(tmp_path)


def test_pixels_that_read_back_otherwise_are_found(tmp_path: Path) -> None:
    with RasterWriter(
        tmp_path / "m.tif",
        box=Georeference(size=RasterSize(height=9, width=9)),
        band=mask_band(),
        tags={},
    ) as writer:
        window = PixelWindow(row=0, col=0, height=9, width=9)
        writer.write(window, pattern(9, 9))
        writer._checksums[window] ^= 1
        with pytest.raises(OutputError, match="rows 0-8, columns 0-8"):
            writer.finish()
    assert not os.listdir(tmp_path)


FULL_DISK = """
import resource, sys
import numpy as np
from geothresh.errors import OutputError
from geothresh.raster.creation import mask_band
from geothresh.raster.georeference import Georeference
from geothresh.raster.writing import RasterWriter
from geothresh.windows import PixelWindow, RasterSize
from pathlib import Path

size = RasterSize(height=1024, width=1024)
values = np.random.default_rng(0).integers(0, 2, (512, 1024), dtype=np.uint8)
for line in sys.stdin:
    limit = int(line)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with RasterWriter(
            Path(sys.argv[1]), box=Georeference(size=size), band=mask_band(), tags={}
        ) as writer:
            for row in (0, 512):
                window = PixelWindow(row=row, col=0, height=512, width=1024)
                writer.write(window, values)
            writer.finish()
            writer.publish()
    except OutputError:
        print("refused")
    else:
        print(Path(sys.argv[1]).stat().st_size)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
"""


@pytest.mark.catalogue(87)
@pytest.mark.skipif(sys.platform == "win32", reason="has no RLIMIT_FSIZE")
def test_a_disk_that_fills_up_never_passes_for_success(tmp_path: Path) -> None:
    whole = int(run_full_disk(tmp_path / "whole.tif", [0])[0])
    target = tmp_path / "m.tif"
    target.write_text("old")
    limits = [whole - less for less in (1, 50, 1000, 20_000)]
    limits += DRAW.integers(1, whole, 8).tolist()
    assert run_full_disk(target, limits) == ["refused"] * len(limits)
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["m.tif", "whole.tif"]
    assert run_full_disk(target, [whole]) == [str(whole)]


def run_full_disk(target: Path, limits: list[int]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(target)],
        input="".join(f"{limit}\n" for limit in limits),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_the_result_has_the_permissions_of_any_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write(tmp_path / "m.tif", pattern(3, 3))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["ü é.tif", "-dash.tif", 'it\'s "quoted".tif', "n" * 251 + ".tif"])
def test_names(tmp_path: Path, name: str) -> None:
    write(check_output(tmp_path / name, overwrite=False), pattern(3, 3))
    assert os.listdir(tmp_path) == [name]


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    source.write_text("scene")
    (tmp_path / "hard.tif").hardlink_to(source)
    (tmp_path / "soft.tif").symlink_to(source)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    def check(name: str, overwrite: bool = True) -> Path:
        return check_output(tmp_path / name, overwrite=overwrite, inputs=[source])

    for name in ("in.tif", "hard.tif", "soft.tif", "folder/../in.tif"):
        with pytest.raises(UsageError, match="is the input"):
            check(name)
    for name, text in [
        ("none/x.tif", "does not exist"),
        ("folder", "is a directory"),
        ("pipe", "not a regular file"),
        ("in.tif/x.tif", "directory"),
        ("n" * 300, "cannot be written"),
    ]:
        with pytest.raises(OutputError, match=text):
            check(name)
    (tmp_path / "old.tif").write_text("old")
    with pytest.raises(OutputError, match="`overwrite"):
        check("old.tif", overwrite=False)
    assert check("old.tif") == tmp_path / "old.tif"
    with pytest.raises(UsageError):
        check_output("a\0b", overwrite=True)


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), replacing(target) as temporary:
        temporary.write_text("newer")
        raise KeyboardInterrupt
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["x"]


def test_a_small_file_that_does_not_fit_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.json"
    write_text(target, "é")
    assert target.read_bytes() == "é".encode()

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="x.json: cannot be written .No space left"):
        write_bytes(target, b"new")
    assert os.listdir(tmp_path) == ["x.json"] and target.read_text("utf-8") == "é"


def test_the_bytes_do_not_depend_on_the_threads_that_compress(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (1100, 1700), np.uint8)
    files = []
    for threads in ("1", "2", "7"):
        path = tmp_path / f"{threads}.tif"
        box = Georeference(size=RasterSize(height=1100, width=1700))
        options = {"NUM_THREADS": threads}
        writing = Writing(creation_options=options)
        with RasterWriter(path, box=box, band=mask_band(), tags={}, writing=writing) as writer:
            for row in range(0, 1100, 512):
                height = min(512, 1100 - row)
                window = PixelWindow(row=row, col=0, height=height, width=1700)
                writer.write(window, values[window.slices()])
            writer.finish()
            writer.publish()
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]
