"""Named shapes of the selective scan."""

import jax
import jax.numpy as jnp

from pallas_kernels.example import Arrays, Example


def _arrays(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int, N: int) -> Arrays:
    return {
        "u": jax.random.normal(keys[0], (B, T, D)).astype(dtype),
        "delta": jnp.exp(
            jax.random.uniform(keys[1], (B, T, D), minval=jnp.log(1e-3), maxval=jnp.log(1e-1))
        ).astype(dtype),
        "A": -jnp.broadcast_to(jnp.arange(1.0, N + 1), (D, N)),
        "B": jax.random.normal(keys[2], (B, T, N)).astype(dtype),
        "C": jax.random.normal(keys[3], (B, T, N)).astype(dtype),
        "D": jnp.ones(D),
        "h0": jax.random.normal(keys[4], (B, D, N)),
    }


EXAMPLES = (
    Example("selective_scan", "small", _arrays, {"B": 4, "T": 256, "D": 128, "N": 16}),
    Example(
        "selective_scan", "typical", _arrays, {"B": 4, "T": 4096, "D": 512, "N": 16}, grows=True
    ),
    Example("selective_scan", "long", _arrays, {"B": 1, "T": 16384, "D": 256, "N": 16}),
    Example(
        "selective_scan", "large", _arrays, {"B": 8, "T": 4096, "D": 2048, "N": 16}, large=True
    ),
)
