"""A VRT, or what GDAL finds beside a raster, can point at any other file: no such file is read."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

CANARY = 213
"""What all bytes of the file are that nobody may read: as a confidence, 0.84."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a raster of zeros and the file that nobody may read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes([CANARY]) * 64 * 64)
    write_raster(tmp_path / "good.tif", np.zeros((64, 64), np.uint8))
    return tmp_path


def raw(place: Path) -> str:
    """A band that is the bytes of the secret."""
    return f"""<VRTDataset rasterXSize="64" rasterYSize="64">
    <GeoTransform>500000, 2, 0, 5000000, 0, -2</GeoTransform>
    <VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
    <SourceFilename relativetoVRT="0">{place / "secret.bin"}</SourceFilename>
    <ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>64</LineOffset>
    </VRTRasterBand></VRTDataset>"""


def python(place: Path) -> str:
    """A band that is computed by code in the file."""
    return f"""<VRTDataset rasterXSize="64" rasterYSize="64">
    <VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">
    <SimpleSource><SourceFilename>{place / "good.tif"}</SourceFilename></SimpleSource>
    <PixelFunctionType>run</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
    <PixelFunctionCode><![CDATA[
def run(ins, out, *rest, **more):
    open({str(place / "canary")!r}, "w").close()
    out[:] = {CANARY}
    ]]></PixelFunctionCode></VRTRasterBand></VRTDataset>"""


def itself(place: Path) -> str:
    return f"""<VRTDataset rasterXSize="64" rasterYSize="64">
    <VRTRasterBand dataType="Byte" band="1">
    <SimpleSource><SourceFilename>{place / "x.vrt"}</SourceFilename></SimpleSource>
    </VRTRasterBand></VRTDataset>"""


def missing(place: Path) -> str:
    return itself(place).replace("x.vrt", "gone.tif")


def test_a_raw_band_would_show_the_secret(place: Path) -> None:
    """Or else its absence below would mean nothing."""
    (place / "x.vrt").write_text(raw(place))
    with rasterio.open(place / "x.vrt") as dataset:
        assert (dataset.read(1) == CANARY).all()


@pytest.mark.catalogue(79, 80)
@pytest.mark.parametrize("name", ["x.vrt", "x.tif", "x"])
@pytest.mark.parametrize("make", [raw, python, itself, missing])
@pytest.mark.parametrize("command", ["info", "refine", "vectorize"])
def test_no_vrt_is_opened_by_whatever_name(
    make: object, name: str, command: str, place: Path
) -> None:
    (place / name).write_text(make(place))
    result = runner().invoke(main, [command, name])
    assert result.exit_code == 3 and "--allow-vrt" in result.stderr
    assert not (place / "canary").exists()
    assert sorted(file.name for file in place.iterdir()) == sorted(["good.tif", "secret.bin", name])


@pytest.mark.catalogue(80)
def test_code_in_an_allowed_vrt_is_not_run(
    place: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the environment says that it may be."""
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    (place / "x.vrt").write_text(python(place))
    for workers in ("0", "1"):
        result = runner().invoke(
            main, ["refine", "x.vrt", "--allow-vrt", "-m", str(tiny_model), "--workers", workers]
        )
        assert result.exit_code == 3, result.stderr
        assert result.stderr.splitlines()[-1].startswith("Error: x.vrt: ")
    assert not (place / "canary").exists()


@pytest.mark.catalogue(79, 80)
@pytest.mark.parametrize(("make", "named"), [(itself, "x.vrt"), (missing, "gone.tif")])
def test_an_allowed_vrt_that_includes_itself_or_nothing_ends(
    make: object, named: str, place: Path, tiny_model: Path
) -> None:
    (place / "x.vrt").write_text(make(place))
    result = runner().invoke(main, ["refine", "x.vrt", "--allow-vrt", "-m", str(tiny_model)])
    assert result.exit_code == 3 and named in result.stderr


def source(name: str, relative: int = 1) -> str:
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource>"
    )


def outer(band: str, before: str = "") -> str:
    """A VRT of one band."""
    return (
        f'<VRTDataset rasterXSize="64" rasterYSize="64">{before}'
        f'<VRTRasterBand dataType="Byte" band="1">{band}</VRTRasterBand></VRTDataset>'
    )


HIDING = {
    "an entity": lambda place: raw(place).replace("VRTRaw", "VRTRa&#119;"),
    "an element": lambda place: (
        raw(place)
        .replace(' subClass="VRTRawRasterBand"', "")
        .replace("<ImageOffset>", "<subClass>VRTRawRasterBand</subClass><ImageOffset>")
    ),
    "CDATA": lambda place: outer(source("<![CDATA[inner.vrt]]>")),
    "a space": lambda place: outer(
        source("inner.vrt").replace("</SourceFilename>", "</SourceFilename >")
    ),
    "a late start": lambda place: outer(source("late.vrt")),
    "a part of a file": lambda place: outer(
        source(f"/vsisubfile/0_100000,{place}/inner.vrt", relative=0)
    ),
    "a driver": lambda place: outer(source(f"vrt://{place}/inner.vrt", relative=0)),
    "a subdataset": lambda place: outer(
        source(f"DERIVED_SUBDATASET:AMPLITUDE:{place}/inner.vrt", relative=0)
    ),
    "the name itself": lambda place: outer(source(html.escape(raw(place)), relative=0)),
    "an overview": lambda place: outer(
        '<Overview><SourceFilename relativeToVRT="1">inner.vrt</SourceFilename></Overview>'
        + source("good.tif")
    ),
    "a mask": lambda place: outer(
        source("good.tif"),
        f'<MaskBand><VRTRasterBand dataType="Byte">{source("inner.vrt")}'
        "</VRTRasterBand></MaskBand>",
    ),
    "a file of another kind": lambda place: outer(source("label.xml")),
}


@pytest.mark.parametrize("way", HIDING)
@pytest.mark.parametrize("command", ["info", "refine", "vectorize"])
def test_an_allowed_vrt_cannot_hide_raw_bytes(way: str, command: str, place: Path) -> None:
    """GDAL's reading of the XML decides, not ours."""
    (place / "inner.vrt").write_text(raw(place))
    (place / "late.vrt").write_text(f"<!-- {'x' * 600} -->{raw(place)}")
    (place / "label.xml").write_text("<Product/>")
    (place / "x.vrt").write_text(HIDING[way](place))
    result = runner().invoke(main, [command, "x.vrt", "--allow-vrt"])
    assert result.exit_code == 3, result.output
    said = ("raw bytes of another file", "is not the path of a file", "neither a TIFF nor a VRT")
    assert any(text in result.stderr for text in said), result.stderr


def test_an_allowed_vrt_may_name_rasters_and_vrts_of_them(place: Path) -> None:
    (place / "inner.vrt").write_text(outer(source("good.tif")))
    (place / "x.vrt").write_text(outer(source("inner.vrt") + source("good.tif")))
    result = runner().invoke(main, ["info", "x.vrt", "--allow-vrt"])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    "name",
    [
        "<VRTDataset rasterXSize='1' rasterYSize='1'/>",
        " \n<VRTDataset/>",
        "GTIFF_DIR:1:good.tif",
        "gtiff_dir:off:8:good.tif",
        "GTIFF_RAW:good.tif",
        "MEM:::DATAPOINTER=1,PIXELS=1,LINES=1",
        "vrt://good.tif?bands=1",
        "VRT://good.tif",
        "DERIVED_SUBDATASET:LOGAMPLITUDE:good.tif",
        "/vsistdin/",
        "/vsistdin?buffer_limit=1",
        "/vsisparse/x.xml",
        "/vsimem/x.tif",
        "HDF5:good.tif",
        "file:///etc/passwd",
    ],
)
def test_a_name_that_is_none_of_a_file(name: str, place: Path) -> None:
    for command in ("info", "refine", "vectorize"):
        result = runner().invoke(main, [command, name])
        assert result.exit_code in (2, 3), result.output
        assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1
    assert sorted(file.name for file in place.iterdir()) == ["good.tif", "secret.bin"]


def refined(place: Path, model: Path) -> tuple[int, bool]:
    """Exit code of `refine`, and whether the mask is that of a raster of zeros."""
    for file in place.glob("out*"):
        file.unlink()
    result = runner().invoke(main, ["refine", "good.tif", "-m", str(model), "-o", "out0.tif"])
    if result.exit_code:
        return result.exit_code, False
    write_raster(place / "plain.tif", np.zeros((64, 64), np.uint8))
    runner().invoke(main, ["refine", "plain.tif", "-m", str(model), "-o", "out1.tif"])
    with rasterio.open("out0.tif") as one, rasterio.open("out1.tif") as other:
        return 0, bool((one.read(1) == other.read(1)).all())


@pytest.mark.parametrize("beside", ["good.tif.ovr", "good.tif.msk", "good.ovr", "good.msk"])
def test_a_vrt_beside_a_raster_is_no_part_of_it(beside: str, place: Path, tiny_model: Path) -> None:
    (place / beside).write_text(raw(place))
    expected = (3, False) if beside == "good.tif.msk" else (0, True)
    assert refined(place, tiny_model) == expected


def test_a_link_to_a_vrt_beside_a_raster_is_no_part_of_it(place: Path, tiny_model: Path) -> None:
    (place / "hidden.vrt").write_text(raw(place))
    (place / "good.tif.msk").symlink_to("hidden.vrt")
    assert refined(place, tiny_model) == (3, False)


def test_overviews_that_lie_elsewhere_are_not_read(place: Path, tiny_model: Path) -> None:
    (place / "o.vrt").write_text(raw(place))
    (place / "good.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
        f"{place / 'o.vrt'}</MDI></Metadata></PAMDataset>"
    )
    assert refined(place, tiny_model) == (0, True)


def test_entities_in_a_side_file_are_not_expanded(place: Path, tiny_model: Path) -> None:
    """A billion of them would fill the memory, and one could hold another file."""
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    (place / "good.tif.aux.xml").write_text(
        f'<!DOCTYPE x [<!ENTITY a0 SYSTEM "file://{place}/secret.bin">{entities}]>'
        "<PAMDataset><SRS>&a11;</SRS></PAMDataset>"
    )
    code, _ = refined(place, tiny_model)
    assert code in (0, 3)
