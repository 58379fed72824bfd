"""Evaluate refinements against ground truth: counts, reports, figures.

The refiner is any callable, so that nothing here depends on networks or the engine.
"""
