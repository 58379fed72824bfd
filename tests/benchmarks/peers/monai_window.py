"""MONAI's SlidingWindowInferer over the whole array.

python monai_window.py SCENE MODEL MASK
"""

import sys

import numpy as np
import rasterio
import torch
from monai.inferers import SlidingWindowInferer

import geothresh

scene, model, mask = sys.argv[1:]
network = geothresh.load_model(model, device="cpu").network
inferer = SlidingWindowInferer(roi_size=512, sw_batch_size=4, overlap=0.25, mode="gaussian")
with rasterio.open(scene) as dataset:
    profile = dataset.profile
    values = torch.from_numpy(dataset.read(1) / np.float32(255))[None, None]
with torch.inference_mode():
    refined = inferer(values, network.refine)[0, 0].numpy()
profile.update(dtype="uint8", nodata=255)
with rasterio.open(mask, "w", **profile) as dataset:
    dataset.write((refined >= 0.5).astype(np.uint8), 1)
