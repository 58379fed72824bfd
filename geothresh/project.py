"""Write a QGIS project file: a list of raster and vector layers with styles and relative paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# These functions write XML; none is parsed here.
from xml.sax.saxutils import escape, quoteattr  # nosec B406

from geothresh.errors import InputError
from geothresh.files import write_text
from geothresh.options import Bounds

_PROVIDERS = {"raster": "gdal", "vector": "ogr"}
# The part of a style that a project repeats.
_LOOKS = re.compile(r"<pipe>.*</pipe>|<renderer-v2 .*</renderer-v2>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLayer:
    """A layer of a project."""

    title: str
    """Name in the list of layers."""
    path: Path
    """Path of the file, which is in the folder of the project."""
    kind: Literal["raster", "vector"]
    """Whether the file is a raster or a vector file."""
    style: str
    """Text of its ``.qml`` style."""
    table: str = ""
    """Name of the layer in a GeoPackage; empty for other files."""
    shown: bool = True
    """Whether the layer is visible at first."""

    @property
    def source(self) -> str:
        """Source of the layer for QGIS, relative to the project."""
        return f"./{self.path.name}" + (f"|layername={self.table}" if self.table else "")


def write_project(
    target: Path, layers: Sequence[ProjectLayer], *, title: str, crs: str, bounds: Bounds
) -> None:
    """Write a project that QGIS 3.22 and later open.

    Args:
        target: the ``.qgs`` file.
        layers: the layers, from top to bottom.
        title: title of the window.
        crs: CRS of the map and of all layers, as WKT.
        bounds: extent that is shown first.

    Raises:
        OutputError: the file cannot be written.
        InputError: a style has no renderer.
    """
    system = f"<spatialrefsys><wkt>{escape(crs)}</wkt></spatialrefsys>"
    # QGIS replaces identifiers of ten characters or less.
    numbered = [(f"geothresh_layer_{number}", layer) for number, layer in enumerate(layers)]
    tree = "".join(
        f"  <layer-tree-layer id={quoteattr(name)} name={quoteattr(layer.title)} "
        f"source={quoteattr(layer.source)} providerKey={quoteattr(_PROVIDERS[layer.kind])} "
        f'checked="{"Qt::Checked" if layer.shown else "Qt::Unchecked"}" expanded="0"/>\n'
        for name, layer in numbered
    )
    ends = zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)
    extent = "".join(f"<{end}>{value!r}</{end}>" for end, value in ends)
    write_text(
        target,
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis projectname={quoteattr(title)} version="3.22.0">\n'
        f" <title>{escape(title)}</title>\n"
        f" <projectCrs>{system}</projectCrs>\n"
        f" <layer-tree-group>\n{tree} </layer-tree-group>\n"
        f' <mapcanvas name="theMapCanvas" annotationsVisible="1"><units>meters</units>'
        f"<extent>{extent}</extent><rotation>0</rotation>"
        f"<destinationsrs>{system}</destinationsrs></mapcanvas>\n"
        f" <projectlayers>\n{''.join(_layer(name, layer, system) for name, layer in numbered)}"
        " </projectlayers>\n"
        ' <properties><Paths><Absolute type="bool">false</Absolute></Paths><SpatialRefSys>'
        '<ProjectionsEnabled type="int">1</ProjectionsEnabled></SpatialRefSys></properties>\n'
        "</qgis>\n",
    )


def _layer(name: str, layer: ProjectLayer, system: str) -> str:
    looks = _LOOKS.search(layer.style)
    if looks is None:
        raise InputError(
            f"{layer.path}: its style says nothing of how it looks; save it anew from QGIS"
        )
    return (
        f"  <maplayer type={quoteattr(layer.kind)}>\n"
        f"   <id>{escape(name)}</id>\n"
        f"   <datasource>{escape(layer.source)}</datasource>\n"
        f"   <layername>{escape(layer.title)}</layername>\n"
        f"   <srs>{system}</srs>\n"
        f'   <provider encoding="UTF-8">{_PROVIDERS[layer.kind]}</provider>\n'
        f"{looks[0]}\n"
        "  </maplayer>\n"
    )
