"""Small files that claim or unpack to what no machine holds: refused before memory is asked for."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from geothresh.errors import InputError, ModelError
from geothresh.nn.config import NetworkConfig
from geothresh.options import Reading
from geothresh.raster.pictures import read_gray, read_rgb
from geothresh.raster.scene import open_scene
from geothresh.splitting import Split
from tests.security import tiffs
from tests.security.limited import Ended, run_limited
from tests.support.rasters import write_raster

# Python with its libraries, before any pixel, takes about half of this.
MOST = 400 << 20


def refused(ended: Ended, text: str) -> None:
    """It said so in one line, and took little memory."""
    assert ended.code == 3, ended
    assert ended.lines[-1].startswith("Error: ") and text in ended.lines[-1], ended
    assert sum(line.startswith("Error: ") for line in ended.lines) == 1
    assert ended.peak < MOST


def two_billion(path: Path) -> None:
    side = 2 * 10**9
    tiffs.write(path, tiffs.image(side, side) + tiffs.strips(side))


def thin(path: Path) -> None:
    tiffs.write(path, tiffs.image(1, 2**31 - 1) + tiffs.strips(2**31 - 1))


def wide(path: Path) -> None:
    tiffs.write(path, tiffs.image(2**31 - 1, 1) + tiffs.strips(1))


def huge_tile(path: Path) -> None:
    tiffs.write(path, tiffs.image(300, 300) + tiffs.tiles(40_000))


def many_bands(path: Path) -> None:
    """A block of all bands together, which is decoded for the sake of one."""
    tiffs.write(path, tiffs.image(512, 512, bands=65535) + tiffs.tiles(512))


def mask_inside(path: Path) -> None:
    tiffs.write(
        path,
        tiffs.image(300, 300) + tiffs.tiles(304),
        tiffs.mask(300, 300) + tiffs.tiles(44_992),
    )


def mask_beside(path: Path) -> None:
    write_raster(path, np.zeros((300, 300), np.uint8))
    tiffs.write(path.with_name(path.name + ".msk"), tiffs.image(300, 300) + tiffs.tiles(44_992))


RASTERS = {
    "2e9 x 2e9 pixels": (two_billion, "2000000000 x 2000000000 pixels"),
    "one column": (thin, "1 x 2147483647 pixels"),
    "one row": (wide, "2147483647 x 1 pixels"),
    "a huge tile": (huge_tile, "one block of 40000 x 40000"),
    "65535 bands": (many_bands, "of 65535 bands"),
    "a huge tile in the mask": (mask_inside, "one block of 44992 x 44992"),
}


@pytest.mark.parametrize("name", RASTERS)
def test_a_raster_is_refused_by_all_who_read_rasters(name: str, tmp_path: Path) -> None:
    make, text = RASTERS[name]
    path = tmp_path / "x.tif"
    make(path)
    assert path.stat().st_size < 800_000
    commands = [["info"], ["refine", "--vector-out", "v.gpkg"], ["vectorize"]]
    # One process for all: what the first took, the others would show.
    for command in commands if name == "2e9 x 2e9 pixels" else commands[-1:]:
        ended = run_limited(*command, "-b", "1", path, cwd=tmp_path)
        refused(ended, text)
    with pytest.raises(InputError, match=text.split(" of ")[0]):
        open_scene(path, Reading(bidx=1))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.tif"]


def test_a_mask_beside_a_raster_with_a_huge_tile(tmp_path: Path) -> None:
    mask_beside(tmp_path / "x.tif")
    ended = run_limited("vectorize", "x.tif", cwd=tmp_path)
    # GDAL may find the mask unusable before the size of its block comes up.
    assert ended.code in (0, 3) and ended.peak < MOST, ended


def test_the_limits_of_a_scene_can_be_lowered(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", np.zeros((600, 600), np.uint8))
    with open_scene(path, most_pixels=360_000):
        pass
    with pytest.raises(InputError, match="600 x 600 pixels are more than the 359999"):
        open_scene(path, most_pixels=359_999)


def test_a_narrow_raster_counts_as_one_that_is_a_tile_wide(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", np.zeros((1, 1024), np.uint8))
    with open_scene(path, most_pixels=512 * 1024):
        pass
    with pytest.raises(InputError, match="1024 x 1 pixels, 512 a side at least"):
        open_scene(path, most_pixels=512 * 1024 - 1)


@pytest.mark.parametrize("read", [read_gray, read_rgb])
def test_a_small_picture_with_a_huge_tile(read: object, tmp_path: Path) -> None:
    path = tmp_path / "x_mask.tif"
    bands = 1 if read is read_gray else 3
    tiffs.write(path, tiffs.image(300, 300, bands=bands) + tiffs.tiles(40_000))
    with pytest.raises(InputError, match="one block of 40000 x 40000"):
        read(path)


def png(width: int, height: int) -> bytes:
    """A grey PNG of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.catalogue(117)
@pytest.mark.parametrize("side", [10_000, 14_000])
def test_a_png_that_unpacks_to_far_more_than_it_weighs(side: int, tmp_path: Path) -> None:
    """Beyond Pillow's limit, where it only warns, and beyond twice that, where it raises."""
    bomb = png(side, side)
    assert len(bomb) < 1_000_000
    (tmp_path / "x.png").write_bytes(bomb)
    for read in (read_gray, read_rgb):
        with pytest.raises(InputError, match="decompression bomb"):
            read(tmp_path / "x.png")


@pytest.mark.slow
@pytest.mark.catalogue(117)
def test_a_png_bomb_among_the_training_data_is_found_before_the_first_epoch(
    tmp_path: Path,
) -> None:
    (tmp_path / "data" / "confidence").mkdir(parents=True)
    bomb = png(10_000, 10_000)
    for name in ("a_mask.png", "confidence/a.png", "b_mask.png", "confidence/b.png"):
        (tmp_path / "data" / name).write_bytes(bomb)
    ended = run_limited(
        "train", "data", "-o", "m.safetensors", "--validation-fraction", "0.5", cwd=tmp_path
    )
    assert ended.code == 3 and "decompression bomb" in ended.lines[-1], ended
    assert ended.peak < 2 * MOST  # torch
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_texts_in_a_png_are_bounded(tmp_path: Path) -> None:
    """100 MB of zeros in a comment of 100 kB."""
    whole = io.BytesIO(png(8, 8))
    head = whole.read(33)
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    comment = (
        struct.pack(">I", len(text))
        + b"zTXt"
        + text
        + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    )
    path = tmp_path / "x.png"
    path.write_bytes(head + comment + whole.read())
    with pytest.raises(InputError, match="cannot be read"):
        read_gray(path)


def safetensors(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def card(config: dict[str, object], **tensors: object) -> bytes:
    """The header of a ThreshNet's file."""
    metadata = {
        "format": "geothresh-threshnet",
        "format_version": "1",
        "config": json.dumps(config),
        "training": "{}",
    }
    return json.dumps({"__metadata__": metadata, **tensors}).encode()


WHOLE = NetworkConfig().as_dict()
HUGE = {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}
MODELS = {
    "a header of 2^63 bytes": safetensors(b"{}", 2**63),
    "a header of 2^64 - 1 bytes": safetensors(b"{}", 2**64 - 1),
    "a tensor of 2^80 numbers": safetensors(card(WHOLE, **{"stem.0.weight": HUGE})),
    "many blocks": safetensors(card({**WHOLE, "blocks": [4096] * 4})),
    "many grids": safetensors(card({**WHOLE, "pool_sizes": [1] * 100_000})),
    "fine grids": safetensors(card({**WHOLE, "pool_sizes": [4096]})),
    "a whole number of 5000 digits": safetensors(
        card(WHOLE).replace(b'\\"patch\\": 64', b'\\"patch\\": ' + b"9" * 5000)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_claims_too_much(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(MODELS[name])
    write_raster(tmp_path / "x.tif", np.full((32, 32), 128, np.uint8))
    ended = run_limited("refine", "x.tif", "-m", "m.safetensors", cwd=tmp_path, seconds=30)
    assert ended.code == 5 and ended.lines[-1].startswith("Error: "), ended
    assert ended.peak < 2 * MOST  # torch


def test_sizes_of_a_network_are_bounded() -> None:
    for name, value in (("blocks", [65, 1, 1, 1]), ("pool_sizes", [65]), ("pool_sizes", [1] * 9)):
        with pytest.raises(ModelError):
            NetworkConfig.from_dict({**WHOLE, name: value})


def test_a_manifest_is_small_and_shallow(tmp_path: Path) -> None:
    path = tmp_path / "x.split.json"
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(InputError, match="nested too deeply"):
        Split.load(path)
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(InputError, match="at most"):
        Split.load(path)
