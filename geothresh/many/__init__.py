"""Refine many rasters as one surface: find, examine, plan, cut into units, run and index them."""
