"""Compute the centrelines of a mask: thin it, trace the skeleton, and build a network."""
