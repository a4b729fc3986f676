"""Named shapes of the long convolution."""

import jax
import jax.numpy as jnp

from pallas_kernels.example import Arrays, Example


def _arrays(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int) -> Arrays:
    return {
        "u": jax.random.normal(keys[0], (B, T, D)).astype(dtype),
        "kernel": jax.random.normal(keys[1], (D, T)) * T**-0.5,
    }


EXAMPLES = (
    Example("long_convolution", "small", _arrays, {"B": 64, "T": 64, "D": 64}),
    Example("long_convolution", "typical", _arrays, {"B": 4, "T": 2048, "D": 256}, grows=True),
    Example("long_convolution", "long", _arrays, {"B": 1, "T": 16384, "D": 128}),
)
