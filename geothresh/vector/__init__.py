"""Polygons and centrelines, measured in metres, and the GeoPackage they are written to.

The one home of shapely, pyproj and pyogrio. Geometries are numpy arrays of shapely objects: no
step needs a data frame.
"""
