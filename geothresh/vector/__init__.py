"""Vector layers of a mask: polygons and centrelines, measured in metres, and their files.

Only this room imports shapely, pyproj and pyogrio. Geometries are numpy arrays of shapely objects,
so that no step needs a data frame; the Hilbert order of GeoParquet takes a
GeoSeries of points.
"""
