"""Many rasters as one surface: found, examined, planned, cut into units, run, indexed."""
