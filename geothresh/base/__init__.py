"""Base networks, which make confidence maps of images: networks, training, prediction."""
