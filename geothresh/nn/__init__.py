"""The network, its losses, its files, and the refiner that the engine calls."""
