"""Refiners to compare with, which also read the image: DenseCRF and CascadePSP."""
