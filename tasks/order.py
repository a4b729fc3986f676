"""Order of a training set within an epoch: of the examples of a part, and of the batches of parts.

Epochs are permutations that are computed, never stored.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_ROUNDS = 8  # four suffice for indistinguishability from random (Luby & Rackoff 1988); halves of a
# few bits profit from more, and a round costs six integer operations


def _round_function(half: jax.Array, round_key: jax.Array) -> jax.Array:
    """A fixed hash of 32 bits in which every input bit reaches every output bit."""
    h = (half ^ round_key) * jnp.uint32(0x9E3779B1)
    h = (h ^ (h >> 15) ^ round_key) * jnp.uint32(0x85EBCA77)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE3D)
    return h ^ (h >> 16)


def permuted(key: jax.Array, index: jax.Array, size: int) -> jax.Array:
    """The image of `index` under a permutation of 0 … size − 1 that `key` selects.

    A Feistel network permutes 0 … 2^k − 1, 2^k the least power that holds `size`: with x = (l, r),
    rounds l ← l ⊕ F(r) and r ← r ⊕ F(l) alternate, and each undoes itself, whatever F. Values that
    fall outside 0 … size − 1 are sent through again until they are inside (cycle walking, Black &
    Rogaway 2002), which again is a bijection and takes less than two passes on average.

    Args:
      key: the permutation.
      index: int array of any shape, each in [0, size).
      size: the number of things permuted, a Python int of at most 2^30.

    Returns:
      An int32 array of the shape of `index`.
    """
    bits = (size - 1).bit_length()
    low = (bits + 1) // 2
    low_mask, high_mask = (1 << low) - 1, (1 << (bits - low)) - 1
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def feistel(x: jax.Array) -> jax.Array:
        left, right = x >> low, x & low_mask
        for i in range(_ROUNDS):
            if i % 2:
                left = left ^ (_round_function(right, round_keys[i]) & high_mask)
            else:
                right = right ^ (_round_function(left, round_keys[i]) & low_mask)
        return (left << low) | right

    def walk(x: jax.Array) -> jax.Array:
        return jnp.where(x < size, x, feistel(x))

    first = feistel(jnp.asarray(index).astype(jnp.uint32))
    return jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, first).astype(jnp.int32)


def epoch_and_position(step: jax.Array, batch_size: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Epoch and position of each example of batch number `step`: divmod(step·batch_size + i, size).

    The product may exceed 32 bits, so it is never formed: numbers are kept as pairs (epoch,
    position), and step·batch_size is built by doubling and adding along the bits of batch_size.

    Args:
      step: int32 scalar, the number of batches before this one.
      batch_size: B.
      size: examples per epoch, at most 2^30.

    Returns:
      (epoch, position), both int32 [B].
    """

    def plus(a: tuple, b: tuple) -> tuple[jax.Array, jax.Array]:
        carry, position = jnp.divmod(a[1] + b[1], size)
        return a[0] + b[0] + carry, position

    one_step = jnp.divmod(jnp.asarray(step, jnp.int32), size)
    start = one_step
    for bit in bin(batch_size)[3:]:  # after the leading one
        start = plus(start, start)
        if bit == "1":
            start = plus(start, one_step)
    return plus(start, (0, jnp.arange(batch_size, dtype=jnp.int32)))


def part_schedule(num_batches: Sequence[int], epoch: int) -> np.ndarray:
    """The part that each step of an epoch draws its batch from; every part has all its batches.

    Args:
      num_batches: of each part in an epoch.
      epoch: fixes the order, which all trials share.

    Returns:
      Part numbers, int32 [sum(num_batches)].
    """
    order = np.repeat(np.arange(len(num_batches)), num_batches)
    return np.random.default_rng(epoch).permutation(order).astype(np.int32)
