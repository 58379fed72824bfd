"""Refiners to compare with: DenseCRF and CascadePSP, which look at the image too."""
