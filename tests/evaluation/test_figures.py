"""Figures of maps: both masks and their errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geothresh.colours import ADDED, FOREGROUND, NO_DATA, REMOVED
from geothresh.evaluation.figures import error_picture, figure
from tests.support.samples import sample


def test_errors_have_their_colours() -> None:
    prediction = np.array([[1, 1, 0, 0]], dtype=bool)
    truth = np.array([[1, 0, 1, 1]], dtype=bool)
    valid = np.array([[1, 1, 1, 0]], dtype=bool)
    picture = error_picture(prediction, truth, valid)
    assert [tuple(p) for p in picture[0].tolist()] == [
        FOREGROUND,
        REMOVED,
        ADDED,
        NO_DATA,
    ]
    assert ADDED[2] == max(ADDED), "what is missed is blue"
    assert REMOVED[0] == max(REMOVED), "what is falsely found is red"


def test_a_figure_shows_both_masks_and_their_errors() -> None:
    plain = sample(1)
    narrow = figure(plain, threshold=0.5, source="net")
    wide = figure(replace(plain, refined=plain.confidence), threshold=0.5, source="net")
    assert narrow.dtype == np.uint8
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] > narrow.shape[1]


def test_a_figure_shows_the_mask_that_is_scored() -> None:
    """Foreground of the input that the keep threshold leaves looks as if it had stayed."""
    plain = sample(1)
    foreground = plain.confidence >= 0.5
    gone = replace(plain, refined=np.where(foreground, np.float32(0.3), np.float32(0)))
    stays = replace(plain, refined=np.where(foreground, np.float32(0.9), np.float32(0)))
    cut, kept = (figure(gone, threshold=0.5, source="net", keep=keep) for keep in (None, 0.2))
    assert (cut != kept).any()
    np.testing.assert_array_equal(kept, figure(stays, threshold=0.5, source="net"))
