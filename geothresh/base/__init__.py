"""Base networks: images, networks, their part of the training loop, predicting."""
