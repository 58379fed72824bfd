"""Centrelines of a mask: thinning, tracing into a graph, and the network that comes of it."""
