"""Train base networks, which make confidence maps of images, and predict with them."""
