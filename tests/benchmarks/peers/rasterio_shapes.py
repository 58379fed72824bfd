"""rasterio.features.shapes over the whole array, into a GeoPackage.

python rasterio_shapes.py MASK POLYGONS
"""

import sys

import geopandas
import rasterio
from rasterio.features import shapes
from shapely.geometry import shape

mask, polygons = sys.argv[1:]
with rasterio.open(mask) as dataset:
    values = dataset.read(1)
    found = [shape(s) for s, _ in shapes(values, mask=values == 1, transform=dataset.transform)]
    frame = geopandas.GeoDataFrame(geometry=found, crs=dataset.crs)
frame["area_m2"] = frame.area
frame.to_file(polygons, driver="GPKG")
