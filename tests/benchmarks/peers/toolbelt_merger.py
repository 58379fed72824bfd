"""pytorch-toolbelt's ImageSlicer and TileMerger over the whole array.

python toolbelt_merger.py SCENE MODEL MASK
"""

import sys

import numpy as np
import rasterio
import torch
from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger

import geothresh

scene, model, mask = sys.argv[1:]
network = geothresh.load_model(model, device="cpu").network
with rasterio.open(scene) as dataset:
    profile, values = dataset.profile, dataset.read(1) / np.float32(255)
slicer = ImageSlicer(values.shape, tile_size=(512, 512), tile_step=(384, 384), weight="pyramid")
merger = TileMerger(slicer.target_shape, 1, slicer.weight)
tiles = slicer.split(values)
with torch.inference_mode():
    for first in range(0, len(tiles), 4):
        batch = torch.from_numpy(np.stack(tiles[first : first + 4]))[:, None]
        merger.integrate_batch(network.refine(batch), slicer.crops[first : first + 4])
refined = slicer.crop_to_orignal_size(np.moveaxis(merger.merge().numpy(), 0, -1))
profile.update(dtype="uint8", nodata=255)
with rasterio.open(mask, "w", **profile) as dataset:
    dataset.write((refined.reshape(values.shape) >= 0.5).astype(np.uint8), 1)
