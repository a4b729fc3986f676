"""Buffers that grow with the sequence: cached keys and values, past inputs of a long filter.

Letters: B batch, T time, M the longest sequence, D width.
"""

import jax
import jax.numpy as jnp

from pallas_kernels import long_convolution


def append(history: jax.Array, length: jax.Array, rows: jax.Array, axis: int = 1) -> jax.Array:
    """Write `rows` [B, T, ...] after the `length` rows already in `history` [B, M, ...].

    T and M may stand at another `axis` than 1.

    If there is no room, a `length` known in Python raises. A traced one cannot, so the rows become
    NaN: NaN shows up in the output, while a clipped write would go unnoticed.

    Raises:
      ValueError: more rows than M.
    """
    new, capacity = rows.shape[axis], history.shape[axis]
    seen = 0 if isinstance(length, jax.core.Tracer) else int(length)
    if seen + new > capacity:
        raise ValueError(
            f"the sequence has {seen + new} tokens, expected at most the {capacity} that "
            "initial_state was given as max_length"
        )
    if jnp.issubdtype(rows.dtype, jnp.floating):
        rows = jnp.where(length + new <= capacity, rows, jnp.nan)
    rows = rows.astype(history.dtype)
    if new > 1:
        return jax.lax.dynamic_update_slice_in_dim(history, rows, length, axis)
    # One token is scattered, with its own index for each sequence. XLA fuses a slice update with
    # each of its readers, which needs a copy of the whole buffer for every one of them.
    batch = jnp.arange(history.shape[0])
    index = (batch, *[slice(None)] * (axis - 1), jnp.full_like(batch, length))
    return history.at[index].set(jnp.squeeze(rows, axis), mode="clip")


def convolve_last(history: jax.Array, kernel: jax.Array, length: jax.Array, new: int) -> jax.Array:
    """Return the causal convolution kernel ∗ history at the last `new` of `length` rows.

    Args:
      history: [B, M, D], zero after row `length`.
      kernel: [D, M].
      length: rows filled, including the new ones.
      new: number of outputs.

    Returns:
      [B, new, D].
    """
    if new > 1:
        y = long_convolution(history, kernel)
        return jax.lax.dynamic_slice_in_dim(y, length - new, new, axis=1)
    # One token needs one row of the Toeplitz matrix, y = Σ_m kernel_{length−1−m} history_m: O(M)
    # and no FFT.
    lag = length - 1 - jnp.arange(history.shape[1])
    row = jnp.where(lag >= 0, kernel[:, jnp.maximum(lag, 0)], 0)
    return jnp.einsum("bmd,dm->bd", history, row, precision="highest")[:, None]
