"""Maps that are scored while a network is trained."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from geothresh.training.validation import refine_map
from tests.support.networks import TINY, network


@pytest.mark.parametrize(("height", "width"), [(512, 512), (40, 700), (1100, 530)])
def test_a_map_is_refined_in_abutting_tiles_in_the_thread_that_trains(
    height: int, width: int
) -> None:
    rng = np.random.default_rng(height)
    confidence = rng.random((height, width), dtype=np.float32)
    net = network(TINY)
    threads = set()
    net.register_forward_pre_hook(lambda *_: threads.add(threading.get_ident()))
    refined = refine_map(net, confidence, dtype=torch.float32)
    assert threads == {threading.get_ident()}
    padded = np.pad(confidence, ((0, -height % 512), (0, -width % 512)), mode="symmetric")
    expected = np.empty_like(padded)
    for row in range(0, padded.shape[0], 512):
        for col in range(0, padded.shape[1], 512):
            place = np.s_[row : row + 512, col : col + 512]
            with torch.no_grad():
                expected[place] = net.refine(torch.from_numpy(padded[place].copy())[None, None])[0]
    expected = expected[:height, :width]
    np.testing.assert_allclose(refined, expected, rtol=0, atol=2**-29)
    # What is scored is the same to the last pixel.
    np.testing.assert_array_equal(refined >= 0.5, expected >= 0.5)
