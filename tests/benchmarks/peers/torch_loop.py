"""A plain loop over windows: read, refine, add up with weights, divide, write.

python torch_loop.py SCENE MODEL MASK
"""

import sys

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

import geothresh

TILE, STRIDE = 512, 384
scene, model, mask = sys.argv[1:]
network = geothresh.load_model(model, device="cpu").network
weight = np.outer(np.hanning(TILE + 2)[1:-1], np.hanning(TILE + 2)[1:-1]).astype(np.float32)
with rasterio.open(scene) as dataset:
    profile, height, width = dataset.profile, dataset.height, dataset.width
    total = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for row in range(0, max(height - TILE, 0) + STRIDE, STRIDE):
        for col in range(0, max(width - TILE, 0) + STRIDE, STRIDE):
            row, col = min(row, height - TILE), min(col, width - TILE)
            tile = dataset.read(1, window=Window(col, row, TILE, TILE)) / np.float32(255)
            with torch.inference_mode():
                refined = network.refine(torch.from_numpy(tile)[None, None])[0, 0].numpy()
            place = np.s_[row : row + TILE, col : col + TILE]
            total[place] += weight * refined
            weights[place] += weight
profile.update(dtype="uint8", nodata=255)
with rasterio.open(mask, "w", **profile) as dataset:
    dataset.write((total / weights >= 0.5).astype(np.uint8), 1)
