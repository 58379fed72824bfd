"""A run that refines: model, pixel size, area, layers and outputs of one raster or of a part."""
