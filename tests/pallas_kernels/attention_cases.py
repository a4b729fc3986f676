"""Masks, documents and shapes that the tests of attention and of its backends share."""

import numpy as np
import pytest

from pallas_kernels import (
    BlockLocal,
    Causal,
    Column,
    Fixed,
    Full,
    PrefixWindow,
    Strided,
    Summary,
    Window,
)
from pallas_kernels.example import examples

B = 2
SPARSE = (
    Window(7),
    PrefixWindow(3, 7),
    BlockLocal(6),
    Column(5),
    Strided(5),
    Summary(7, 2),
    Fixed(7, 2),
)
MASKS = (Full(), Causal(), *SPARSE)
each_mask = pytest.mark.parametrize("mask", MASKS, ids=str)
each_example = pytest.mark.parametrize("example", examples("attention"), ids=lambda e: e.name)


def documents(t):
    """Two documents, then padding, in the first row; one document in the second."""
    ids = np.ones((B, t), np.int32)
    ids[0, t // 3 :] = 2
    ids[0, t - t // 4 :] = 0
    return ids


def packed(mask, t):
    return {"mask": mask, "q_segment_ids": documents(t), "kv_segment_ids": documents(t)}
