"""Virtual rasters (VRT): one raster of many files that lie on one pixel grid.

See https://gdal.org/drivers/raster/vrt.html. The VRT holds sizes and types of the files, so that
GDAL opens a file only when its pixels are read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# These functions write and read text; no XML is parsed here.
from xml.sax.saxutils import escape, quoteattr, unescape  # nosec B406

from geothresh.geobox import GeoBox
from geothresh.raster.creation import BandFormat
from geothresh.windows import PixelWindow

_TYPES = {"uint8": "Byte", "float32": "Float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualSource:
    """A file of a virtual raster."""

    location: str
    """Path of the file, relative to the virtual raster."""
    window: PixelWindow
    """Pixels of the virtual raster that the whole file covers."""


def virtual_raster(whole: GeoBox, band: BandFormat, sources: Sequence[VirtualSource]) -> str:
    """The text of a virtual raster of one band.

    Args:
        whole: size, transform and CRS of the virtual raster.
        band: type and meaning of its values.
        sources: the files, each with one band of that format; where files overlap, the last one
            with data is shown.
    """
    a, b, c, d, e, f = whole.transform
    crs = "" if whole.crs is None else f"  <SRS>{escape(whole.crs)}</SRS>\n"
    numbers = ", ".join(f"{number:.17g}" for number in (c, a, b, f, d, e))
    transform = f"  <GeoTransform>{numbers}</GeoTransform>\n" if whole.has_transform else ""
    colours = ""
    if band.colours:
        entries = "".join(
            f'      <Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>\n'
            for r, g, b in (band.colours.get(value, (0, 0, 0)) for value in range(256))
        )
        colours = (
            "    <ColorInterp>Palette</ColorInterp>\n"
            f"    <ColorTable>\n{entries}    </ColorTable>\n"
        )
    scale = f"    <Scale>{band.scale:.17g}</Scale>\n" if band.scale != 1.0 else ""
    kind = _TYPES[band.dtype]
    return (
        f'<VRTDataset rasterXSize="{whole.size.width}" rasterYSize="{whole.size.height}">\n'
        f"{crs}{transform}"
        f'  <VRTRasterBand dataType="{kind}" band="1">\n'
        f"    <Description>{escape(band.description)}</Description>\n"
        f"    <NoDataValue>{band.nodata:g}</NoDataValue>\n"
        f"{colours}{scale}"
        f"{''.join(_source(source, kind, band.nodata) for source in sources)}"
        "  </VRTRasterBand>\n"
        "</VRTDataset>\n"
    )


def _source(source: VirtualSource, kind: str, nodata: float) -> str:
    width, height = source.window.width, source.window.height
    location = escape(source.location)
    if location[:1].isspace():
        # GDAL skips spaces where a text begins.
        location = f"&#{ord(location[0])};{location[1:]}"
    return (
        "    <ComplexSource>\n"
        f'      <SourceFilename relativeToVRT="1">{location}</SourceFilename>\n'
        "      <SourceBand>1</SourceBand>\n"
        f'      <SourceProperties RasterXSize="{width}" RasterYSize="{height}" '
        f"DataType={quoteattr(kind)}/>\n"
        f'      <SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>\n'
        f'      <DstRect xOff="{source.window.col}" yOff="{source.window.row}" xSize="{width}" '
        f'ySize="{height}"/>\n'
        f"      <NODATA>{nodata:g}</NODATA>\n"
        "    </ComplexSource>\n"
    )


_WRITTEN = re.compile(
    "    <ComplexSource>\n"
    '      <SourceFilename relativeToVRT="1">([^<]*)</SourceFilename>\n'
    "      <SourceBand>1</SourceBand>\n"
    r'      <SourceProperties RasterXSize="\d+" RasterYSize="\d+" DataType="\w+"/>\n'
    r'      <SrcRect xOff="0" yOff="0" xSize="\d+" ySize="\d+"/>\n'
    r'      <DstRect xOff="\d+" yOff="\d+" xSize="\d+" ySize="\d+"/>\n'
    r"      <NODATA>[^<]*</NODATA>\n"
    "    </ComplexSource>\n"
)


def files_of(text: str) -> list[str]:
    """The files of a virtual raster that `virtual_raster` wrote; empty for another text."""
    files = _WRITTEN.findall(text)
    rest = _WRITTEN.sub("", text)
    ours = rest.startswith("<VRTDataset rasterXSize=") and "Source" not in rest
    return [unescape(re.sub(r"^&#(\d+);", _character, file)) for file in files] if ours else []


def _character(reference: re.Match[str]) -> str:
    return chr(int(reference[1]))
