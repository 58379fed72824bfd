"""scikit-image's thinning and skan's branches over the whole array, into a GeoPackage.

python skan_lines.py MASK LINES
"""

import sys

import geopandas
import rasterio
from shapely.geometry import LineString
from skan import Skeleton
from skimage.morphology import thin

mask, lines = sys.argv[1:]
with rasterio.open(mask) as dataset:
    skeleton = Skeleton(thin(dataset.read(1) == 1))
    paths = [skeleton.path_coordinates(k) + 0.5 for k in range(skeleton.n_paths)]
    found = [LineString([dataset.transform * (x, y) for y, x in path]) for path in paths]
    frame = geopandas.GeoDataFrame(geometry=found, crs=dataset.crs)
frame["length_m"] = frame.length
frame.to_file(lines, driver="GPKG")
