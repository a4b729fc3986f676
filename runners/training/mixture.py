"""Parts of a training set: those that the steps of a call draw their batches from."""

from collections.abc import Sequence

import numpy as np

import tasks


def batches_per_epoch(parts: Sequence[tasks.Part], batch_size: int) -> list[int]:
    """Batches of each part in an epoch; one of a part that is endless."""
    return [1 if p.num_examples is None else -(-p.num_examples // batch_size) for p in parts]


def parts_of(
    parts: Sequence[tasks.Part], batch_size: int, start: int, stop: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each step's part and how often that was drawn from before, for start … stop − 1.

    Both [size], zero behind the last step.
    """
    found = np.zeros((2, size), np.int32)
    if len(parts) == 1:
        found[1, : stop - start] = np.arange(start, stop)
        return found[0], found[1]
    counts = np.array(batches_per_epoch(parts, batch_size))
    length = counts.sum()
    for epoch in range(start // length, (stop - 1) // length + 1):
        order = tasks.part_schedule(counts, epoch)
        one_hot = order[:, None] == np.arange(len(parts))
        seen = epoch * counts[order] + (np.cumsum(one_hot, 0) - 1)[np.arange(length), order]
        first = epoch * length
        low, high = max(start, first), min(stop, first + length)
        found[0, low - start : high - start] = order[low - first : high - first]
        found[1, low - start : high - start] = seen[low - first : high - first]
    return found[0], found[1]
