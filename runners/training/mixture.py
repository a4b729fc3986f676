"""Order of the parts of a training set: the part that each step draws its batch from."""

import numpy as np

import tasks


def part_schedule(parts: tuple[tasks.Part, ...], batch_size: int, epoch: int) -> np.ndarray:
    """The part of each step of an epoch, which holds every batch of every part once."""
    counts = [1 if p.num_examples is None else -(-p.num_examples // batch_size) for p in parts]
    order = np.repeat(np.arange(len(parts)), counts)
    return np.random.default_rng(epoch).permutation(order).astype(np.int32)


def parts_of(
    parts: tuple[tasks.Part, ...], batch_size: int, start: int, stop: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each step's part and how often that was drawn from before, for start … stop − 1.

    Both [size], zero behind the last step.
    """
    found = np.zeros((2, size), np.int32)
    if len(parts) == 1:
        found[1, : stop - start] = np.arange(start, stop)
        return found[0], found[1]
    length = len(part_schedule(parts, batch_size, 0))
    for epoch in range(start // length, (stop - 1) // length + 1):
        order = part_schedule(parts, batch_size, epoch)
        counts = np.bincount(order, minlength=len(parts))
        one_hot = order[:, None] == np.arange(len(parts))
        seen = epoch * counts[order] + (np.cumsum(one_hot, 0) - 1)[np.arange(length), order]
        first = epoch * length
        low, high = max(start, first), min(stop, first + length)
        found[0, low - start : high - start] = order[low - first : high - first]
        found[1, low - start : high - start] = seen[low - first : high - first]
    return found[0], found[1]
