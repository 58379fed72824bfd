"""dask.array.map_overlap: half the overlap on each side of a chunk, nothing blended.

python dask_overlap.py SCENE MODEL MASK
"""

import sys

import dask.array as da
import numpy as np
import rasterio
import torch

import geothresh

STRIDE, DEPTH = 384, 64
scene, model, mask = sys.argv[1:]
network = geothresh.load_model(model, device="cpu").network
torch.set_num_threads(1)


def refine(block: np.ndarray) -> np.ndarray:
    tall, wide = (-side % 64 for side in block.shape)
    padded = np.pad(block, ((0, tall), (0, wide)), mode="symmetric") / np.float32(255)
    with torch.inference_mode():
        refined = network.refine(torch.from_numpy(padded)[None, None])[0, 0].numpy()
    return (refined[: block.shape[0], : block.shape[1]] >= 0.5).astype(np.uint8)


with rasterio.open(scene) as dataset:
    profile, values = dataset.profile, dataset.read(1)
chunks = da.from_array(values, chunks=STRIDE)
cut = chunks.map_overlap(refine, depth=DEPTH, boundary="reflect", dtype=np.uint8, meta=values[:0])
profile.update(dtype="uint8", nodata=255)
with rasterio.open(mask, "w", **profile) as dataset:
    dataset.write(cut.compute(scheduler="threads", num_workers=2), 1)
