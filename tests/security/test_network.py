"""What is fetched: a remote raster that the user names, and nothing that a file names."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

from geothresh.cli import main
from geothresh.errors import InputError
from geothresh.raster import gdal
from geothresh.raster.paths import find_raster
from geothresh.vector.reading import find_layer
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

CANARY = b"THE-SECRET-OF-THE-METADATA-SERVER "


@dataclass(slots=True)
class Server:
    """A server of this machine that tells what it was asked for."""

    url: str
    answers: dict[str, bytes]
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    busy: bool = False


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if self.path in found.redirects:
                self.send_response(302)
                self.send_header("Location", found.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if found.busy:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = found.answers.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *arguments: object) -> None:
            """Nothing: the test looks at `asked`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        found = Server(url=f"http://127.0.0.1:{serving.server_port}", answers={})
        thread = threading.Thread(target=serving.serve_forever, args=[0.02])
        thread.start()
        yield found
        serving.shutdown()
        thread.join()


METADATA = [
    "http://169.254.169.254/x.tif",
    "https://169.254.169.254:443/x.tif",
    "HTTP://169.254.169.254/x.tif",
    "http://169.254.169.254./x.tif",
    "http://user@169.254.169.254/x.tif",
    "http://a@b@169.254.169.254/x.tif",
    "http://user:pass%40word@169.254.169.254/x.tif",
    "http:/169.254.169.254/x.tif",
    "http:///169.254.169.254/x.tif",
    "http://0xa9fea9fe/x.tif",
    "http://0xA9.0xFE.0xA9.0xFE/x.tif",
    "http://0251.0376.0251.0376/x.tif",
    "http://2852039166/x.tif",
    "http://169.254.43518/x.tif",
    "http://169.16689662/x.tif",
    "http://%31%36%39.254.169.254/x.tif",
    "http://%2531%2536%2539.254.169.254/x.tif",
    "http://１６９.254.169.254/x.tif",
    "http://169。254。169。254/x.tif",
    "http://169．254．169．254/x.tif",
    "http://[::ffff:169.254.169.254]/x.tif",
    "http://[::ffff:a9fe:a9fe]:80/x.tif",
    "http://[::169.254.169.254]/x.tif",
    "http://[64:ff9b::a9fe:a9fe]/x.tif",
    "http://[2002:a9fe:a9fe::1]/x.tif",
    "http://[fe80::1%25eth0]/x.tif",
    "http://[fd00:ec2::254]/x.tif",
    "http://[fd20:ce::254]/x.tif",
    "http://169.254.170.2/x.tif",
    "http://100.100.100.200/x.tif",
    "http://192.0.0.192/x.tif",
    "http://168.63.129.16/x.tif",
    "http://metadata/x.tif",
    "http://metadata.google.internal/x.tif",
    "http://METADATA.google.internal./x.tif",
    "http://metadata.goog/x.tif",
    "http://u@metadata.google.internal:80/x.tif",
    "http://instance-data.ec2.internal/x.tif",
    "/vsicurl/http://169.254.169.254/x.tif",
    "/vsicurl/http:/169.254.169.254/x.tif",
    "/vsicurl/169.254.169.254/x.tif",
    "/vsicurl/metadata.google.internal/x.tif",
    "/vsicurl/ftp://169.254.169.254/x.tif",
    "/vsicurl_streaming/http://169.254.169.254/x.tif",
    "/vsicurl?url=http%3A%2F%2F169.254.169.254%2Fx.tif",
    "/vsicurl?use_head=no&url=http%3A%2F%2F%2531%2536%2539.254.169.254%2Fx.tif",
    "/vsicurl?url=http%3A%2F%2Fmetadata%2Fx.tif",
    "/vsizip//vsicurl/http://169.254.169.254/x.zip/x.tif",
    "/vsitar/{/vsicurl/http://169.254.169.254/x.tar}/x.tif",
    "/vsisubfile/0_100,/vsicurl/http://169.254.169.254/x.tif",
    "/vsiwebhdfs/http://169.254.169.254/x.tif",
    "/vsicached?file=%2Fvsicurl%2Fhttp%3A%2F%2F169.254.169.254%2Fx.tif",
]


@pytest.mark.catalogue(81)
@pytest.mark.parametrize("name", METADATA)
def test_no_spelling_of_a_metadata_address_is_opened(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object, **options: object) -> None:
        raise AssertionError(f"GDAL was given {arguments}")

    monkeypatch.setattr("rasterio.open", opened)
    result = runner().invoke(main, ["info", name])
    assert result.exit_code == 3, result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert "metadata address" in result.stderr or "no such file" in result.stderr
    if "no such file" in result.stderr:
        # With one slash it is no URL to GDAL either, but a path below this directory.
        assert name.startswith("http:/1")


@pytest.mark.parametrize(
    "name",
    [
        "https://example.com/metadata/x.tif",
        "https://metadata.example.com/x.tif",
        "https://example.com/2024/169/254/x.tif",
        "s3://bucket/metadata/x.tif",
        "/vsis3/metadata-of-mine/x.tif",
        "https://127.0.0.1/x.tif?token=a@b",
        "https://10.0.0.1/x.tif",
    ],
)
def test_addresses_that_only_look_like_it_are_let_pass(name: str) -> None:
    assert find_raster(name).location == name


def test_no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it stands for may change until GDAL asks, so that knowing it would be no guard."""

    def looked_up(*arguments: object, **options: object) -> None:
        raise AssertionError(f"looked up {arguments}")

    for ask in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, ask, looked_up)
    assert find_raster("https://unknown.example/x.tif").remote


def test_what_a_redirect_leads_to_is_shown_to_nobody(server: Server) -> None:
    """GDAL follows redirects, and cannot be told not to: what it finds must at least stay there."""
    server.answers["/secret"] = CANARY * 100
    server.redirects["/x.tif"] = f"{server.url}/secret"
    result = runner().invoke(main, ["info", f"{server.url}/x.tif"])
    assert result.exit_code == 3 and result.stderr.count("\n") == 1
    assert CANARY.decode().strip() not in result.output + result.stderr


def test_no_side_file_of_a_remote_raster_is_asked_for(
    server: Server, tmp_path: Path, tiny_model: Path
) -> None:
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    scene = write_raster(tmp_path / "x.tif", values).read_bytes()
    server.answers["/x.tif"] = scene
    for side in ("/x.tif.msk", "/x.tif.ovr", "/x.tif.aux.xml", "/x.tfw", "/"):
        server.answers[side] = CANARY
    output = tmp_path / "m.tif"
    result = runner().invoke(
        main, ["refine", f"{server.url}/x.tif", "-m", str(tiny_model), "-o", str(output)]
    )
    assert result.exit_code == 0, result.stderr
    assert set(server.asked) == {"/x.tif"}


def test_a_server_that_is_busy_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 3 more tries each time that GDAL asks: 1, 2 and 4 seconds apart, here a fiftieth."""
    monkeypatch.setitem(gdal._OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.02)
    server.busy = True
    started = time.monotonic()
    result = runner().invoke(main, ["info", f"{server.url}/x.tif"])
    assert result.exit_code == 3 and "503" in result.stderr and result.stderr.count("\n") == 1
    assert 2 <= len(server.asked) <= 8
    assert time.monotonic() - started < 20


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 10 seconds each time that GDAL asks, which is twice; here after one."""
    monkeypatch.setitem(gdal._OPTIONS, "GDAL_HTTP_LOW_SPEED_TIME", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        result = runner().invoke(main, ["info", f"http://127.0.0.1:{silent.getsockname()[1]}/x"])
    assert result.exit_code == 3 and result.stderr.count("\n") == 1
    assert time.monotonic() - started < 20


def vrt(source: str) -> str:
    return f"""<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">
    <SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename>
    <SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("source", ["/vsicurl/{}/x.tif", "/vsicurl_streaming/{}/x.tif", "{}/x.tif"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_allowed_vrt_fetches_nothing(
    source: str, nested: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    write_raster(tmp_path / "x.tif", np.zeros((8, 8), np.uint8))
    server.answers["/x.tif"] = (tmp_path / "x.tif").read_bytes()
    outer = tmp_path / "outer.vrt"
    if nested:
        (tmp_path / "inner.vrt").write_text(vrt(source.format(server.url)))
        outer.write_text(vrt(str(tmp_path / "inner.vrt")))
    else:
        outer.write_text(vrt(source.format(server.url)))
    for command in ("info", "refine", "vectorize"):
        result = runner().invoke(main, [command, str(outer), "--allow-vrt"])
        assert result.exit_code == 3, result.stderr
    assert server.asked == []


def geojson(**members: object) -> dict[str, object]:
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    feature = {
        "type": "Feature",
        "properties": {"type": "link", "url": "https://example.com"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    return {"type": "FeatureCollection", **members, "features": [feature]}


def link(url: str, kind: str = "link") -> dict[str, object]:
    return {"type": kind, "properties": {"href": url, "url": url, "type": "proj4"}}


def test_gdal_would_follow_the_link_of_a_geojson(server: Server, tmp_path: Path) -> None:
    """Or else what is tested next could go."""
    (tmp_path / "x.geojson").write_text(json.dumps(geojson(crs=link(f"{server.url}/crs"))))
    pyogrio.read_info(tmp_path / "x.geojson")
    assert server.asked


@pytest.mark.parametrize("kind", ["link", "LINK", "url", "Url"])
@pytest.mark.parametrize("where", ["collection", "geometry", "escaped", "twice", "comment"])
def test_no_geojson_fetches_its_crs(kind: str, where: str, server: Server, tmp_path: Path) -> None:
    crs = link(f"{server.url}/crs", kind)
    whole = geojson() if where == "geometry" else geojson(crs=crs)
    if where == "geometry":
        whole["features"][0]["geometry"]["crs"] = crs
    text = json.dumps(whole)
    if where == "escaped":
        text = text.replace('"crs"', '"\\u0063\\u0072s"').replace(
            f'"{kind}"', f'"\\u00{ord(kind[0]):x}{kind[1:]}"'
        )
    if where == "twice":
        text = text.replace('"features"', '"crs": null, "CRS": null, "features"')
    if where == "comment":
        text = text.replace('"crs"', '/* no JSON */ "crs"')
    path = tmp_path / "x.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match="by a link|no GeoJSON"):
        find_layer(path)
    assert server.asked == []


def test_other_geojson_is_read_as_ever(tmp_path: Path) -> None:
    name = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    for members in ({}, {"crs": name}, {"crs": None}):
        (tmp_path / "x.geojson").write_bytes(
            b"\xef\xbb\xbf" + json.dumps(geojson(**members)).encode()
        )
        assert find_layer(tmp_path / "x.geojson").n_features == 1


@pytest.mark.parametrize("text", ["{}/crs", "http://www.opengis.net/def/crs/EPSG/0/32632"])
def test_no_other_way_to_name_a_crs_fetches_it(text: str, server: Server, tmp_path: Path) -> None:
    """A name in GeoJSON, JSON-FG, the .prj of a shapefile."""
    url = text.format(server.url)
    (tmp_path / "n.geojson").write_text(
        json.dumps(geojson(crs={"type": "name", "properties": {"name": url}}))
    )
    (tmp_path / "f.geojson").write_text(
        json.dumps(
            geojson(
                conformsTo=["http://www.opengis.net/spec/json-fg-1/0.1/conf/core"], coordRefSys=url
            )
        )
    )
    pyogrio.raw.write(
        tmp_path / "s.shp", shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)])), [], [],
        geometry_type="Polygon", crs=None,
    )  # fmt: skip
    (tmp_path / "s.prj").write_text(url)
    for name in ("n.geojson", "f.geojson", "s.shp"):
        try:
            find_layer(tmp_path / name)
        except InputError as error:
            assert "\n" not in str(error)
    assert server.asked == []
