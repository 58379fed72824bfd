"""Rasters and pictures: the one home of rasterio and Pillow."""
