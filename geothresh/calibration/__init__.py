"""What to do with the confidences of one base network, learned from labelled maps.

Maps are kept as histograms of 256 levels (`counts`). From these every way to transform and cut
confidences is fitted and scored (`candidates`), by cross-validation over places, and one of them is
advised if it is better than the cut at 0.5 beyond noise (`choosing`). No model is run here.
"""
