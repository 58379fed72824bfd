"""Virtual rasters (VRT): one raster of many files that lie on one pixel grid.

https://gdal.org/drivers/raster/vrt.html. It holds sizes and types of the files, so that GDAL opens
a file only when its pixels are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Text is written with these, and none is parsed.
from xml.sax.saxutils import escape, quoteattr  # nosec B406

from geothresh.geobox import GeoBox
from geothresh.raster.creation import BandFormat
from geothresh.windows import PixelWindow

_TYPES = {"uint8": "Byte", "float32": "Float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualSource:
    """A file of a virtual raster."""

    location: str
    """From the virtual raster."""
    window: PixelWindow
    """Where all of it lies."""


def virtual_raster(whole: GeoBox, band: BandFormat, sources: Sequence[VirtualSource]) -> str:
    """The text of a virtual raster of one band.

    Args:
        whole: its size and place.
        band: what its values mean.
        sources: the files, each of one such band; of those that overlap, the last that has data
            there is shown.
    """
    a, b, c, d, e, f = whole.transform
    crs = "" if whole.crs is None else f"  <SRS>{escape(whole.crs)}</SRS>\n"
    place = ", ".join(f"{number:.17g}" for number in (c, a, b, f, d, e))
    transform = f"  <GeoTransform>{place}</GeoTransform>\n" if whole.has_transform else ""
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
        f"{''.join(_source(one, kind, band.nodata) for one in sources)}"
        "  </VRTRasterBand>\n"
        "</VRTDataset>\n"
    )


def _source(one: VirtualSource, kind: str, nodata: float) -> str:
    width, height = one.window.width, one.window.height
    return (
        "    <ComplexSource>\n"
        f'      <SourceFilename relativeToVRT="1">{escape(one.location)}</SourceFilename>\n'
        "      <SourceBand>1</SourceBand>\n"
        f'      <SourceProperties RasterXSize="{width}" RasterYSize="{height}" '
        f"DataType={quoteattr(kind)}/>\n"
        f'      <SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>\n'
        f'      <DstRect xOff="{one.window.col}" yOff="{one.window.row}" xSize="{width}" '
        f'ySize="{height}"/>\n'
        f"      <NODATA>{nodata:g}</NODATA>\n"
        "    </ComplexSource>\n"
    )
