"""79-81: VRTs, which can point anywhere, and remote files."""

from __future__ import annotations

import html
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from tests.catalogue.bench import Bench
from tests.support.rasters import write_raster

VALUES = np.linspace(0, 1, 1500, dtype=np.float32).reshape(30, 50)
CANARY = "canary"

# A file of another's, read as pixels.
RAW = """<VRTDataset rasterXSize="50" rasterYSize="30">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{secret}</SourceFilename><ImageOffset>0</ImageOffset>
<PixelOffset>1</PixelOffset><LineOffset>50</LineOffset></VRTRasterBand></VRTDataset>"""

PYTHON = """<VRTDataset rasterXSize="50" rasterYSize="30">
<VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">
<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode><![CDATA[
open("canary", "w").close()
def f(*arguments, **more):
    open("canary", "w").close()
]]></PixelFunctionCode></VRTRasterBand></VRTDataset>"""

ITSELF = """<VRTDataset rasterXSize="50" rasterYSize="30">
<VRTRasterBand dataType="Float32" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


def vrt_of(scene: str, path: str) -> None:
    rasterio.shutil.copy(scene, path, driver="VRT")


@pytest.mark.catalogue(79)
def test_a_vrt_only_on_request(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES)
    vrt_of("x.tif", "x.vrt")
    bench.refine_refused(3, "is a VRT, which can point at any other file", "x.vrt")
    bench.refined("x.vrt", "--allow-vrt", expected=VALUES)


@pytest.mark.catalogue(79)
def test_a_missing_source_is_named(bench: Bench) -> None:
    write_raster(Path("gone.tif"), VALUES)
    vrt_of("gone.tif", "x.vrt")
    Path("gone.tif").unlink()
    line = bench.refine_refused(3, "gone.tif", "x.vrt", "--allow-vrt")
    assert "check the files that the VRT names" in line


@pytest.mark.catalogue(80)
@pytest.mark.parametrize("name", ["x.vrt", "x.tif"])
@pytest.mark.parametrize("allowed", [(), ("--allow-vrt",)])
def test_code_in_a_vrt_is_not_run(bench: Bench, name: str, allowed: tuple[str, ...]) -> None:
    Path(name).write_text(PYTHON)
    bench.refine_refused(3, f"{name}: ", name, *allowed)
    assert not Path(CANARY).exists()


@pytest.mark.catalogue(80)
@pytest.mark.parametrize("name", ["x.vrt", "x.tif"])
def test_a_vrt_by_any_name_is_refused_unasked(bench: Bench, name: str) -> None:
    Path("secret").write_text("password" * 300)
    Path(name).write_text(RAW.format(secret=bench.place / "secret"))
    bench.refine_refused(3, "is a VRT", name)


@pytest.mark.catalogue(80)
def test_raw_bytes_are_never_read(bench: Bench) -> None:
    """Not even where VRTs are allowed, nor through a second one."""
    Path("secret").write_text("password" * 300)
    Path("raw.vrt").write_text(RAW.format(secret=bench.place / "secret"))
    bench.refine_refused(3, "raw bytes of another file", "raw.vrt", "--allow-vrt")
    for number, name in ((1, "raw.vrt"), (0, str(bench.place / "raw.vrt"))):
        inner = ITSELF.format(name=name).replace('VRT="1"', f'VRT="{number}"')
        Path("outer.vrt").write_text(inner)
        line = bench.refine_refused(3, "raw bytes of another file", "outer.vrt", "--allow-vrt")
        assert "raw.vrt" in line
    # An inner VRT may stand in the name itself.
    hidden = html.escape(RAW.format(secret=bench.place / "secret"))
    Path("inline.vrt").write_text(ITSELF.format(name=hidden))
    bench.refine_refused(3, "raw bytes of another file", "inline.vrt", "--allow-vrt")


@pytest.mark.catalogue(80)
def test_a_vrt_of_itself_ends(bench: Bench) -> None:
    Path("x.vrt").write_text(ITSELF.format(name="x.vrt"))
    bench.refine_refused(3, "x.vrt: ", "x.vrt", "--allow-vrt")
    Path("y.vrt").write_text(ITSELF.format(name="z.vrt"))
    Path("z.vrt").write_text(ITSELF.format(name="y.vrt"))
    bench.refine_refused(3, "y.vrt: ", "y.vrt", "--allow-vrt")


@pytest.fixture
def server(bench: Bench) -> Iterator[str]:
    """Serves the current directory on a free port of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = partial(Quiet, directory=str(bench.place))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.catalogue(81)
def test_a_url_that_was_typed(bench: Bench, server: str) -> None:
    write_raster(Path("x.tif"), VALUES, compress="deflate")
    bench.refined(f"{server}/x.tif", expected=VALUES, reference="x.tif")
    bench.refine_refused(3, f"{server}/none.tif: ", f"{server}/none.tif", "-o", "m.tif")


@pytest.mark.catalogue(80)
def test_a_vrt_on_a_server_reads_rasters_there_and_nothing_of_this_machine(
    bench: Bench, server: str
) -> None:
    write_raster(Path("x.tif"), VALUES)
    vrt_of("x.tif", "x.vrt")
    bench.refined(f"{server}/x.vrt", "--allow-vrt", expected=VALUES, reference="x.tif")
    Path("secret").write_text("password" * 300)
    Path("raw.vrt").write_text(RAW.format(secret=bench.place / "secret"))
    Path("outer.vrt").write_text(ITSELF.format(name=bench.place / "raw.vrt").replace('"1"', '"0"'))
    for name in ("raw.vrt", "outer.vrt"):
        url = f"{server}/{name}"
        bench.refine_refused(3, "raw bytes of another", url, "--allow-vrt", "-o", "m.tif")


@pytest.mark.catalogue(81)
def test_a_zip_that_was_typed(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES)
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.write("x.tif")
    bench.refined("/vsizip/x.zip/x.tif", expected=VALUES, reference="x.tif")


@pytest.mark.catalogue(81)
@pytest.mark.parametrize("address", ["169.254.169.254", "[fe80::1]", "metadata.google.internal"])
def test_addresses_that_are_never_read(bench: Bench, address: str) -> None:
    bench.refine_refused(3, "link-local or metadata", f"http://{address}/x.tif")


@pytest.mark.catalogue(81)
def test_a_port_where_nobody_listens(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.tif"
    start = time.perf_counter()
    line = bench.refine_refused(3, url, url, "-o", "m.tif")
    assert "check address, network and credentials" in line
    assert time.perf_counter() - start < 30


@pytest.mark.slow
@pytest.mark.catalogue(81)
def test_a_server_that_never_answers(bench: Bench) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.tif"
        start = time.perf_counter()
        bench.refine_refused(3, url, url, "-o", "m.tif")
        assert time.perf_counter() - start < 30
