"""Refiners that ThreshNet is compared with, which also read the image: DenseCRF, CascadePSP."""
