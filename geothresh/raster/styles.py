"""Styles (``.qml``) and class names (``.aux.xml``) of rasters, for QGIS and other GIS programs.

QGIS opens a raster with the ``.qml`` of its name. GDAL, and with it QGIS and ArcGIS, reads class
names from the ``.aux.xml``: category names, and a raster attribute table with values, names and
colours.
"""

from __future__ import annotations

# These functions write XML; none is parsed here.
from xml.sax.saxutils import escape, quoteattr  # nosec B406

from geothresh.colours import hexadecimal
from geothresh.raster.creation import BandFormat, RasterClass
from geothresh.sidecars import signed_description, signed_style

# Columns of a raster attribute table: name, GDAL's type (0 integer, 2 string), and usage.
_COLUMNS = (
    ("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8),
    ("Alpha", 0, 9),
)  # fmt: skip


def raster_style(band: BandFormat) -> str:
    """The style of a raster, as QGIS 3.22 and later read it: named classes, or a ramp."""
    renderer = _classes(band.classes) if band.classes else _ramp(band)
    # Classes are shown by the nearest pixel when zoomed out: a mean of classes is not a class.
    zoomed = "nearestNeighbour" if band.classes else "bilinear"
    return signed_style(
        '<qgis version="3.22.0" styleCategories="Symbology|Rendering">\n'
        " <pipe>\n"
        "  <provider>\n"
        '   <resampling enabled="true" maxOversampling="2" '
        f'zoomedInResamplingMethod="nearestNeighbour" zoomedOutResamplingMethod="{zoomed}"/>\n'
        "  </provider>\n"
        f"{renderer}"
        '  <brightnesscontrast brightness="0" contrast="0" gamma="1"/>\n'
        '  <huesaturation colorizeOn="0" grayscaleMode="0" saturation="0"/>\n'
        '  <rasterresampler maxOversampling="2"/>\n'
        " </pipe>\n"
        " <blendMode>0</blendMode>\n"
        "</qgis>\n",
        "raster",
    )


def class_description(band: BandFormat) -> str | None:
    """The text of an ``.aux.xml`` file with the classes of a raster; None without classes."""
    if not band.classes:
        return None
    names = "".join(f"   <Category>{escape(item.label)}</Category>\n" for item in band.classes)
    fields = "".join(
        f'   <FieldDefn index="{k}"><Name>{name}</Name><Type>{kind}</Type>'
        f"<Usage>{usage}</Usage></FieldDefn>\n"
        for k, (name, kind, usage) in enumerate(_COLUMNS)
    )
    rows = "".join(
        f'   <Row index="{k}">{_row(item)}</Row>\n' for k, item in enumerate(band.classes)
    )
    return signed_description(
        ' <PAMRasterBand band="1">\n'
        f"  <CategoryNames>\n{names}  </CategoryNames>\n"
        '  <GDALRasterAttributeTable tableType="thematic">\n'
        f"{fields}{rows}"
        "  </GDALRasterAttributeTable>\n"
        " </PAMRasterBand>\n"
    )


def _row(item: RasterClass) -> str:
    values = (item.value, escape(item.label), *item.colour, _opacity(item))
    return "".join(f"<F>{value}</F>" for value in values)


def _opacity(item: RasterClass) -> int:
    return 0 if item.transparent else 255


def _classes(classes: tuple[RasterClass, ...]) -> str:
    entries = "".join(
        f'    <paletteEntry value="{item.value}" alpha="{_opacity(item)}" '
        f'color="{hexadecimal(item.colour)}" label={quoteattr(item.label)}/>\n'
        for item in classes
    )
    return (
        '  <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n'
        "   <rasterTransparency/>\n"
        f"   <colorPalette>\n{entries}   </colorPalette>\n"
        "  </rasterrenderer>\n"
    )


def _ramp(band: BandFormat) -> str:
    items = "".join(
        f'     <item value="{value:g}" label="{value:g}" color="{hexadecimal(colour)}" '
        f'alpha="{alpha}"/>\n'
        for value, colour, alpha in band.ramp
    )
    least, greatest = band.ramp[0][0], band.ramp[-1][0]
    return (
        '  <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" '
        f'nodataColor="" classificationMin="{least:g}" classificationMax="{greatest:g}">\n'
        "   <rasterTransparency/>\n"
        "   <rastershader>\n"
        '    <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" '
        f'minimumValue="{least:g}" maximumValue="{greatest:g}" labelPrecision="2">\n'
        f"{items}"
        "    </colorrampshader>\n"
        "   </rastershader>\n"
        "  </rasterrenderer>\n"
    )
