"""Choose how to transform and cut the confidences of a base network, from labelled maps.

Maps are kept as histograms of 256 levels (`counts`). All ways to transform and cut confidences are
fitted to these and scored (`candidates`) by cross-validation over places. One is advised if it
is significantly better than the cut at 0.5 (`choosing`). No model is run here.
"""
